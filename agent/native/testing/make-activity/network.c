// SPDX-License-Identifier: Apache-2.0
/* Connections, flows and sockets, on --address (127.0.0.1 unless said). */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "activity.h"

/* What waits to be accepted; net.core.somaxconn bounds it. */
#define BACKLOG 4096

static int family_of(const struct worker *worker) {
  return strchr(worker->options->address, ':') == NULL ? AF_INET : AF_INET6;
}

/* Not one of the calls that are told: glibc makes it. */
static int listen_quietly(struct worker *worker, int *port) {
  struct sockaddr_storage address;
  socklen_t bytes = put_address(&address, worker->options->address, 0);
  const int fd = bytes == 0 ? -1 : socket(family_of(worker), SOCK_STREAM | SOCK_CLOEXEC, 0);

  if (bytes == 0)
    return -EINVAL;
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, bytes) < 0 || listen(fd, BACKLOG) < 0)
    return -errno;
  bytes = sizeof(address);
  if (getsockname(fd, (struct sockaddr *)&address, &bytes) < 0)
    return -errno;
  *port = port_of(&address);
  return fd;
}

static long prepare_listener(struct worker *worker) {
  worker->fd = listen_quietly(worker, &worker->port);
  if (worker->fd >= 0 && has(worker, SWAP))
    worker->other_fd = listen_quietly(worker, &worker->lure_port);
  return worker->fd < 0 ? worker->fd : worker->other_fd < 0 ? worker->other_fd : 0;
}

static long prepare_connect(struct worker *worker) {
  if (worker->options->port == 0)
    return prepare_listener(worker);
  worker->port = (int)worker->options->port;
  return 0;
}

/* A port that was just free, and is nobody's. */
static long prepare_refused(struct worker *worker) {
  const int fd = listen_quietly(worker, &worker->port);

  if (fd < 0)
    return fd;
  close(fd);
  return 0;
}

/* The connected socket; its own port becomes a note. */
static long connect_to(struct worker *worker) {
  struct sockaddr_storage *address = &worker->memory->address;
  const socklen_t bytes = put_address(address, worker->options->address, worker->port);
  const long fd = CALL3(worker, SYS_socket, family_of(worker), SOCK_STREAM | SOCK_CLOEXEC, 0);

  if (fd < 0)
    return fd;
  swap_begin(worker, &((struct sockaddr_in *)address)->sin_port, htons((uint16_t)worker->lure_port), 2);
  const long result = CALL3(worker, SYS_connect, fd, address, bytes);

  swap_end(worker);
  if (result < 0) {
    close((int)fd);
    return result;
  }
  struct sockaddr_storage own;
  socklen_t own_bytes = sizeof(own);

  getsockname((int)fd, (struct sockaddr *)&own, &own_bytes);
  note(worker, port_of(&own));
  own_bytes = sizeof(own);
  getpeername((int)fd, (struct sockaddr *)&own, &own_bytes);
  if (port_of(&own) != worker->port)
    worker->lured++;
  return fd;
}

static long connect_once(struct worker *worker, long index) {
  (void)index;
  const long fd = connect_to(worker);

  if (fd >= 0)
    release(worker, (int)fd);
  return fd;
}

/* A child of the worker connects; what it does is its own. */
static long prepare_accept(struct worker *worker) {
  const struct options *options = worker->options;
  const long result = prepare_listener(worker);

  if (result < 0)
    return result;
  worker->child = fork();
  if (worker->child != 0)
    return worker->child < 0 ? -errno : 0;
  struct sockaddr_storage address;
  const socklen_t bytes = put_address(&address, options->address, worker->port);

  for (long index = worker->number; index < options->count; index += options->threads) {
    const int fd = socket(family_of(worker), SOCK_STREAM, 0);
    char end;

    if (fd < 0 || connect(fd, (struct sockaddr *)&address, bytes) < 0)
      _exit(1);
    /* Until the other side has it. */
    (void)!read(fd, &end, 1);
    close(fd);
  }
  _exit(0);
}

static long accept_from(struct worker *worker) {
  struct memory *memory = worker->memory;

  memory->peer_bytes = sizeof(memory->peer);
  const long fd = CALL4(worker, SYS_accept4, worker->fd, &memory->peer, &memory->peer_bytes, SOCK_CLOEXEC);

  return fd;
}

static long accept_once(struct worker *worker, long index) {
  (void)index;
  const long fd = accept_from(worker);

  if (fd < 0)
    return fd;
  note(worker, port_of(&worker->memory->peer));
  shutdown((int)fd, SHUT_RDWR);
  release(worker, (int)fd);
  return fd;
}

static void end_accept(struct worker *worker) {
  int status;

  if (worker->child <= 0)
    return;
  wait_for(worker->child, &status);
}

