// SPDX-License-Identifier: Apache-2.0
/* Memory of others, of children made for it, and memory that becomes code. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "activity.h"

/* At the same address in every child. */
static volatile long target_word = 0x1234;

/* A child that does nothing, and ends with the thread that made it. */
static long start_child(struct worker *worker) {
  worker->child = fork();
  if (worker->child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;)
      pause();
  }
  if (worker->child < 0)
    return -errno;
  note(worker, worker->child);
  return 0;
}

static void end_child(struct worker *worker) {
  int status;

  if (worker->child <= 0)
    return;
  kill(worker->child, SIGKILL);
  wait_for(worker->child, &status);
}

static long trace(struct worker *worker, long request, const void *address, const void *data) {
  return CALL4(worker, SYS_ptrace, request, worker->child, address, data);
}

static long wait_until_stopped(struct worker *worker) {
  int status;
  pid_t waited;

  do
    waited = waitpid(worker->child, &status, __WALL);
  while (waited < 0 && errno == EINTR);
  return waited < 0 ? -errno : WIFSTOPPED(status) ? 0 : -ECHILD;
}

static long attach_once(struct worker *worker, long index) {
  (void)index;
  const long result = trace(worker, PTRACE_ATTACH, NULL, NULL);

  if (result < 0)
    return result;
  const long stopped = wait_until_stopped(worker);

  ptrace(PTRACE_DETACH, worker->child, NULL, NULL);
  return stopped;
}

/* Only what is stopped can be let go. */
static long seize_once(struct worker *worker, long index) {
  (void)index;
  const long result = trace(worker, PTRACE_SEIZE, NULL, NULL);

  if (result < 0)
    return result;
  ptrace(PTRACE_INTERRUPT, worker->child, NULL, NULL);
  const long stopped = wait_until_stopped(worker);

  ptrace(PTRACE_DETACH, worker->child, NULL, NULL);
  return stopped;
}

static long prepare_traced(struct worker *worker) {
  const long result = start_child(worker);

  if (result < 0)
    return result;
  if (ptrace(PTRACE_SEIZE, worker->child, NULL, NULL) < 0 || ptrace(PTRACE_INTERRUPT, worker->child, NULL, NULL) < 0)
    return -errno;
  return wait_until_stopped(worker);
}

static long peek_once(struct worker *worker, long index) {
  (void)index;
  worker->memory->word = 0;
  const long result = trace(worker, PTRACE_PEEKDATA, (const void *)&target_word, &worker->memory->word);

  return result < 0 ? result : worker->memory->word == 0x1234 ? 0 : -EIO;
}

static long poke_once(struct worker *worker, long index) {
  return trace(worker, PTRACE_POKEDATA, (const void *)&target_word, (const void *)(index + 1));
}

static long copy_word(struct worker *worker, long number) {
  void *local = put_vector(worker, 0, &worker->memory->word, sizeof(long));
  void *remote = put_vector(worker, 1, (const void *)&target_word, sizeof(long));
  const long copied = CALL6(worker, number, worker->child, local, 1, remote, 1, 0);

  return copied < 0 ? copied : copied == sizeof(long) ? 0 : -EIO;
}

static long read_once(struct worker *worker, long index) {
  (void)index;
  worker->memory->word = 0;
  const long result = copy_word(worker, SYS_process_vm_readv);

  return result < 0 ? result : worker->memory->word == 0x1234 ? 0 : -EIO;
}

static long write_once(struct worker *worker, long index) {
  worker->memory->word = index;
  return copy_word(worker, SYS_process_vm_writev);
}

