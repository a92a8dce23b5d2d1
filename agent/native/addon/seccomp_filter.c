// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "seccomp_filter.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The same number on every architecture; older headers lack them. */
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_io_uring_setup
#define SYS_io_uring_setup 425
#endif
#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif
#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif

static const uint32_t refused_calls[] = {
    /* New programs and processes; clone is looked at below, because threads are allowed. */
    SYS_execve, SYS_execveat, SYS_fork, SYS_vfork,
    /* New sockets. io_uring could make them as well. */
    SYS_socket, SYS_socketpair, SYS_connect, SYS_bind, SYS_listen, SYS_accept, SYS_accept4, SYS_io_uring_setup,
    /* Other processes. */
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_pidfd_getfd, SYS_process_madvise, SYS_kill,
    SYS_tkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo, SYS_pidfd_send_signal,
    /* The kernel and the machine. */
    SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_keyctl, SYS_add_key, SYS_request_key, SYS_init_module,
    SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot,
    SYS_unshare, SYS_setns, SYS_open_by_handle_at,
};

/*
 * For a process that is handed open descriptors and needs no path any more. Asking (stat, readlink, access) stays
 * allowed: the C library's fstat is a stat by an empty path. What changes a file through a descriptor is refused
 * as well, since one opened for reading is enough for its owner.
 */
static const uint32_t refused_path_calls[] = {
    SYS_open, SYS_openat, SYS_openat2, SYS_creat, SYS_name_to_handle_at, SYS_memfd_create,
    SYS_truncate, SYS_rename, SYS_renameat, SYS_renameat2, SYS_link, SYS_linkat, SYS_symlink, SYS_symlinkat,
    SYS_unlink, SYS_unlinkat, SYS_mkdir, SYS_mkdirat, SYS_rmdir, SYS_mknod, SYS_mknodat,
    SYS_chmod, SYS_fchmod, SYS_fchmodat, SYS_fchmodat2, SYS_chown, SYS_fchown, SYS_lchown, SYS_fchownat,
    SYS_utime, SYS_utimes, SYS_futimesat, SYS_utimensat,
    SYS_setxattr, SYS_lsetxattr, SYS_fsetxattr, SYS_removexattr, SYS_lremovexattr, SYS_fremovexattr,
    SYS_inotify_add_watch, SYS_fanotify_mark,
};

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define ERROR_RESULT(error) (SECCOMP_RET_ERRNO | ((error) & SECCOMP_RET_DATA))
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RETURN(action) BPF_STMT(BPF_RET | BPF_K, (action))
/* The other calling convention of x86-64 numbers its calls from here on. */
#define X32_CALLS 0x40000000u

static unsigned short refuse_calls(struct sock_filter *filter, unsigned short count, const uint32_t *calls,
                                   size_t calls_count) {
  for (size_t index = 0; index < calls_count; index++) {
    filter[count++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[index], 0, 1);
    filter[count++] = (struct sock_filter)RETURN(ERROR_RESULT(EPERM));
  }
  return count;
}

int install_seccomp_filter(bool refuse_paths) {
  struct sock_filter filter[24 + 2 * (COUNT_OF(refused_calls) + COUNT_OF(refused_path_calls))];
  unsigned short count = 0;
  const struct sock_filter head[] = {
      LOAD(arch),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
      RETURN(SECCOMP_RET_KILL_PROCESS),
      LOAD(nr),
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_CALLS, 0, 1),
      RETURN(ERROR_RESULT(EPERM)),
      /* clone3 hides its flags behind a pointer: the C library takes ENOSYS as the word to use clone. */
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1),
      RETURN(ERROR_RESULT(ENOSYS)),
  };
  const struct sock_filter tail[] = {
      /* The C library signals its own threads, for example to change the user on all of them. */
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_tgkill, 0, 4),
      LOAD(args[0]),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)getpid(), 1, 0),
      RETURN(ERROR_RESULT(EPERM)),
      RETURN(SECCOMP_RET_ALLOW),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 3),
      LOAD(args[0]),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 1, 0),
      RETURN(ERROR_RESULT(EPERM)),
      RETURN(SECCOMP_RET_ALLOW),
  };

  for (size_t index = 0; index < COUNT_OF(head); index++)
    filter[count++] = head[index];
  count = refuse_calls(filter, count, refused_calls, COUNT_OF(refused_calls));
  if (refuse_paths)
    count = refuse_calls(filter, count, refused_path_calls, COUNT_OF(refused_path_calls));
  for (size_t index = 0; index < COUNT_OF(tail); index++)
    filter[count++] = tail[index];

  struct sock_fprog program = {.len = count, .filter = filter};
  const long result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);

  if (result < 0)
    return errno;
  /* A positive result is the thread that would not follow. */
  return result == 0 ? 0 : EBUSY;
}