static long send_and_take(int from, int to, char *data, long bytes) {
  for (long sent = 0; sent < bytes;) {
    const ssize_t wrote = write(from, data, (size_t)(bytes - sent > DATA_BYTES ? DATA_BYTES : bytes - sent));

    if (wrote <= 0)
      return -errno;
    for (ssize_t taken = 0; taken < wrote;) {
      const ssize_t got = read(to, data, (size_t)(wrote - taken));

      if (got <= 0)
        return got < 0 ? -errno : -EPIPE;
      taken += got;
    }
    sent += wrote;
  }
  return bytes;
}

/* --bytes one way, twice as many back, and both ends closed. */
static long exchange_once(struct worker *worker, long index) {
  (void)index;
  const long client = connect_to(worker);

  if (client < 0)
    return client;
  const long server = accept_from(worker);

  if (server < 0) {
    close((int)client);
    return server;
  }
  long result = send_and_take((int)client, (int)server, worker->memory->data, worker->options->bytes);

  if (result >= 0)
    result = send_and_take((int)server, (int)client, worker->memory->data, 2 * worker->options->bytes);
  close((int)client);
  close((int)server);
  return result;
}

static long prepare_flow(struct worker *worker) {
  if (worker->options->port == 0)
    return -EINVAL;
  worker->port = (int)worker->options->port;
  const long fd = CALL3(worker, SYS_socket, family_of(worker), SOCK_DGRAM | SOCK_CLOEXEC, 0);

  worker->fd = (int)fd;
  return fd;
}

/* Peers are different addresses of 127/8 with one port; of IPv6, which has one loopback address, other ports. */
static long flow_once(struct worker *worker, long index) {
  struct memory *memory = worker->memory;
  const int six = family_of(worker) == AF_INET6;
  const socklen_t bytes = put_address(&memory->address, worker->options->address, worker->port + (six ? (int)index : 0));

  if (!six)
    ((struct sockaddr_in *)&memory->address)->sin_addr.s_addr = htonl(0x7f400001u + (uint32_t)index);
  strcpy(memory->data, "harmless");
  put_vector(worker, 0, memory->data, strlen(memory->data));
  return CALL3(worker, SYS_sendmsg, worker->fd, put_message(worker, &memory->address, bytes, 1), 0);
}

static long listen_once(struct worker *worker, long index) {
  struct sockaddr_storage *address = &worker->memory->address;
  const int first = (int)worker->options->port;
  const socklen_t bytes = put_address(address, worker->options->address, first == 0 ? 0 : first + (int)index);
  const long fd = CALL3(worker, SYS_socket, family_of(worker), SOCK_STREAM | SOCK_CLOEXEC, 0);

  if (fd < 0)
    return fd;
  long result = CALL3(worker, SYS_bind, fd, address, bytes);

  if (result >= 0)
    result = CALL2(worker, SYS_listen, fd, 16);
  socklen_t own_bytes = sizeof(*address);

  if (result >= 0 && getsockname((int)fd, (struct sockaddr *)address, &own_bytes) == 0)
    note(worker, port_of(address));
  release(worker, (int)fd);
  return result;
}

static long raw_once(struct worker *worker, long index) {
  (void)index;
  const int protocol = family_of(worker) == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6;
  const long fd = CALL3(worker, SYS_socket, family_of(worker), SOCK_RAW | SOCK_CLOEXEC, protocol);

  if (fd >= 0)
    release(worker, (int)fd);
  return fd;
}

static long packet_once(struct worker *worker, long index) {
  (void)index;
  const long fd = CALL3(worker, SYS_socket, AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));

  if (fd >= 0)
    release(worker, (int)fd);
  return fd;
}

#define ALL (COMPAT | SOCKETCALL | RING | THREADS)

const struct behaviour network_behaviours[] = {
    {"tcp-connect", "connects to --port, else to a listener of its own that accepts nothing", ALL | SWAP | HOLD, 0, "ports", prepare_connect, connect_once, NULL},
    {"tcp-refused", "connects where nobody listens", ALL, 1, "ports", prepare_refused, connect_once, NULL},
    {"tcp-accept", "accepts connections of a child", ALL | HOLD, 0, "ports", prepare_accept, accept_once, end_accept},
    {"tcp-exchange", "connects, accepts, sends --bytes, gets twice as many, closes", ALL, 0, "ports", prepare_listener, exchange_once, NULL},
    {"udp-flow", "sends to --port of different loopback peers", ALL, 0, NULL, prepare_flow, flow_once, NULL},
    {"listen", "listens on ports from --port on, else on free ones", ALL | HOLD, 0, "ports", NULL, listen_once, NULL},
    {"raw-socket", "opens raw sockets of ICMP", ALL | HOLD, 0, NULL, NULL, raw_once, NULL},
    {"packet-socket", "opens packet sockets", ALL | HOLD, 0, NULL, NULL, packet_once, NULL},
    {0},
};
