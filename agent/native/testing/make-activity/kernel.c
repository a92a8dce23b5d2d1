// SPDX-License-Identifier: Apache-2.0
/* What is asked of the kernel itself: modules, eBPF, namespaces, mounts, devices, settings. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "activity.h"

static const char nonsense[] = "this is no module";

static long prepare_module(struct worker *worker) {
  work_path(worker, "nonsense", worker->number, worker->memory->path);
  const int fd = open(worker->memory->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

  if (fd < 0 || write(fd, nonsense, sizeof(nonsense)) < 0)
    return -errno;
  close(fd);
  /* The kernel loads nothing that is open for writing. */
  worker->fd = open(worker->memory->path, O_RDONLY | O_CLOEXEC);
  return worker->fd < 0 ? -errno : 0;
}

static void remove_module(struct worker *worker) {
  work_path(worker, "nonsense", worker->number, worker->memory->path);
  unlink(worker->memory->path);
}

static long load_file_once(struct worker *worker, long index) {
  (void)index;
  worker->memory->data[0] = '\0';
  return CALL3(worker, SYS_finit_module, worker->fd, worker->memory->data, 0);
}

static long load_once(struct worker *worker, long index) {
  (void)index;
  memcpy(worker->memory->data, nonsense, sizeof(nonsense));
  worker->memory->other[0] = '\0';
  return CALL3(worker, SYS_init_module, worker->memory->data, sizeof(nonsense), worker->memory->other);
}

static long unload_once(struct worker *worker, long index) {
  sprintf(worker->memory->other, "no_such_module_%ld", index);
  return CALL2(worker, SYS_delete_module, worker->memory->other, O_NONBLOCK);
}

/* A module that is one: the file --path, whose name is --name. */
static long cycle_once(struct worker *worker, long index) {
  (void)index;
  const int fd = open(worker->options->path, O_RDONLY | O_CLOEXEC);

  if (fd < 0)
    return -errno;
  worker->memory->data[0] = '\0';
  const long result = CALL3(worker, SYS_finit_module, fd, worker->memory->data, 0);

  close(fd);
  if (result < 0)
    return result;
  strcpy(worker->memory->other, worker->options->name);
  return CALL2(worker, SYS_delete_module, worker->memory->other, O_NONBLOCK);
}

/* `return 0`. Gone with its descriptor. */
static long load_program(struct worker *worker, unsigned type, long index) {
  struct bpf_insn *code = (struct bpf_insn *)worker->memory->data;
  union bpf_attr *attributes = &worker->memory->bpf;

  memset(attributes, 0, sizeof(*attributes));
  code[0] = (struct bpf_insn){.code = BPF_ALU64 | BPF_MOV | BPF_K};
  code[1] = (struct bpf_insn){.code = BPF_JMP | BPF_EXIT};
  attributes->prog_type = type;
  attributes->insn_cnt = 2;
  attributes->insns = (uint64_t)code;
  strcpy(worker->memory->other, "GPL");
  attributes->license = (uint64_t)worker->memory->other;
  snprintf(attributes->prog_name, sizeof(attributes->prog_name), "activity_%ld", index % 100000);
  return CALL3(worker, SYS_bpf, BPF_PROG_LOAD, attributes, sizeof(*attributes));
}

static long program_once(struct worker *worker, long index) {
  const long fd = load_program(worker, BPF_PROG_TYPE_SOCKET_FILTER, index);

  if (fd >= 0)
    release(worker, (int)fd);
  return fd;
}

static long prepare_attach(struct worker *worker) {
  worker->fd = (int)load_program(worker, BPF_PROG_TYPE_RAW_TRACEPOINT, worker->number);
  return worker->fd;
}

static long attach_once(struct worker *worker, long index) {
  union bpf_attr *attributes = &worker->memory->bpf;

  (void)index;
  memset(attributes, 0, sizeof(*attributes));
  strcpy(worker->memory->other, "sched_process_exec");
  attributes->raw_tracepoint.name = (uint64_t)worker->memory->other;
  attributes->raw_tracepoint.prog_fd = (uint32_t)worker->fd;
  const long fd = CALL3(worker, SYS_bpf, BPF_RAW_TRACEPOINT_OPEN, attributes, sizeof(*attributes));

  if (fd >= 0)
    release(worker, (int)fd);
  return fd;
}

static long device_once(struct worker *worker, long index) {
  (void)index;
  strcpy(worker->memory->path, worker->options->path);
  const long fd = CALL4(worker, SYS_openat, AT_FDCWD, worker->memory->path, O_RDONLY | O_CLOEXEC, 0);

  if (fd >= 0)
    release(worker, (int)fd);
  return fd;
}