/* With --relative from the child's folder in /proc, with --swap by names that lead to its memory and to its name. */
static long prepare_opened(struct worker *worker) {
  char path[PATH_BYTES], target[64];
  const long result = start_child(worker);

  if (result < 0)
    return result;
  worker->fd = AT_FDCWD;
  sprintf(target, "/proc/%d", worker->child);
  if (has(worker, RELATIVE) && (worker->fd = open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
    return -errno;
  for (int lure = 0; has(worker, SWAP) && lure < 2; lure++) {
    work_path(worker, lure ? "other" : "Other", worker->number, path);
    sprintf(target, "/proc/%d/%s", worker->child, lure ? "comm" : "mem");
    if (symlink(target, path) < 0)
      return -errno;
  }
  return 0;
}

static void end_opened(struct worker *worker) {
  char path[PATH_BYTES];

  for (int lure = 0; has(worker, SWAP) && lure < 2; lure++) {
    work_path(worker, lure ? "other" : "Other", worker->number, path);
    unlink(path);
  }
  end_child(worker);
}

static long open_memory(struct worker *worker, int flags) {
  char *path = worker->memory->path, taken[64], self[64];

  if (has(worker, SWAP))
    work_path(worker, "Other", worker->number, path);
  else if (has(worker, RELATIVE))
    strcpy(path, "mem");
  else
    sprintf(path, "/proc/%d/mem", worker->child);
  char *swapped = has(worker, SWAP) ? strrchr(path, '/') + 1 : path;

  swap_begin(worker, swapped, 'o', 1);
  const long fd = CALL4(worker, SYS_openat, worker->fd, path, flags | O_CLOEXEC, 0);

  swap_end(worker);
  if (fd < 0)
    return fd;
  sprintf(self, "/proc/self/fd/%ld", fd);
  const ssize_t length = readlink(self, taken, sizeof(taken) - 1);

  taken[length < 0 ? 0 : length] = '\0';
  release(worker, (int)fd);
  if (strstr(taken, "/comm") != NULL)
    worker->lured++;
  return strstr(taken, "/comm") != NULL || strstr(taken, "/mem") != NULL ? 0 : -EIO;
}

static long open_for_read_once(struct worker *worker, long index) {
  (void)index;
  return open_memory(worker, O_RDONLY);
}

static long open_for_write_once(struct worker *worker, long index) {
  (void)index;
  return open_memory(worker, O_RDWR);
}

static long map_once(struct worker *worker, long index) {
  (void)index;
  const int protection = PROT_READ | PROT_WRITE | PROT_EXEC;
  const long at = CALL6(worker, SYS_mmap, 0, 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

  if (at < 0)
    return at;
  munmap((void *)at, 4096);
  return 0;
}

static long protect_once(struct worker *worker, long index) {
  char *memory = low_memory(4096);

  if (memory == NULL)
    return -ENOMEM;
  /* ret; nobody calls it. */
  memory[index % 4096] = (char)0xc3;
  const long result = CALL3(worker, SYS_mprotect, memory, 4096, PROT_READ | PROT_EXEC);

  munmap(memory, 4096);
  return result;
}

/* As dlopen(3) maps the code of a library; each time a file of its own. */
static long library_once(struct worker *worker, long index) {
  work_path(worker, "library", index, worker->memory->path);
  long result = copy_file(worker->options->program, worker->memory->path);

  if (result < 0)
    return result;
  const int fd = open(worker->memory->path, O_RDONLY | O_CLOEXEC);

  if (fd < 0)
    return -errno;
  result = CALL6(worker, SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_32BIT, fd, 0);
  close(fd);
  if (result < 0)
    return result;
  if (!has(worker, HOLD))
    munmap((void *)result, 4096);
  return 0;
}

#define PLAIN (COMPAT | THREADS)

const struct behaviour memory_behaviours[] = {
    {"ptrace-attach", "attaches to a child", PLAIN, 0, "children", start_child, attach_once, end_child},
    {"ptrace-seize", "seizes a child", PLAIN, 0, "children", start_child, seize_once, end_child},
    {"ptrace-peek", "reads a word of a child that it seized", PLAIN, 0, "children", prepare_traced, peek_once, end_child},
    {"ptrace-poke", "writes a word of a child that it seized", PLAIN, 0, "children", prepare_traced, poke_once, end_child},
    {"vm-read", "process_vm_readv(2) of a child", PLAIN, 0, "children", start_child, read_once, end_child},
    {"vm-write", "process_vm_writev(2) of a child", PLAIN, 0, "children", start_child, write_once, end_child},
    {"mem-open-read", "opens a child's /proc/PID/mem", PLAIN | RING | SWAP | HOLD | RELATIVE, 0, "children", prepare_opened, open_for_read_once, end_opened},
    {"mem-open-write", "opens it for writing", PLAIN | RING | SWAP | HOLD | RELATIVE, 0, "children", prepare_opened, open_for_write_once, end_opened},
    {"map-writable-executable", "maps memory to write and run", PLAIN, 0, NULL, NULL, map_once, NULL},
    {"protect-executable", "makes memory that was written runnable", PLAIN, 0, NULL, NULL, protect_once, NULL},
    {"map-library", "maps copies of --program as libraries", PLAIN | DEEP | STRANGE | HOLD, 0, NULL, make_folders, library_once, NULL},
    {0},
};
