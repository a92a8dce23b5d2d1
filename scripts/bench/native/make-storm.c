// SPDX-License-Identifier: Apache-2.0
/*
 * Does a great deal of one thing as fast as it can, and says in one line of JSON what it did: how many (`made`), in
 * how many seconds, with how many of CPU, and the pids of the processes that did it. Nothing of it stays, and
 * nothing leaves the host.
 *
 *     gcc -O2 -static -o make-storm make-storm.c
 *     make-storm CGROUP processes COUNT SECONDS EXE  starts EXE; ends with COUNT or SECONDS, whichever comes first
 *     make-storm CGROUP files COUNT FOLDER           creates, writes and deletes files, in blocks
 *     make-storm CGROUP files-apart COUNT FOLDER     the same, but each of the three by a process of its own
 *     make-storm CGROUP connections COUNT RATE       TCP on a loopback of its own; RATE 0: as fast as it can
 *
 * It moves itself into CGROUP, a folder with `cgroup.procs`, first: that bounds what it can fork.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NANOSECONDS_PER_SECOND 1000000000ll
#define WORKERS 4
#define BLOCK 1000
#define PORT 4000
#define PATH_BYTES 4096

struct result {
  long made;
  pid_t pids[WORKERS];
};

static int fail(const char *what) {
  fprintf(stderr, "make-storm: %s: %s\n", what, strerror(errno));
  return 1;
}

static long long now_ns(void) {
  struct timespec time;

  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * NANOSECONDS_PER_SECOND + time.tv_nsec;
}

/* Of this process and of those that it waited for. */
static double cpu_seconds(void) {
  const int whose[] = {RUSAGE_SELF, RUSAGE_CHILDREN};
  double seconds = 0;

  for (int index = 0; index < 2; index++) {
    struct rusage usage;

    if (getrusage(whose[index], &usage) != 0)
      continue;
    seconds += (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec);
    seconds += (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
  }
  return seconds;
}

static int enter_cgroup(const char *folder) {
  char path[PATH_BYTES];

  snprintf(path, sizeof(path), "%s/cgroup.procs", folder);
  const int file = open(path, O_WRONLY);
  const int entered = file >= 0 && write(file, "0", 1) == 1;

  if (file >= 0)
    close(file);
  return entered;
}

static pid_t start_process(char *executable) {
  char *arguments[] = {executable, "--exit=0", NULL};
  const pid_t pid = vfork();

  if (pid == 0) {
    execve(executable, arguments, environ);
    _exit(127);
  }
  return pid;
}

/* Children are left to wait for until no more may be started: that is the most that the cgroup allows. */
static long start_processes(long count, long long until_ns, char *executable) {
  long made = 0;

  while (made < count && now_ns() < until_ns) {
    if (start_process(executable) > 0)
      made++;
    else if (errno != EAGAIN || waitpid(-1, NULL, 0) < 0)
      return -1;
    while (waitpid(-1, NULL, WNOHANG) > 0)
      ;
  }
  while (waitpid(-1, NULL, 0) > 0)
    ;
  return made;
}

static int make_processes(long count, double seconds, char *executable, struct result *result) {
  const long long until_ns = now_ns() + (long long)(seconds * 1e9);
  volatile long *made = mmap(NULL, WORKERS * sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

  if (made == MAP_FAILED)
    return fail("mmap");
  for (int worker = 0; worker < WORKERS; worker++) {
    const long share = count / WORKERS + (worker < count % WORKERS ? 1 : 0);

    result->pids[worker] = fork();
    if (result->pids[worker] < 0)
      return fail("fork");
    if (result->pids[worker] == 0) {
      made[worker] = start_processes(share, until_ns, executable);
      _exit(made[worker] < 0);
    }
  }
  for (int worker = 0; worker < WORKERS; worker++) {
    int status;

    if (waitpid(result->pids[worker], &status, 0) < 0 || status != 0)
      return fail("a worker could not start its processes");
    result->made += made[worker];
  }
  return 0;
}

static int create_file(const char *path) {
  return mknod(path, S_IFREG | 0600, 0) == 0;
}

static int write_file(const char *path) {
  const int file = open(path, O_WRONLY | O_CREAT, 0600);
  const int written = file >= 0 && write(file, path, strlen(path)) > 0;

  return file >= 0 && close(file) == 0 && written;
}

static int delete_file(const char *path) {
  return unlink(path) == 0;
}

static int each_file(const char *folder, long from, long to, int (*act)(const char *)) {
  char path[PATH_BYTES];

  for (long index = from; index < to; index++) {
    snprintf(path, sizeof(path), "%s/%ld", folder, index);
    if (!act(path))
      return 0;
  }
  return 1;
}

static int make_files(long count, const char *folder, struct result *result) {
  result->pids[0] = getpid();
  for (long from = 0; from < count; from += BLOCK) {
    const long to = from + BLOCK < count ? from + BLOCK : count;

    if (!each_file(folder, from, to, write_file) || !each_file(folder, from, to, delete_file))
      return fail("a file");
  }
  result->made = count;
  return 0;
}

static int make_files_apart(long count, const char *folder, struct result *result) {
  int (*const acts[])(const char *) = {create_file, write_file, delete_file};

  for (int act = 0; act < 3; act++) {
    int status;

    result->pids[act] = fork();
    if (result->pids[act] == 0)
      _exit(!each_file(folder, 0, count, acts[act]));
    if (result->pids[act] < 0 || waitpid(result->pids[act], &status, 0) < 0 || status != 0)
      return fail("a file");
  }
  result->made = count;
  return 0;
}

static int raise_loopback(void) {
  struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
  const int any = socket(AF_INET, SOCK_DGRAM, 0);
  const int raised = any >= 0 && ioctl(any, SIOCSIFFLAGS, &request) == 0;

  if (any >= 0)
    close(any);
  return raised;
}

static int serve(int listener, long count) {
  char byte;

  for (long index = 0; index < count; index++) {
    const int peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

    if (peer < 0 || read(peer, &byte, 1) != 1 || write(peer, &byte, 1) != 1)
      return 1;
    // The client closes first, so that it is the same at each connection who waits for the last packets.
    if (read(peer, &byte, 1) != 0 || close(peer) != 0)
      return 1;
  }
  return 0;
}

static int make_connections(long count, double rate, struct result *result) {
  const struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons(PORT), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int status;
  char byte = 0;

  // Of its own, because each connection keeps its port for a minute.
  if (unshare(CLONE_NEWNET) != 0 || !raise_loopback())
    return fail("a network of its own");
  const int listener = socket(AF_INET, SOCK_STREAM, 0);

  if (listener < 0 || bind(listener, (const void *)&address, sizeof(address)) != 0 || listen(listener, 128) != 0)
    return fail("listen");
  result->pids[0] = getpid();
  result->pids[1] = fork();
  if (result->pids[1] == 0)
    _exit(serve(listener, count));
  const long long started_ns = now_ns();

  for (long index = 0; index < count; index++) {
    const long long due_ns = rate > 0 ? started_ns + (long long)((double)index * 1e9 / rate) : 0;
    const struct timespec due = {.tv_sec = due_ns / NANOSECONDS_PER_SECOND, .tv_nsec = due_ns % NANOSECONDS_PER_SECOND};

    if (rate > 0)
      clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
    const int client = socket(AF_INET, SOCK_STREAM, 0);

    if (client < 0 || connect(client, (const void *)&address, sizeof(address)) != 0 || write(client, &byte, 1) != 1 ||
        read(client, &byte, 1) != 1 || close(client) != 0)
      return fail("connection");
  }
  if (waitpid(result->pids[1], &status, 0) < 0 || status != 0)
    return fail("the server");
  result->made = count;
  return 0;
}

int main(int count, char **values) {
  const char *what = count >= 5 ? values[2] : "";
  const long total = count >= 5 ? atol(values[3]) : 0;
  struct result result = {0};
  int status = 2;

  if (count >= 5 && !enter_cgroup(values[1]))
    return fail("the cgroup");
  const long long started_ns = now_ns();

  if (count == 6 && strcmp(what, "processes") == 0)
    status = make_processes(total, atof(values[4]), values[5], &result);
  else if (count == 5 && strcmp(what, "files") == 0)
    status = make_files(total, values[4], &result);
  else if (count == 5 && strcmp(what, "files-apart") == 0)
    status = make_files_apart(total, values[4], &result);
  else if (count == 5 && strcmp(what, "connections") == 0)
    status = make_connections(total, atof(values[4]), &result);
  else
    fprintf(stderr, "usage: make-storm CGROUP processes|files|files-apart|connections COUNT ...\n");
  if (status != 0)
    return status;
  const double seconds = (double)(now_ns() - started_ns) / 1e9;

  printf("{\"made\":%ld,\"seconds\":%.3f,\"cpuSeconds\":%.3f,\"pids\":[%d", result.made, seconds, cpu_seconds(),
         result.pids[0]);
  for (int index = 1; index < WORKERS && result.pids[index] > 0; index++)
    printf(",%d", result.pids[index]);
  printf("]}\n");
  return 0;
}
