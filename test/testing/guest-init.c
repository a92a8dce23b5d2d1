// SPDX-License-Identifier: Apache-2.0
/*
 * The first process of a guest that lives in memory: mounts what programs expect, loads the modules that it was
 * given, starts the network, then runs the commands that its second serial line asks for, one after the other.
 *
 *     request: RUN BYTES, a line feed, then the words of the command, each ended with NUL
 *     answer:  DONE STATUS BYTES BYTES, a line feed, then what the command said on its two outputs
 *
 *     gcc -O2 -static -o init guest-init.c
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define REQUEST_BYTES_MAX 65536
#define WORDS_MAX 256
#define OUTPUT_BYTES_MAX (1 << 20)
#define POLL_MS 20
/* What a command leaves running keeps its outputs open: they are given this long after its end. */
#define OUTPUT_MS 300
/* Loaded at the start in the order of their names. */
#define MODULES "/lib/modules/start"
/* As qemu's user network expects its guest. */
#define ADDRESS "10.0.2.15"
#define MASK "255.255.255.0"

struct output {
  int fd;
  size_t bytes;
  char *data;
};

static const struct {
  const char *type, *target;
} mounts[] = {
    {"proc", "/proc"},       {"sysfs", "/sys"},          {"devtmpfs", "/dev"},           {"devpts", "/dev/pts"},
    {"tmpfs", "/dev/shm"},   {"tmpfs", "/run"},          {"tmpfs", "/tmp"},              {"cgroup2", "/sys/fs/cgroup"},
    {"bpf", "/sys/fs/bpf"},  {"tracefs", "/sys/kernel/tracing"},
};

static void give_up(const char *what) {
  /* On the console, which is where the kernel's own words are. */
  printf("guest-init: %s: %s\n", what, strerror(errno));
  fflush(stdout);
  reboot(RB_POWER_OFF);
  _exit(1);
}

static void mount_all(void) {
  for (size_t index = 0; index < sizeof(mounts) / sizeof(mounts[0]); index++) {
    mkdir(mounts[index].target, 0755);
    if (mount(mounts[index].type, mounts[index].target, mounts[index].type, 0, NULL) < 0 && errno != EBUSY)
      printf("guest-init: %s is not mounted: %s\n", mounts[index].target, strerror(errno));
  }
}

static void start_loopback(void) {
  struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

  if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
    printf("guest-init: no loopback: %s\n", strerror(errno));
  close(fd);
}

static void load_modules(void) {
  struct dirent **entries;
  const int count = scandir(MODULES, &entries, NULL, alphasort);

  for (int index = 0; index < count; index++) {
    char path[512];
    const char *name = entries[index]->d_name;

    if (name[0] == '.')
      continue;
    snprintf(path, sizeof(path), MODULES "/%s", name);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) < 0)
      printf("guest-init: %s is not loaded: %s\n", path, strerror(errno));
    close(fd);
  }
}

static int set_address(int fd, unsigned long what, const char *address) {
  struct ifreq request = {.ifr_name = "eth0"};
  struct sockaddr_in *at = (struct sockaddr_in *)&request.ifr_addr;

  at->sin_family = AF_INET;
  inet_pton(AF_INET, address, &at->sin_addr);
  return ioctl(fd, what, &request);
}

/* Only where the machine has a card, and the modules for it were given. */
static void start_card(void) {
  struct ifreq request = {.ifr_name = "eth0", .ifr_flags = IFF_UP | IFF_RUNNING};
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

  if (if_nametoindex("eth0") != 0 && (set_address(fd, SIOCSIFADDR, ADDRESS) < 0 ||
                                      set_address(fd, SIOCSIFNETMASK, MASK) < 0 ||
                                      ioctl(fd, SIOCSIFFLAGS, &request) < 0))
    printf("guest-init: no network: %s\n", strerror(errno));
  close(fd);
}

static int open_line(void) {
  struct termios settings;
  const int fd = open("/dev/ttyS1", O_RDWR | O_NOCTTY | O_CLOEXEC);

  if (fd < 0 || tcgetattr(fd, &settings) < 0)
    give_up("/dev/ttyS1");
  cfmakeraw(&settings);
  cfsetspeed(&settings, B115200);
  if (tcsetattr(fd, TCSANOW, &settings) < 0)
    give_up("/dev/ttyS1");
  return fd;
}

static void write_fully(int fd, const char *data, size_t bytes) {
  while (bytes > 0) {
    const ssize_t wrote = write(fd, data, bytes);

    if (wrote < 0 && errno != EINTR)
      give_up("write");
    if (wrote > 0) {
      data += wrote;
      bytes -= (size_t)wrote;
    }
  }
}

