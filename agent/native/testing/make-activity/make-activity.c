// SPDX-License-Identifier: Apache-2.0
/*
 * Does BEHAVIOUR exactly COUNT times by direct system calls, and tells in one line of JSON what it did: `made`
 * tries, `failed` of them, `lured` where the kernel took the argument that --swap put in the place of the first.
 * Exits with 0 when all were made and none failed that should not, with 1 when not, with 2 when it is asked for what
 * it does not know, with 3 when --compat is, on a machine without 32-bit calls. Nothing it does is harmful, and all of it ends
 * with it. `make-activity list` names the behaviours.
 *
 *     gcc -O2 -static -no-pie -pthread -o make-activity *.c
 *     make-activity BEHAVIOUR COUNT [options]
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "activity.h"

static const struct behaviour *const all_behaviours[] = {process_behaviours, file_behaviours, memory_behaviours,
                                                         network_behaviours, name_behaviours, kernel_behaviours};
#define COMPAT_MISSING_STATUS 3
#define GROUPS (sizeof(all_behaviours) / sizeof(all_behaviours[0]))

static const struct {
  const char *name;
  int variant;
} variants[] = {
    {"--compat", COMPAT}, {"--io-uring", RING}, {"--swap", SWAP},   {"--deep", DEEP},         {"--strange", STRANGE},
    {"--hold", HOLD},     {"--tcp", TCP},       {"--split", SPLIT}, {"--relative", RELATIVE},
    {"--socketcall", SOCKETCALL},
};

static const struct behaviour *find_behaviour(const char *name) {
  for (size_t group = 0; group < GROUPS; group++)
    for (const struct behaviour *each = all_behaviours[group]; each->name != NULL; each++)
      if (strcmp(each->name, name) == 0)
        return each;
  return NULL;
}

static int list_behaviours(void) {
  for (size_t group = 0; group < GROUPS; group++) {
    for (const struct behaviour *each = all_behaviours[group]; each->name != NULL; each++) {
      printf("%-26s%s", each->name, each->summary);
      for (size_t index = 0; index < sizeof(variants) / sizeof(variants[0]); index++)
        if (each->variants & variants[index].variant)
          printf(" %s", variants[index].name);
      printf("%s\n", each->variants & THREADS ? " --threads N" : "");
    }
  }
  return 0;
}

static int refuse(const char *what, const char *value) {
  fprintf(stderr, "make-activity: %s %s; see `make-activity list`\n", value, what);
  return 2;
}

static int read_number(const char *text, long lowest, long highest, long *out) {
  char *end;

  *out = strtol(text, &end, 10);
  return *text != '\0' && *end == '\0' && *out >= lowest && *out <= highest;
}

static int read_options(int count, char **values, const struct behaviour *behaviour, struct options *options) {
  const struct {
    const char *name;
    long *out, lowest, highest;
  } numbers[] = {
      {"--threads", &options->threads, 1, THREADS_MAX}, {"--port", &options->port, 1, 65535},
      {"--pid", &options->pid, 2, 1 << 22},             {"--signal", &options->signal, 0, 64},
      {"--code", &options->code, 0, 255},               {"--bytes", &options->bytes, 1, 1 << 30},
  };
  const struct {
    const char *name;
    char **out;
  } texts[] = {
      {"--folder", &options->folder}, {"--program", &options->program}, {"--path", &options->path},
      {"--address", &options->address}, {"--name", &options->name},
  };

  for (int index = 0; index < count; index++) {
    const char *name = values[index];
    const char *value = index + 1 < count ? values[index + 1] : "";
    int known = 0;

    for (size_t at = 0; at < sizeof(variants) / sizeof(variants[0]); at++) {
      if (strcmp(name, variants[at].name) != 0)
        continue;
      if (!(behaviour->variants & variants[at].variant))
        return refuse("does not go with this behaviour", name);
      options->variants |= variants[at].variant;
      known = 1;
    }
    if (known)
      continue;
    /* The others have a value. */
    index++;
    for (size_t at = 0; at < sizeof(numbers) / sizeof(numbers[0]); at++) {
      if (strcmp(name, numbers[at].name) != 0)
        continue;
      if (!read_number(value, numbers[at].lowest, numbers[at].highest, numbers[at].out))
        return refuse("is out of range", value);
      known = 1;
    }
    for (size_t at = 0; at < sizeof(texts) / sizeof(texts[0]); at++) {
      if (strcmp(name, texts[at].name) != 0)
        continue;
      if (*value == '\0' || strlen(value) >= PATH_BYTES)
        return refuse("needs a text", name);
      *texts[at].out = low_copy(value);
      known = 1;
    }
    if (!known)
      return refuse("is no option", name);
  }
  if (options->threads > 1 && !(behaviour->variants & THREADS))
    return refuse("does not go with this behaviour", "--threads");
  if (options->variants & SOCKETCALL)
    options->variants |= COMPAT;
  if ((options->variants & COMPAT) && (options->variants & RING))
    return refuse("does not go with --io-uring", "--compat");
  return 0;
}

