// Sends marked packets in every way there is, and tells which marks arrive. A mark is `CDN:name.` in a payload.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef PACKET_QDISC_BYPASS
#define PACKET_QDISC_BYPASS 20
#endif

static void fail(const char *what) {
  fprintf(stderr, "%s: %s\n", what, strerror(errno));
  exit(1);
}

static unsigned short checksum(const void *data, size_t length, unsigned sum) {
  const unsigned char *bytes = data;
  for (size_t index = 0; index + 1 < length; index += 2) sum += bytes[index] << 8 | bytes[index + 1];
  if (length & 1) sum += bytes[length - 1] << 8;
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return htons(~sum);
}

// An IPv4 header and a UDP or TCP header before the mark.
static size_t ipv4(unsigned char *at, const char *from, const char *to, int protocol, int port, const char *mark) {
  size_t transport = protocol == IPPROTO_TCP ? 20 : 8;
  size_t total = 20 + transport + strlen(mark);
  memset(at, 0, 20 + transport);
  at[0] = 0x45;
  at[2] = total >> 8;
  at[3] = total;
  at[8] = 64;
  at[9] = protocol;
  inet_pton(AF_INET, from, at + 12);
  inet_pton(AF_INET, to, at + 16);
  unsigned short sum = checksum(at, 20, 0);
  memcpy(at + 10, &sum, 2);
  unsigned char *header = at + 20;
  header[0] = 0x9c;
  header[1] = 0x40;
  header[2] = port >> 8;
  header[3] = port;
  if (protocol == IPPROTO_TCP) {
    header[12] = 0x50;
    header[13] = 0x10;
  } else {
    header[4] = (8 + strlen(mark)) >> 8;
    header[5] = 8 + strlen(mark);
  }
  memcpy(header + transport, mark, strlen(mark));
  return total;
}

static int tell_marks(const unsigned char *data, ssize_t length) {
  for (ssize_t at = 0; at + 5 < length; at += 1) {
    if (memcmp(data + at, "CDN:", 4) != 0) continue;
    const unsigned char *end = memchr(data + at, '.', length - at);
    if (end == NULL || end - (data + at) > 60) continue;
    printf("%.*s\n", (int)(end - (data + at)), data + at);
    fflush(stdout);
    return 1;
  }
  return 0;
}

// listen DEVICE
_Noreturn static void listen_on(const char *device) {
  int fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
  if (fd < 0) fail("socket");
  struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
  address.sll_ifindex = if_nametoindex(device);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0) fail("bind");
  puts("ready");
  fflush(stdout);
  unsigned char buffer[2048];
  for (;;) {
    struct sockaddr_ll from;
    socklen_t size = sizeof from;
    ssize_t length = recvfrom(fd, buffer, sizeof buffer, 0, (struct sockaddr *)&from, &size);
    if (length < 0) fail("recvfrom");
    if (from.sll_pkttype != PACKET_OUTGOING) tell_marks(buffer, length);
  }
}

// packet DEVICE KIND FROM TO PORT MARK
static int send_frame(char **argument) {
  const char *device = argument[0], *kind = argument[1];
  int port = atoi(argument[4]);
  unsigned char frame[1024] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1};
  unsigned type = ETH_P_IP, claimed = ETH_P_IP;
  int protocol = strcmp(kind, "tcp") == 0 ? IPPROTO_TCP : IPPROTO_UDP;
  if (strcmp(kind, "other") == 0) type = claimed = 0x88b5;
  if (strcmp(kind, "arp") == 0) type = claimed = ETH_P_ARP;
  if (strcmp(kind, "claims-arp") == 0) claimed = ETH_P_ARP;
  // What is told to the kernel is a segment to the controller; what the frame says is another protocol.
  if (strcmp(kind, "claims-ip") == 0) {
    type = 0x88b5;
    protocol = IPPROTO_TCP;
  }
  frame[12] = type >> 8;
  frame[13] = type;
  size_t length = 14 + ipv4(frame + 14, argument[2], argument[3], protocol, port, argument[5]);
  int fd = socket(AF_PACKET, SOCK_RAW, 0);
  if (fd < 0) fail("socket");
  int one = 1;
  if (strcmp(kind, "bypass") == 0 && setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one) != 0)
    fail("setsockopt");
  struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_protocol = htons(claimed), .sll_halen = 6};
  to.sll_ifindex = if_nametoindex(device);
  memset(to.sll_addr, 0xff, 6);
  if (sendto(fd, frame, length, 0, (struct sockaddr *)&to, sizeof to) < 0) printf("refused %s\n", strerror(errno));
  return 0;
}

// raw FROM TO PORT MARK: a raw socket with a header of its own.
static int send_raw(char **argument) {
  unsigned char packet[1024];
  size_t length = ipv4(packet, argument[0], argument[1], IPPROTO_UDP, atoi(argument[2]), argument[3]);
  int fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
  if (fd < 0) fail("socket");
  struct sockaddr_in to = {.sin_family = AF_INET};
  inet_pton(AF_INET, argument[1], &to.sin_addr);
  if (sendto(fd, packet, length, 0, (struct sockaddr *)&to, sizeof to) < 0) printf("refused %s\n", strerror(errno));
  return 0;
}

