// SPDX-License-Identifier: Apache-2.0
/* Binds a unix datagram socket at argv[1] ('@name': abstract) and writes each datagram as one line, \n as |. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  char datagram[4096];

  if (argc != 2 || strlen(argv[1]) >= sizeof(address.sun_path))
    return 2;
  strcpy(address.sun_path, argv[1]);
  const socklen_t length = offsetof(struct sockaddr_un, sun_path) + strlen(argv[1]);
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

  if (address.sun_path[0] == '@')
    address.sun_path[0] = '\0';
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) < 0)
    return 1;
  setvbuf(stdout, NULL, _IOLBF, 0);
  puts("bound");
  for (;;) {
    const ssize_t received = recv(fd, datagram, sizeof(datagram) - 1, 0);

    if (received < 0)
      return 1;
    datagram[received] = '\0';
    for (char *at = datagram; (at = strchr(at, '\n')) != NULL;)
      *at = '|';
    puts(datagram);
  }
}