static void *work(void *argument) {
  struct worker *worker = argument;
  const struct options *options = worker->options;
  long result = 0;

  if (has(worker, RING))
    result = ring_open(&worker->ring);
  if (result >= 0 && has(worker, SWAP))
    result = start_swapper(worker);
  if (result >= 0 && worker->behaviour->prepare != NULL)
    result = worker->behaviour->prepare(worker);
  if (result < 0)
    worker->error = (int)-result;
  for (long index = worker->number; result >= 0 && index < options->count; index += options->threads) {
    const long once = worker->behaviour->once(worker, index);

    worker->made++;
    if (once >= 0)
      continue;
    worker->failed++;
    if (worker->error == 0)
      worker->error = (int)-once;
  }
  /* Children and mounts end with the thread that made them: after the report, and after what --hold waits for. */
  pthread_barrier_wait(worker->done);
  pthread_barrier_wait(worker->ended);
  if (worker->behaviour->finish != NULL)
    worker->behaviour->finish(worker);
  return NULL;
}

static int report(const struct worker *workers, const struct options *options, const struct behaviour *behaviour) {
  long made = 0, failed = 0, lured = 0;
  int error = 0;

  for (long index = 0; index < options->threads; index++) {
    made += workers[index].made;
    failed += workers[index].failed;
    lured += workers[index].lured;
    if (error == 0)
      error = workers[index].error;
  }
  printf("{\"behaviour\":\"%s\",\"made\":%ld,\"failed\":%ld,\"pid\":%d", behaviour->name, made, failed, getpid());
  if (error != 0)
    printf(",\"error\":\"%s\"", strerrorname_np(error));
  if (options->variants & SWAP)
    printf(",\"lured\":%ld", lured);
  if (workers[0].lure_port != 0)
    printf(",\"lurePort\":%d", workers[0].lure_port);
  if (workers[0].port != 0)
    printf(",\"port\":%d", workers[0].port);
  if (behaviour->notes != NULL) {
    const char *comma = "";

    printf(",\"%s\":[", behaviour->notes);
    for (long index = 0; index < options->threads; index++)
      for (long at = 0; at < workers[index].notes_count; at++, comma = ",")
        printf("%s%ld", comma, workers[index].notes[at]);
    printf("]");
  }
  printf("}\n");
  fflush(stdout);
  return made == options->count && (failed == 0 || behaviour->may_fail) && (error == 0 || failed > 0) ? 0 : 1;
}

/* In a child, since a kernel without 32-bit calls ends whoever makes one. */
static int compat_works(void) {
  int status = 0;
  const pid_t pid = fork();

  if (pid == 0) {
    struct options options = {.variants = COMPAT};
    struct worker worker = {.options = &options};

    /* close(2) of no descriptor. */
    _exit(CALL1(&worker, SYS_close, -1) == -EBADF ? 0 : 1);
  }
  return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static int start_workers(struct worker *workers, const struct options *options, const struct behaviour *behaviour,
                         pthread_barrier_t *barriers) {
  for (int index = 0; index < 2; index++)
    pthread_barrier_init(&barriers[index], NULL, (unsigned)options->threads + 1);
  for (long index = 0; index < options->threads; index++) {
    struct worker *worker = &workers[index];

    worker->options = options;
    worker->behaviour = behaviour;
    worker->number = index;
    worker->done = &barriers[0];
    worker->ended = &barriers[1];
    worker->memory = low_memory(sizeof(*worker->memory));
    worker->notes = calloc((size_t)options->count, sizeof(long));
    if (worker->memory == NULL || worker->notes == NULL || pthread_create(&worker->thread, NULL, work, worker) != 0) {
      fprintf(stderr, "make-activity: no memory or threads for --threads %ld\n", options->threads);
      return 1;
    }
  }
  pthread_barrier_wait(&barriers[0]);
  return 0;
}

int main(int count, char **values) {
  static struct worker workers[THREADS_MAX];
  pthread_barrier_t barriers[2];
  struct options options = {.threads = 1, .signal = -1, .code = -1, .bytes = 1000};
  struct rlimit files;
  char end;

  if (strcmp(values[0], PROGRAM_NAME) == 0)
    return LURE_STATUS;
  if (count == 2 && strcmp(values[1], "list") == 0)
    return list_behaviours();
  if (count < 3)
    return refuse("BEHAVIOUR COUNT [options]", "usage: make-activity");
  const struct behaviour *behaviour = find_behaviour(values[1]);

  if (behaviour == NULL)
    return refuse("is no behaviour", values[1]);
  if (!read_number(values[2], 1, COUNT_MAX, &options.count))
    return refuse("is no count", values[2]);
  options.folder = low_copy(".");
  options.program = low_copy("");
  options.path = low_copy("");
  options.address = low_copy("127.0.0.1");
  options.name = low_copy("name");
  const int refused = read_options(count - 3, values + 3, behaviour, &options);

  if (refused)
    return refused;
  if ((options.variants & COMPAT) && !compat_works()) {
    fprintf(stderr, "make-activity: this machine has no 32-bit system calls for --compat\n");
    return COMPAT_MISSING_STATUS;
  }
  signal(SIGPIPE, SIG_IGN);
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  if (start_workers(workers, &options, behaviour, barriers))
    return 1;
  const int status = report(workers, &options, behaviour);

  /* Until whoever started it has looked. */
  while ((options.variants & HOLD) && read(STDIN_FILENO, &end, 1) > 0)
    ;
  pthread_barrier_wait(&barriers[1]);
  for (long index = 0; index < options.threads; index++)
    pthread_join(workers[index].thread, NULL);
  return status;
}
