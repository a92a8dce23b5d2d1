// SPDX-License-Identifier: Apache-2.0
/* Programs that start and end: from files, from memory, from files without a name; signals and credentials. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "activity.h"

/* Ids that belong to nobody. */
#define NOBODY 65534

/* The program and its lure have names that differ in one byte. */
static char *last_digit(char *path) {
  char *digit = strrchr(path, '/') + strlen("/program-");

  while (digit[1] >= '0' && digit[1] <= '9')
    digit++;
  return digit;
}

static long prepare_program(struct worker *worker) {
  char path[PATH_BYTES];
  const long number = worker->number * 2;

  if (worker->options->program[0] == '\0')
    return -EINVAL;
  long result = make_folders(worker);

  if (result == 0) {
    work_path(worker, "program", 10 + number, path);
    result = copy_file(worker->options->program, path);
  }
  if (result == 0 && has(worker, SWAP)) {
    work_path(worker, "program", 11 + number, path);
    result = copy_file("/proc/self/exe", path);
  }
  return result;
}

static void put_arguments(struct worker *worker, long index, const char *list[]) {
  strcpy(worker->memory->arguments[0], PROGRAM_NAME);
  sprintf(worker->memory->arguments[1], "--sequence=%ld", index);
  sprintf(worker->memory->arguments[2], "--exit=%d", PROGRAM_STATUS);
  for (int at = 0; at < 3; at++)
    list[at] = worker->memory->arguments[at];
  list[3] = NULL;
}

/* Starts what `fd` holds (its name is empty then) or what the path names. */
static long run_program(struct worker *worker, long index, int fd, char *swapped, uint16_t lure) {
  const char *list[4];
  int status;

  put_arguments(worker, index, list);
  void *arguments = put_pointers(worker, list);
  /* The end of the same memory, where no text is. */
  void *environment = memset(&worker->memory->pointers[7], 0, sizeof(uint64_t));

  pthread_mutex_lock(&program_writing);
  const pid_t pid = vfork();

  if (pid == 0) {
    if (swapped != NULL)
      swap_begin(worker, swapped, lure, 1);
    if (fd < 0)
      CALL3(worker, SYS_execve, worker->memory->path, arguments, environment);
    else
      CALL5(worker, SYS_execveat, fd, worker->memory->path, arguments, environment, AT_EMPTY_PATH);
    _exit(127);
  }
  pthread_mutex_unlock(&program_writing);
  if (pid < 0)
    return -errno;
  if (swapped != NULL)
    swap_end(worker);
  note(worker, pid);
  const long result = wait_for(pid, &status);

  if (result < 0 || !WIFEXITED(status))
    return result < 0 ? result : -ECHILD;
  if (swapped != NULL && has(worker, SWAP) && WEXITSTATUS(status) == LURE_STATUS) {
    worker->lured++;
    return 0;
  }
  return WEXITSTATUS(status) == PROGRAM_STATUS ? 0 : -ENOEXEC;
}

static long exec_once(struct worker *worker, long index) {
  const long number = 10 + worker->number * 2;
  char *path = worker->memory->path;

  work_path(worker, "program", number, path);
  char *digit = last_digit(path);

  return run_program(worker, index, -1, digit, (uint16_t)(*digit + 1));
}

static void remove_programs(struct worker *worker) {
  char path[PATH_BYTES];

  for (long number = 10; number < 12; number++) {
    work_path(worker, "program", number + worker->number * 2, path);
    unlink(path);
  }
}

static long copy_into(int output, const char *from) {
  char path[64];

  sprintf(path, "/proc/self/fd/%d", output);
  return copy_file(from, path);
}

static void put_name(struct worker *worker, long index) {
  sprintf(worker->memory->other, "activity-%ld%s", index, has(worker, STRANGE) ? "\n\x1b[31m\xff" : "");
}

static long memfd_once(struct worker *worker, long index) {
  put_name(worker, index);
  const long fd = CALL2(worker, SYS_memfd_create, worker->memory->other, 0);

  if (fd >= 0)
    release(worker, (int)fd);
  return fd;
}

/* An empty path: what the descriptor itself is. */
static long exec_memfd_once(struct worker *worker, long index) {
  put_name(worker, index);
  const int fd = (int)CALL2(worker, SYS_memfd_create, worker->memory->other, 0);

  if (fd < 0)
    return fd;
  worker->memory->path[0] = '\0';
  long result = copy_into(fd, worker->options->program);

  if (result == 0)
    result = run_program(worker, index, fd, NULL, 0);
  close(fd);
  return result;
}

/* A copy without a name, open for reading: what is open for writing does not run. */
static long open_deleted(struct worker *worker, long index) {
  work_path(worker, "deleted", index, worker->memory->path);
  const long result = copy_file(worker->options->program, worker->memory->path);

  if (result < 0)
    return result;
  const int fd = open(worker->memory->path, O_RDONLY);
  const int error = errno;

  unlink(worker->memory->path);
  return fd < 0 ? -error : fd;
}

