// SPDX-License-Identifier: Apache-2.0
/*
 * Starts EXE again and again, COUNT times, RATE times a second (0: as fast as it can), waits for each, and says
 * how it went in one line of JSON. Every process gets --sequence=NUMBER, --time=MILLISECONDS (wall clock just before the
 * start) and, last, --exit=DIGIT.
 *
 *     gcc -O2 -o generate-exec generate-exec.c
 *     generate-exec COUNT RATE EXE
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NANOSECONDS_PER_SECOND 1000000000ll

static long long now_ns(void) {
  struct timespec time;

  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * NANOSECONDS_PER_SECOND + time.tv_nsec;
}

static void sleep_until(long long time_ns) {
  const struct timespec time = {.tv_sec = time_ns / NANOSECONDS_PER_SECOND, .tv_nsec = time_ns % NANOSECONDS_PER_SECOND};

  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
}

int main(int count, char **values) {
  if (count != 4) {
    fprintf(stderr, "usage: generate-exec COUNT RATE EXE\n");
    return 2;
  }
  const long total = atol(values[1]);
  const double rate = atof(values[2]);
  const long long started_ns = now_ns();
  char sequence[40], time_text[40], status[16];
  char *arguments[] = {values[3], sequence, time_text, status, NULL};
  struct timespec wall;
  long failed = 0;

  for (long index = 0; index < total; index++) {
    if (rate > 0)
      sleep_until(started_ns + (long long)((double)index * 1e9 / rate));
    snprintf(sequence, sizeof(sequence), "--sequence=%08ld", index);
    snprintf(status, sizeof(status), "--exit=%ld", index % 7);
    clock_gettime(CLOCK_REALTIME, &wall);
    snprintf(time_text, sizeof(time_text), "--time=%lld.%03ld", wall.tv_sec * 1000ll + wall.tv_nsec / 1000000, wall.tv_nsec / 1000 % 1000);
    const pid_t pid = vfork();

    if (pid == 0) {
      execve(values[3], arguments, environ);
      _exit(127);
    }
    int wait_status;

    if (pid < 0 || waitpid(pid, &wait_status, 0) < 0 || WEXITSTATUS(wait_status) != index % 7)
      failed++;
  }
  const double seconds = (double)(now_ns() - started_ns) / 1e9;

  printf("{\"made\":%ld,\"failed\":%ld,\"seconds\":%.3f,\"rate\":%.0f}\n", total, failed, seconds, (double)total / seconds);
  return failed == 0 ? 0 : 1;
}