static void read_fully(int fd, char *data, size_t bytes) {
  while (bytes > 0) {
    const ssize_t got = read(fd, data, bytes);

    if (got == 0 || (got < 0 && errno != EINTR))
      give_up("read");
    if (got > 0) {
      data += got;
      bytes -= (size_t)got;
    }
  }
}

/* The words of the next command; NULL ends them. */
static void read_request(int fd, char *data, char **words) {
  char line[64];
  size_t length = 0, count = 0;
  unsigned long bytes;

  do
    read_fully(fd, line + length, 1);
  while (line[length] != '\n' && ++length < sizeof(line) - 1);
  line[length] = '\0';
  if (sscanf(line, "RUN %lu", &bytes) != 1 || bytes == 0 || bytes > REQUEST_BYTES_MAX)
    give_up("a request that is none");
  read_fully(fd, data, bytes);
  if (data[bytes - 1] != '\0')
    give_up("a request without an end");
  for (char *at = data; at < data + bytes && count < WORDS_MAX; at += strlen(at) + 1)
    words[count++] = at;
  words[count] = NULL;
}

static void run_command(char **words, int output, int errors) {
  const int empty = open("/dev/null", O_RDONLY);

  setsid();
  dup2(empty, 0);
  dup2(output, 1);
  dup2(errors, 2);
  execvp(words[0], words);
  dprintf(2, "%s: %s\n", words[0], strerror(errno));
  _exit(127);
}

/* False once the other end is closed. What is more than fits is read and left out. */
static int take_output(struct output *output) {
  static char rest[65536];
  const size_t room = OUTPUT_BYTES_MAX - output->bytes;
  const ssize_t got = room > 0 ? read(output->fd, output->data + output->bytes, room) : read(output->fd, rest, sizeof(rest));

  if (got > 0 && room > 0)
    output->bytes += (size_t)got;
  return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

/* Reaps whatever ends; the status of `pid` as shells tell it, or -1 while it runs. */
static int reap(pid_t pid) {
  int status, found = -1;
  pid_t ended;

  while ((ended = waitpid(-1, &status, WNOHANG)) > 0)
    if (ended == pid)
      found = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return found;
}

static int collect(pid_t pid, struct output *outputs) {
  struct pollfd polled[] = {{.fd = outputs[0].fd, .events = POLLIN}, {.fd = outputs[1].fd, .events = POLLIN}};
  int status = -1, waited_ms = 0;

  while (status < 0 || ((polled[0].fd >= 0 || polled[1].fd >= 0) && waited_ms < OUTPUT_MS)) {
    const int ready = poll(polled, 2, POLL_MS);

    for (int index = 0; index < 2; index++)
      if (ready > 0 && polled[index].fd >= 0 && polled[index].revents != 0 && !take_output(&outputs[index]))
        polled[index].fd = -1;
    if (status < 0)
      status = reap(pid);
    else
      waited_ms += ready > 0 ? 0 : POLL_MS;
    /* poll(2) does not wait on what is closed. */
    if (polled[0].fd < 0 && polled[1].fd < 0 && status < 0)
      usleep(POLL_MS * 1000);
  }
  return status;
}

static void serve(int line, char *request, char **words, struct output *outputs) {
  int pipes[2][2];
  char answer[96];

  read_request(line, request, words);
  for (int index = 0; index < 2; index++) {
    if (pipe2(pipes[index], O_CLOEXEC) < 0)
      give_up("pipe");
    outputs[index].fd = pipes[index][0];
    outputs[index].bytes = 0;
    fcntl(pipes[index][0], F_SETFL, O_NONBLOCK);
  }
  const pid_t pid = fork();

  if (pid == 0)
    run_command(words, pipes[0][1], pipes[1][1]);
  if (pid < 0)
    give_up("fork");
  close(pipes[0][1]);
  close(pipes[1][1]);
  const int status = collect(pid, outputs);

  close(pipes[0][0]);
  close(pipes[1][0]);
  const int length = sprintf(answer, "DONE %d %zu %zu\n", status, outputs[0].bytes, outputs[1].bytes);

  write_fully(line, answer, (size_t)length);
  for (int index = 0; index < 2; index++)
    write_fully(line, outputs[index].data, outputs[index].bytes);
}

int main(void) {
  static char request[REQUEST_BYTES_MAX];
  static char *words[WORDS_MAX + 1];
  struct output outputs[2];

  mount_all();
  load_modules();
  start_loopback();
  start_card();
  sethostname("guest", 5);
  setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
  setenv("HOME", "/root", 1);
  for (int index = 0; index < 2; index++)
    if ((outputs[index].data = malloc(OUTPUT_BYTES_MAX)) == NULL)
      give_up("malloc");
  const int line = open_line();

  write_fully(line, "READY\n", 6);
  for (;;)
    serve(line, request, words, outputs);
}
