// SPDX-License-Identifier: Apache-2.0
/*
 * A process that lingers, whose child of its own session writes one file and lives a few milliseconds: what the
 * detect bench measures from. Content comes from standard input, so that it stands in no argument.
 *
 *     write-and-linger FILE          becomes a session, runs itself as the writer, then waits (at most 60 s)
 *     write-and-linger FILE --write  writes standard input to FILE, closes it and ends
 *
 * The parent prints one line of JSON: pid, the writer's pid, when the file was closed (CLOCK_REALTIME, ms) and
 * how long the writer lived (ms).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now_ms(clockid_t clock) {
  struct timespec time;

  clock_gettime(clock, &time);
  return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

static int write_file(const char *path) {
  char content[4096];
  const ssize_t length = read(STDIN_FILENO, content, sizeof(content));
  const int file = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);

  if (length <= 0 || file < 0 || write(file, content, (size_t)length) != length || close(file) != 0)
    return 1;
  const double closed_ms = now_ms(CLOCK_REALTIME);

  return write(STDOUT_FILENO, &closed_ms, sizeof(closed_ms)) == sizeof(closed_ms) ? 0 : 1;
}

int main(int count, char **values) {
  if (count == 3 && strcmp(values[2], "--write") == 0)
    return write_file(values[1]);
  if (count != 2) {
    fprintf(stderr, "usage: write-and-linger FILE\n");
    return 2;
  }
  int result[2];

  setsid();
  if (pipe(result) != 0)
    return 1;
  const double started_ms = now_ms(CLOCK_MONOTONIC);
  const pid_t writer = fork();

  if (writer == 0) {
    dup2(result[1], STDOUT_FILENO);
    close(result[0]);
    close(result[1]);
    execl("/proc/self/exe", values[0], values[1], "--write", (char *)NULL);
    _exit(127);
  }
  double closed_ms = 0;
  int status = 1;

  close(result[1]);
  if (writer < 0 || read(result[0], &closed_ms, sizeof(closed_ms)) != sizeof(closed_ms) ||
      waitpid(writer, &status, 0) < 0 || status != 0)
    return 1;
  printf("{\"pid\":%d,\"writerPid\":%d,\"closedMs\":%.3f,\"writerLivedMs\":%.3f}\n", getpid(), writer, closed_ms,
         now_ms(CLOCK_MONOTONIC) - started_ms);
  fflush(stdout);
  sleep(60);
  return 0;
}