static socklen_t address_of(const char *text, int port, struct sockaddr_storage *out) {
  memset(out, 0, sizeof *out);
  struct sockaddr_in *four = (struct sockaddr_in *)out;
  struct sockaddr_in6 *six = (struct sockaddr_in6 *)out;
  if (inet_pton(AF_INET, text, &four->sin_addr) == 1) {
    four->sin_family = AF_INET;
    four->sin_port = htons(port);
    return sizeof *four;
  }
  if (inet_pton(AF_INET6, text, &six->sin6_addr) != 1) fail("address");
  six->sin6_family = AF_INET6;
  six->sin6_port = htons(port);
  return sizeof *six;
}

// udp TO PORT MARK
static int send_udp(char **argument) {
  struct sockaddr_storage to;
  socklen_t size = address_of(argument[0], atoi(argument[1]), &to);
  int fd = socket(to.ss_family, SOCK_DGRAM, 0);
  if (fd < 0) fail("socket");
  if (sendto(fd, argument[2], strlen(argument[2]), 0, (struct sockaddr *)&to, size) < 0)
    printf("refused %s\n", strerror(errno));
  return 0;
}

// hear ADDRESS PORT: tells the marks that a UDP socket gets.
_Noreturn static void hear_udp(char **argument) {
  struct sockaddr_storage at;
  socklen_t size = address_of(argument[0], atoi(argument[1]), &at);
  int fd = socket(at.ss_family, SOCK_DGRAM, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&at, size) != 0) fail("bind");
  puts("ready");
  fflush(stdout);
  unsigned char buffer[2048];
  for (;;) {
    ssize_t length = recv(fd, buffer, sizeof buffer, 0);
    if (length < 0) fail("recv");
    tell_marks(buffer, length);
  }
}

// serve ADDRESS PORT: echoes what TCP connections send.
_Noreturn static void serve_tcp(char **argument) {
  struct sockaddr_storage at;
  socklen_t size = address_of(argument[0], atoi(argument[1]), &at);
  int fd = socket(at.ss_family, SOCK_STREAM, 0);
  int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (fd < 0 || bind(fd, (struct sockaddr *)&at, size) != 0 || listen(fd, 16) != 0) fail("listen");
  puts("ready");
  fflush(stdout);
  struct pollfd sockets[64] = {{.fd = fd, .events = POLLIN}};
  int count = 1;
  for (;;) {
    if (poll(sockets, count, -1) < 0) fail("poll");
    if (sockets[0].revents & POLLIN && count < 64) {
      int client = accept(fd, NULL, NULL);
      if (client >= 0) sockets[count++] = (struct pollfd){.fd = client, .events = POLLIN};
    }
    for (int index = 1; index < count; index += 1) {
      if (!sockets[index].revents) continue;
      char buffer[512];
      ssize_t length = recv(sockets[index].fd, buffer, sizeof buffer, 0);
      if (length > 0 && send(sockets[index].fd, buffer, length, MSG_NOSIGNAL) == length) continue;
      close(sockets[index].fd);
      sockets[index--] = sockets[--count];
    }
  }
}

// connect ADDRESS PORT: sends each line of its input, tells what comes back, and how the connection ended.
static int connect_tcp(char **argument) {
  struct sockaddr_storage to;
  socklen_t size = address_of(argument[0], atoi(argument[1]), &to);
  int fd = socket(to.ss_family, SOCK_STREAM, 0);
  if (fd < 0) fail("socket");
  if (connect(fd, (struct sockaddr *)&to, size) != 0) fail("connect");
  puts("ready");
  fflush(stdout);
  struct pollfd both[2] = {{.fd = 0, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
  for (;;) {
    if (poll(both, 2, -1) < 0) fail("poll");
    char buffer[512];
    if (both[1].revents) {
      ssize_t length = recv(fd, buffer, sizeof buffer, 0);
      if (length <= 0) {
        printf("ended %s\n", length == 0 ? "in order" : strerror(errno));
        return 0;
      }
      printf("%.*s", (int)length, buffer);
      fflush(stdout);
    }
    if (both[0].revents) {
      ssize_t length = read(0, buffer, sizeof buffer);
      if (length <= 0) return 0;
      if (send(fd, buffer, length, MSG_NOSIGNAL) < 0) printf("not sent %s\n", strerror(errno));
      fflush(stdout);
    }
  }
}

int main(int count, char **argument) {
  const char *mode = count > 1 ? argument[1] : "";
  if (count == 3 && strcmp(mode, "listen") == 0) listen_on(argument[2]);
  if (count == 8 && strcmp(mode, "packet") == 0) return send_frame(argument + 2);
  if (count == 6 && strcmp(mode, "raw") == 0) return send_raw(argument + 2);
  if (count == 5 && strcmp(mode, "udp") == 0) return send_udp(argument + 2);
  if (count == 4 && strcmp(mode, "hear") == 0) hear_udp(argument + 2);
  if (count == 4 && strcmp(mode, "serve") == 0) serve_tcp(argument + 2);
  if (count == 4 && strcmp(mode, "connect") == 0) return connect_tcp(argument + 2);
  fprintf(stderr, "usage: packet-probe listen|packet|raw|udp|hear|serve|connect ...\n");
  return 2;
}