static long exec_deleted_once(struct worker *worker, long index) {
  const int fd = (int)open_deleted(worker, index);

  if (fd < 0)
    return fd;
  worker->memory->path[0] = '\0';
  const long result = run_program(worker, index, fd, NULL, 0);

  close(fd);
  return result;
}

/* The file still has its name, the path that is run does not say it. */
static long exec_descriptor_once(struct worker *worker, long index) {
  work_path(worker, "program", 10 + worker->number * 2, worker->memory->other);
  const int fd = open(worker->memory->other, O_RDONLY);

  if (fd < 0)
    return -errno;
  sprintf(worker->memory->path, "/proc/self/fd/%d", fd);
  const long result = run_program(worker, index, -1, NULL, 0);

  close(fd);
  return result;
}

static long exit_once(struct worker *worker, long index) {
  const int code = worker->options->code >= 0 ? (int)worker->options->code : (int)(index % 256);
  int status;
  const pid_t pid = fork();

  if (pid == 0)
    _exit(code);
  if (pid < 0)
    return -errno;
  note(worker, pid);
  const long result = wait_for(pid, &status);

  return result < 0 ? result : WIFEXITED(status) && WEXITSTATUS(status) == code ? 0 : -ECHILD;
}

static long end_by_signal_once(struct worker *worker, long index) {
  const int signal = worker->options->signal > 0 ? (int)worker->options->signal : SIGKILL;
  int status;
  const pid_t pid = fork();

  (void)index;
  if (pid == 0) {
    kill(getpid(), signal);
    _exit(0);
  }
  if (pid < 0)
    return -errno;
  note(worker, pid);
  const long result = wait_for(pid, &status);

  return result < 0 ? result : WIFSIGNALED(status) && WTERMSIG(status) == signal ? 0 : -ECHILD;
}

static long signal_once(struct worker *worker, long index) {
  (void)index;
  if (worker->options->pid <= 1)
    return -EINVAL;
  return CALL2(worker, SYS_kill, worker->options->pid, worker->options->signal < 0 ? 0 : worker->options->signal);
}

/* In a child, since what is given up does not come back. */
static long in_child(struct worker *worker, long (*step)(struct worker *)) {
  int status;
  const pid_t pid = fork();

  if (pid == 0)
    _exit((int)-step(worker));
  if (pid < 0)
    return -errno;
  note(worker, pid);
  const long result = wait_for(pid, &status);

  return result < 0 ? result : WIFEXITED(status) ? -WEXITSTATUS(status) : -ECHILD;
}

static long set_user(struct worker *worker) {
  return CALL1(worker, SYS_setuid, NOBODY);
}

static long set_users(struct worker *worker) {
  return CALL3(worker, SYS_setresuid, NOBODY, NOBODY, NOBODY);
}

static long drop_capabilities(struct worker *worker) {
  struct __user_cap_header_struct *header = (void *)worker->memory->data;
  struct __user_cap_data_struct *data = (void *)(worker->memory->data + sizeof(*header));

  header->version = _LINUX_CAPABILITY_VERSION_3;
  header->pid = 0;
  memset(data, 0, 2 * sizeof(*data));
  return CALL2(worker, SYS_capset, header, data);
}

static long setuid_once(struct worker *worker, long index) {
  (void)index;
  return in_child(worker, set_user);
}

static long setresuid_once(struct worker *worker, long index) {
  (void)index;
  return in_child(worker, set_users);
}

static long capset_once(struct worker *worker, long index) {
  (void)index;
  return in_child(worker, drop_capabilities);
}

#define FILES (COMPAT | DEEP | STRANGE | THREADS)

const struct behaviour process_behaviours[] = {
    {"exec", "runs --program with arguments of its own", FILES | SWAP, 0, "children", prepare_program, exec_once, remove_programs},
    {"exec-proc-fd", "runs it as /proc/self/fd/N", FILES, 0, "children", prepare_program, exec_descriptor_once, remove_programs},
    {"exec-memfd", "runs it from a memfd", COMPAT | STRANGE | THREADS, 0, "children", NULL, exec_memfd_once, NULL},
    {"exec-deleted", "runs a copy without a name", FILES, 0, "children", make_folders, exec_deleted_once, NULL},
    {"memfd-create", "makes files in memory", COMPAT | STRANGE | THREADS | HOLD, 0, NULL, NULL, memfd_once, NULL},
    {"fork-exit", "has children end with --code, else 0 to 255", THREADS, 0, "children", NULL, exit_once, NULL},
    {"fork-signal", "has children end by --signal, else SIGKILL", THREADS, 0, "children", NULL, end_by_signal_once, NULL},
    {"signal", "sends --signal, else 0, to --pid", COMPAT | THREADS, 0, NULL, NULL, signal_once, NULL},
    {"setuid", "has children become nobody", COMPAT | THREADS, 0, "children", NULL, setuid_once, NULL},
    {"setresuid", "has children become nobody in three ways", COMPAT | THREADS, 0, "children", NULL, setresuid_once, NULL},
    {"capset", "has children give up capabilities", COMPAT | THREADS, 0, "children", NULL, capset_once, NULL},
    {0},
};