static long unshare_once(struct worker *worker, long index) {
  (void)index;
  return CALL1(worker, SYS_unshare, CLONE_NEWUTS);
}

static long prepare_setns(struct worker *worker) {
  worker->fd = open("/proc/thread-self/ns/uts", O_RDONLY | O_CLOEXEC);
  return worker->fd < 0 ? -errno : 0;
}

/* Into the namespace that it is in already. */
static long setns_once(struct worker *worker, long index) {
  (void)index;
  return CALL2(worker, SYS_setns, worker->fd, CLONE_NEWUTS);
}

/* Mounts in a namespace of its own, which ends with it: nobody else sees them. */
static long prepare_mount(struct worker *worker) {
  work_path(worker, "mount", worker->number, worker->memory->path);
  if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
    return -errno;
  return mkdir(worker->memory->path, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

static void end_mount(struct worker *worker) {
  work_path(worker, "mount", worker->number, worker->memory->path);
  while (umount2(worker->memory->path, MNT_DETACH) == 0)
    ;
  rmdir(worker->memory->path);
}

static long mount_quietly(struct worker *worker) {
  return mount("activity", worker->memory->path, "tmpfs", 0, "size=4k") < 0 ? -errno : 0;
}

static long mount_once(struct worker *worker, long index) {
  struct memory *memory = worker->memory;

  (void)index;
  strcpy(memory->arguments[0], "activity");
  strcpy(memory->arguments[1], "tmpfs");
  strcpy(memory->arguments[2], "size=4k");
  const long result = CALL5(worker, SYS_mount, memory->arguments[0], memory->path, memory->arguments[1], 0, memory->arguments[2]);

  /* Taken away at once, since thousands on one place make the next one slow. */
  if (result >= 0 && !has(worker, HOLD))
    umount2(memory->path, MNT_DETACH);
  return result;
}

static long unmount_once(struct worker *worker, long index) {
  (void)index;
  const long result = mount_quietly(worker);

  return result < 0 ? result : CALL2(worker, SYS_umount2, worker->memory->path, 0);
}

/* What the setting says already: it is read in the beginning. */
static long prepare_setting(struct worker *worker) {
  const int fd = open(worker->options->path, O_RDONLY | O_CLOEXEC);
  const ssize_t bytes = fd < 0 ? -1 : read(fd, worker->memory->data, 256);

  if (bytes <= 0)
    return fd < 0 || bytes < 0 ? -errno : -ENODATA;
  worker->memory->word = bytes;
  close(fd);
  return 0;
}

static long setting_once(struct worker *worker, long index) {
  (void)index;
  strcpy(worker->memory->path, worker->options->path);
  const long fd = CALL4(worker, SYS_openat, AT_FDCWD, worker->memory->path, O_WRONLY | O_CLOEXEC, 0);

  if (fd < 0)
    return fd;
  const long result = CALL3(worker, SYS_write, fd, worker->memory->data, worker->memory->word);

  close((int)fd);
  return result;
}

#define PLAIN (COMPAT | THREADS)

const struct behaviour kernel_behaviours[] = {
    {"finit-module", "loads nonsense from a file as a module", PLAIN, 1, NULL, prepare_module, load_file_once, remove_module},
    {"init-module", "loads nonsense from memory", PLAIN, 1, NULL, NULL, load_once, NULL},
    {"delete-module", "unloads modules that are not there", PLAIN, 1, NULL, NULL, unload_once, NULL},
    {"module-cycle", "loads the module --path, and unloads it by --name", COMPAT, 0, NULL, NULL, cycle_once, NULL},
    {"bpf-program", "loads eBPF programs that do nothing", PLAIN | HOLD, 0, NULL, NULL, program_once, NULL},
    {"bpf-attach", "attaches one to sched_process_exec", PLAIN | HOLD, 0, NULL, prepare_attach, attach_once, NULL},
    {"open-device", "opens the block device --path for reading", PLAIN | RING | HOLD, 0, NULL, NULL, device_once, NULL},
    {"unshare", "takes UTS namespaces of its own", PLAIN, 0, NULL, NULL, unshare_once, NULL},
    {"setns", "enters its own UTS namespace", PLAIN, 0, NULL, prepare_setns, setns_once, NULL},
    {"mount", "mounts a tmpfs in a namespace of its own, and takes it away", PLAIN | HOLD | STRANGE, 0, NULL, prepare_mount, mount_once, end_mount},
    {"umount", "mounts a tmpfs in a namespace of its own, and takes it away by the calls that are told", PLAIN | STRANGE, 0, NULL, prepare_mount, unmount_once, end_mount},
    {"sysctl-write", "writes the setting --path with what it says", PLAIN | RING, 0, NULL, prepare_setting, setting_once, NULL},
    {0},
};
