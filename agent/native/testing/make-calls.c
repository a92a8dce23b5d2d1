// SPDX-License-Identifier: Apache-2.0
/*
 * Makes, by direct system calls, one each of what a sensor is to see, all of it harmless: it reads and writes only
 * a child of its own, mounts only in a mount namespace of its own, and asks for a module that there is not.
 *
 *     gcc -O2 -o make-calls make-calls.c
 *     make-calls FILE      a file of the caller's, whose mode and owner are changed; prints the pids as JSON
 */
#define _GNU_SOURCE
#include <linux/bpf.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static char secret[8] = "secret!";

static int tcp_port(int fd) {
  struct sockaddr_in6 address;
  socklen_t length = sizeof(address);

  syscall(SYS_getsockname, fd, &address, &length);
  return ntohs(address.sin6_port);
}

static int connect_to(int family, int port) {
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  const int fd = syscall(SYS_socket, family, SOCK_STREAM | SOCK_CLOEXEC, 0);

  return family == AF_INET ? syscall(SYS_connect, fd, &v4, sizeof(v4)) : syscall(SYS_connect, fd, &v6, sizeof(v6));
}

static int use_sockets(void) {
  struct sockaddr_in6 any = {.sin6_family = AF_INET6};
  struct sockaddr_in6 peer;
  socklen_t length = sizeof(peer);
  const int listener = syscall(SYS_socket, AF_INET6, SOCK_STREAM, 0);

  syscall(SYS_bind, listener, &any, sizeof(any));
  syscall(SYS_listen, listener, 4);
  const int port = tcp_port(listener);

  connect_to(AF_INET, port);
  syscall(SYS_accept4, listener, &peer, &length, 0);
  connect_to(AF_INET6, port);
  syscall(SYS_accept4, listener, NULL, NULL, 0);
  connect_to(AF_INET, 1);
  syscall(SYS_socket, AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP);
  syscall(SYS_socket, AF_PACKET, SOCK_DGRAM, htons(3));
  return port;
}

static void touch_child(pid_t child) {
  char copy[8];
  const struct iovec here = {copy, sizeof(copy)}, there = {secret, sizeof(secret)};

  syscall(SYS_process_vm_readv, child, &here, 1ul, &there, 1ul, 0ul);
  syscall(SYS_process_vm_writev, child, &here, 1ul, &there, 1ul, 0ul);
  syscall(SYS_ptrace, PTRACE_SEIZE, child, 0, 0);
  syscall(SYS_ptrace, PTRACE_INTERRUPT, child, 0, 0);
  waitpid(child, NULL, 0);
  syscall(SYS_ptrace, PTRACE_PEEKDATA, child, secret, copy);
  syscall(SYS_ptrace, PTRACE_POKEDATA, child, secret, 0);
}

static void change_in_child(int done) {
  syscall(SYS_unshare, CLONE_NEWNS);
  mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL);
  syscall(SYS_mount, "/tmp", "/tmp", NULL, MS_BIND, NULL);
  syscall(SYS_umount2, "/tmp", MNT_DETACH);
  syscall(SYS_setresgid, 65534, -1, 65534);
  syscall(SYS_setuid, 65534);
  close(done);
  pause();
}

int main(int count, char **values) {
  if (count != 2)
    return 2;
  const int port = use_sockets();
  const int memory = syscall(SYS_memfd_create, "harmless", MFD_CLOEXEC);
  union bpf_attr attributes = {0};

  syscall(SYS_chmod, values[1], 0640);
  syscall(SYS_chown, values[1], 65534, -1);
  syscall(SYS_delete_module, "cordon_none", 0);
  syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof(attributes));
  int done[2];
  char end;

  if (pipe(done) < 0)
    return 1;
  const pid_t child = fork();

  if (child == 0) {
    close(done[0]);
    change_in_child(done[1]);
    _exit(0);
  }
  close(done[1]);
  /* The child closes its end when it has done all of its part. */
  if (read(done[0], &end, 1) != 0)
    return 1;
  touch_child(child);
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  printf("{\"pid\":%d,\"child\":%d,\"port\":%d}\n", getpid(), child, port);
  fflush(stdout);
  /* What is asked of a descriptor afterwards needs it open. */
  usleep(400 * 1000);
  return memory < 0;
}
