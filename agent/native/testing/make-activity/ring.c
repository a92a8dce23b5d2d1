// SPDX-License-Identifier: Apache-2.0
/* A raw io_uring (io_uring_setup(2), io_uring_enter(2)) that makes one call at a time. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/io_uring.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "activity.h"

#define ENTRIES 8

/* Operations of Linux 6.11, which older headers do not name. */
enum { OPERATION_BIND = 56, OPERATION_LISTEN = 57 };

int ring_open(struct ring *ring) {
  struct io_uring_params parameters;

  memset(&parameters, 0, sizeof(parameters));
  ring->fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &parameters);
  if (ring->fd < 0)
    return -errno;
  const size_t completions_end =
      parameters.cq_off.cqes + parameters.cq_entries * sizeof(struct io_uring_cqe);
  const size_t submissions_end = parameters.sq_off.array + parameters.sq_entries * sizeof(unsigned);
  const size_t bytes = completions_end > submissions_end ? completions_end : submissions_end;
  char *shared = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQ_RING);

  ring->submissions = mmap(NULL, parameters.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQES);
  if (shared == MAP_FAILED || ring->submissions == MAP_FAILED)
    return -errno;
  ring->tail = (unsigned *)(shared + parameters.sq_off.tail);
  ring->mask = (unsigned *)(shared + parameters.sq_off.ring_mask);
  ring->array = (unsigned *)(shared + parameters.sq_off.array);
  ring->completion_head = (unsigned *)(shared + parameters.cq_off.head);
  ring->completion_mask = (unsigned *)(shared + parameters.cq_off.ring_mask);
  ring->completions = shared + parameters.cq_off.cqes;
  return 0;
}

/* The operation that does what the system call does. */
static int translate(struct io_uring_sqe *entry, long number, const long *arguments) {
  entry->fd = (int)arguments[0];
  entry->addr = (uint64_t)arguments[1];
  switch (number) {
    case SYS_socket:
      entry->opcode = IORING_OP_SOCKET;
      entry->off = (uint64_t)arguments[1];
      entry->addr = 0;
      entry->len = (unsigned)arguments[2];
      return 1;
    case SYS_connect:
    case SYS_bind:
      entry->opcode = number == SYS_bind ? OPERATION_BIND : IORING_OP_CONNECT;
      entry->off = (uint64_t)arguments[2];
      return 1;
    case SYS_listen:
      entry->opcode = OPERATION_LISTEN;
      entry->addr = 0;
      entry->len = (unsigned)arguments[1];
      return 1;
    case SYS_accept4:
      entry->opcode = IORING_OP_ACCEPT;
      entry->addr2 = (uint64_t)arguments[2];
      entry->accept_flags = (unsigned)arguments[3];
      return 1;
    case SYS_sendmsg:
      entry->opcode = IORING_OP_SENDMSG;
      entry->len = 1;
      entry->msg_flags = (unsigned)arguments[2];
      return 1;
    case SYS_openat:
      entry->opcode = IORING_OP_OPENAT;
      entry->len = (unsigned)arguments[3];
      entry->open_flags = (unsigned)arguments[2];
      return 1;
    case SYS_unlinkat:
      entry->opcode = IORING_OP_UNLINKAT;
      entry->unlink_flags = (unsigned)arguments[2];
      return 1;
    case SYS_renameat2:
    case SYS_linkat:
      entry->opcode = number == SYS_linkat ? IORING_OP_LINKAT : IORING_OP_RENAMEAT;
      entry->len = (unsigned)arguments[2];
      entry->addr2 = (uint64_t)arguments[3];
      entry->rename_flags = (unsigned)arguments[4];
      return 1;
    case SYS_symlinkat:
      entry->opcode = IORING_OP_SYMLINKAT;
      entry->fd = (int)arguments[1];
      entry->addr = (uint64_t)arguments[0];
      entry->addr2 = (uint64_t)arguments[2];
      return 1;
    case SYS_setxattr:
      entry->opcode = IORING_OP_SETXATTR;
      entry->fd = 0;
      entry->addr3 = (uint64_t)arguments[0];
      entry->addr2 = (uint64_t)arguments[2];
      entry->len = (unsigned)arguments[3];
      entry->xattr_flags = (unsigned)arguments[4];
      return 1;
    default:
      return 0;
  }
}

int ring_call(struct ring *ring, long number, const long *arguments, long *result) {
  const unsigned tail = *ring->tail;
  const unsigned slot = tail & *ring->mask;
  struct io_uring_sqe *entry = (struct io_uring_sqe *)ring->submissions + slot;

  memset(entry, 0, sizeof(*entry));
  if (!translate(entry, number, arguments))
    return 0;
  ring->array[slot] = slot;
  __atomic_store_n(ring->tail, tail + 1, __ATOMIC_RELEASE);
  long entered;

  do
    entered = syscall(SYS_io_uring_enter, ring->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0);
  while (entered < 0 && errno == EINTR);
  if (entered < 0) {
    *result = -errno;
    return 1;
  }
  const unsigned head = *ring->completion_head;
  const struct io_uring_cqe *completion =
      (const struct io_uring_cqe *)ring->completions + (head & *ring->completion_mask);

  *result = completion->res;
  __atomic_store_n(ring->completion_head, head + 1, __ATOMIC_RELEASE);
  return 1;
}
