// SPDX-License-Identifier: Apache-2.0
/* System calls in three dialects: of this architecture, 32-bit ones through int 0x80, and operations of io_uring. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include "activity.h"

/* The i386 numbers (arch/x86/entry/syscalls/syscall_32.tbl). */
static const struct {
  short native, compat;
} compat_numbers[] = {
    {SYS_read, 3},           {SYS_write, 4},         {SYS_close, 6},             {SYS_execve, 11},           {SYS_mount, 21},
    {SYS_ptrace, 26},        {SYS_kill, 37},         {SYS_umount2, 52},          {SYS_munmap, 91},
    {SYS_mprotect, 125},     {SYS_init_module, 128}, {SYS_delete_module, 129},   {SYS_capset, 185},
    {SYS_mmap, 192},         {SYS_setresuid, 208},   {SYS_setuid, 213},          {SYS_setxattr, 226},
    {SYS_openat, 295},       {SYS_fchownat, 298},    {SYS_unlinkat, 301},        {SYS_linkat, 303},
    {SYS_symlinkat, 304},    {SYS_fchmodat, 306},    {SYS_unshare, 310},         {SYS_setns, 346},
    {SYS_process_vm_readv, 347}, {SYS_process_vm_writev, 348}, {SYS_finit_module, 350}, {SYS_renameat2, 353},
    {SYS_memfd_create, 356}, {SYS_bpf, 357},         {SYS_execveat, 358},        {SYS_socket, 359},
    {SYS_bind, 361},         {SYS_connect, 362},     {SYS_listen, 363},          {SYS_accept4, 364},
    {SYS_sendmsg, 370},
};

/* What socketcall(2) calls them (include/uapi/linux/net.h). */
static const struct {
  short native, call;
} socket_calls[] = {
    {SYS_socket, 1}, {SYS_bind, 2}, {SYS_connect, 3}, {SYS_listen, 4}, {SYS_sendmsg, 16}, {SYS_accept4, 18},
};
#define SOCKETCALL_NUMBER 102

static long native_call(long number, const long *arguments) {
  register long fourth __asm__("r10") = arguments[3];
  register long fifth __asm__("r8") = arguments[4];
  register long sixth __asm__("r9") = arguments[5];
  long result;

  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(arguments[0]), "S"(arguments[1]), "d"(arguments[2]), "r"(fourth), "r"(fifth), "r"(sixth)
                   : "rcx", "r11", "memory");
  return result;
}

static long compat_call(long number, const long *arguments) {
  long result = number;

  /* The sixth argument goes in the frame pointer, kept below the bytes that a leaf function may use. */
  __asm__ volatile(
      "lea -128(%%rsp), %%rsp\n\t"
      "push %%rbp\n\t"
      "mov %[sixth], %%rbp\n\t"
      "int $0x80\n\t"
      "pop %%rbp\n\t"
      "lea 128(%%rsp), %%rsp"
      : "+a"(result)
      : "b"(arguments[0]), "c"(arguments[1]), "d"(arguments[2]), "S"(arguments[3]), "D"(arguments[4]), [sixth] "r"(arguments[5])
      : "r8", "r9", "r10", "r11", "memory");
  /* Addresses up to 4 GB are no errors. */
  return (unsigned)result > (unsigned)-4096 ? (int)result : (long)(unsigned)result;
}

/* False when it is no call of sockets. */
static int make_socketcall(struct worker *worker, long number, const long *arguments, long *result) {
  for (size_t index = 0; index < sizeof(socket_calls) / sizeof(socket_calls[0]); index++) {
    if (socket_calls[index].native != number)
      continue;
    for (int at = 0; at < 6; at++)
      worker->memory->socketcall[at] = (uint32_t)arguments[at];
    const long call[6] = {socket_calls[index].call, (long)worker->memory->socketcall};

    *result = compat_call(SOCKETCALL_NUMBER, call);
    return 1;
  }
  return 0;
}

long make_call(struct worker *worker, long number, long first, long second, long third, long fourth, long fifth, long sixth) {
  long arguments[6] = {first, second, third, fourth, fifth, sixth};
  long result;

  if (has(worker, RING) && ring_call(&worker->ring, number, arguments, &result))
    return result;
  if (!has(worker, COMPAT))
    return native_call(number, arguments);
  if (has(worker, SOCKETCALL) && make_socketcall(worker, number, arguments, &result))
    return result;
  for (size_t index = 0; index < sizeof(compat_numbers) / sizeof(compat_numbers[0]); index++) {
    if (compat_numbers[index].native != number)
      continue;
    /* mmap2 counts its offset in pages. */
    if (number == SYS_mmap)
      arguments[5] /= 4096;
    return compat_call(compat_numbers[index].compat, arguments);
  }
  return -ENOSYS;
}

void *low_memory(size_t bytes) {
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

  return memory == MAP_FAILED ? NULL : memory;
}

char *low_copy(const char *text) {
  char *copy = low_memory(strlen(text) + 1);

  return copy == NULL ? NULL : strcpy(copy, text);
}

/* What 32-bit calls know as 4 bytes, others as 8. */
static void put_word(struct worker *worker, void *at, int index, uint64_t value) {
  if (has(worker, COMPAT))
    ((uint32_t *)at)[index] = (uint32_t)value;
  else
    ((uint64_t *)at)[index] = value;
}

/* A list of at most 7 texts, ended with NULL. */
void *put_pointers(struct worker *worker, const char *const *texts) {
  int index = 0;

  for (; texts[index] != NULL && index < 7; index++)
    put_word(worker, worker->memory->pointers, index, (uint64_t)texts[index]);
  put_word(worker, worker->memory->pointers, index, 0);
  return worker->memory->pointers;
}

/* struct iovec number `index` of two. */
void *put_vector(struct worker *worker, int index, const void *base, size_t bytes) {
  const size_t vector_bytes = has(worker, COMPAT) ? 8 : sizeof(struct iovec);
  char *vector = (char *)worker->memory->vectors + (size_t)index * vector_bytes;

  put_word(worker, vector, 0, (uint64_t)base);
  put_word(worker, vector, 1, bytes);
  return vector;
}

/* struct msghdr over the first vectors, without control data. */
void *put_message(struct worker *worker, const void *name, socklen_t name_bytes, int vectors) {
  void *message = worker->memory->message;

  memset(message, 0, sizeof(worker->memory->message));
  put_word(worker, message, 0, (uint64_t)name);
  put_word(worker, message, 1, name_bytes);
  put_word(worker, message, 2, (uint64_t)worker->memory->vectors);
  put_word(worker, message, 3, (uint64_t)vectors);
  return message;
}
