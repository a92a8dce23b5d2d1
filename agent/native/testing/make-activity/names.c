// SPDX-License-Identifier: Apache-2.0
/* DNS questions with names of their own (RFC 1035), and the server that answers them. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>
#include "activity.h"

#define HEADER_BYTES 12
#define MESSAGE_BYTES 512
#define WAIT_SECONDS 5
/* What every answer says: of the range that documents use. */
static const unsigned char answer_address[] = {192, 0, 2, 53};

static int put_label(unsigned char *at, const char *label) {
  const int length = (int)strlen(label);

  at[0] = (unsigned char)length;
  memcpy(at + 1, label, (size_t)length);
  return length + 1;
}

/* A question for the address of NAME-INDEX.activity.test; its bytes. */
static int put_question(const struct worker *worker, long index, unsigned char *out) {
  static const unsigned char type_and_class[] = {0, 0, 1, 0, 1};
  char first[64];
  int bytes = HEADER_BYTES;

  memset(out, 0, HEADER_BYTES);
  out[0] = (unsigned char)(index >> 8);
  out[1] = (unsigned char)index;
  out[2] = 1;
  out[5] = 1;
  snprintf(first, sizeof(first), "%.30s-%ld%s", worker->options->name, index, has(worker, STRANGE) ? "\n\x1b[31m\xff" : "");
  bytes += put_label(out + bytes, first);
  bytes += put_label(out + bytes, "activity");
  bytes += put_label(out + bytes, "test");
  memcpy(out + bytes, type_and_class, sizeof(type_and_class));
  return bytes + (int)sizeof(type_and_class);
}

static long open_socket(struct worker *worker, int type) {
  const struct timeval wait = {.tv_sec = WAIT_SECONDS};
  const int family = strchr(worker->options->address, ':') == NULL ? AF_INET : AF_INET6;
  const int port = worker->options->port == 0 ? 53 : (int)worker->options->port;

  worker->port = port;
  worker->address_bytes = put_address(&worker->memory->address, worker->options->address, port);
  if (worker->address_bytes == 0)
    return -EINVAL;
  const long fd = CALL3(worker, SYS_socket, family, type | SOCK_CLOEXEC, 0);

  if (fd >= 0)
    setsockopt((int)fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
  return fd;
}

static long prepare_query(struct worker *worker) {
  const long fd = has(worker, TCP) ? 0 : open_socket(worker, SOCK_DGRAM);

  worker->fd = (int)fd;
  return fd;
}

/* The message in one piece, or in two that part in the middle of its name. */
static long send_message(struct worker *worker, int fd, const char *data, int bytes) {
  const int first = has(worker, SPLIT) ? HEADER_BYTES + 6 : bytes;
  const int to_peer = !has(worker, TCP);

  put_vector(worker, 0, data, (size_t)first);
  put_vector(worker, 1, data + first, (size_t)(bytes - first));
  void *message = put_message(worker, to_peer ? &worker->memory->address : NULL, to_peer ? worker->address_bytes : 0, has(worker, SPLIT) ? 2 : 1);
  const long sent = CALL3(worker, SYS_sendmsg, fd, message, 0);

  return sent < 0 ? sent : sent == bytes ? 0 : -EIO;
}

static int read_fully(int fd, char *data, int bytes) {
  for (int taken = 0; taken < bytes;) {
    const ssize_t got = read(fd, data + taken, (size_t)(bytes - taken));

    if (got <= 0)
      return got < 0 ? -errno : -EPIPE;
    taken += (int)got;
  }
  return bytes;
}

/* One message after its length; its bytes. */
static int read_message(int fd, char *data) {
  unsigned char length[2];
  const int result = read_fully(fd, (char *)length, sizeof(length));
  const int bytes = length[0] << 8 | length[1];

  if (result < 0)
    return result;
  return bytes > MESSAGE_BYTES ? -EMSGSIZE : read_fully(fd, data, bytes);
}

static long query_once(struct worker *worker, long index) {
  char *data = worker->memory->data + 2;
  const int bytes = put_question(worker, index, (unsigned char *)data);
  char answer[MESSAGE_BYTES];
  long result;

  if (has(worker, TCP)) {
    const long fd = open_socket(worker, SOCK_STREAM);

    if (fd < 0)
      return fd;
    worker->memory->data[0] = (char)(bytes >> 8);
    worker->memory->data[1] = (char)bytes;
    result = CALL3(worker, SYS_connect, fd, &worker->memory->address, worker->address_bytes);
    if (result >= 0)
      result = send_message(worker, (int)fd, worker->memory->data, bytes + 2);
    if (result >= 0)
      result = read_message((int)fd, answer);
    close((int)fd);
  } else {
    result = send_message(worker, worker->fd, data, bytes);
    if (result >= 0 && (result = recv(worker->fd, answer, sizeof(answer), 0)) < 0)
      result = -errno;
  }
  if (result < 0)
    return result;
  /* The question comes back before the answer. */
  return result > bytes && memcmp(answer + HEADER_BYTES, data + HEADER_BYTES, (size_t)(bytes - HEADER_BYTES)) == 0 &&
                 answer[0] == data[0] && answer[1] == data[1]
             ? 0
             : -EBADMSG;
}

static long prepare_server(struct worker *worker) {
  const int one = 1;

  worker->fd = (int)open_socket(worker, SOCK_DGRAM);
  worker->other_fd = worker->fd < 0 ? -1 : (int)open_socket(worker, SOCK_STREAM);
  if (worker->fd < 0 || worker->other_fd < 0)
    return -EINVAL;
  setsockopt(worker->other_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  for (int tcp = 0; tcp < 2; tcp++) {
    if (bind(tcp ? worker->other_fd : worker->fd, (struct sockaddr *)&worker->memory->address, worker->address_bytes) < 0)
      return -errno;
  }
  if (listen(worker->other_fd, 128) < 0)
    return -errno;
  printf("{\"ready\":true,\"port\":%d}\n", worker->port);
  fflush(stdout);
  return 0;
}

/* The question with its answer behind it; 0 when it is no question. */
static int put_answer(char *data, long bytes) {
  static const unsigned char record[] = {0xc0, HEADER_BYTES, 0, 1, 0, 1, 0, 0, 0, 60, 0, sizeof(answer_address)};

  if (bytes < HEADER_BYTES + 5 || bytes + (long)sizeof(record) + 4 > MESSAGE_BYTES || (data[2] & 0x80) != 0)
    return 0;
  data[2] = (char)0x81;
  data[3] = (char)0x80;
  data[7] = 1;
  memcpy(data + bytes, record, sizeof(record));
  memcpy(data + bytes + sizeof(record), answer_address, sizeof(answer_address));
  return (int)(bytes + (long)sizeof(record) + (long)sizeof(answer_address));
}

static long serve_datagram(struct worker *worker) {
  struct sockaddr_storage peer;
  socklen_t peer_bytes = sizeof(peer);
  char data[MESSAGE_BYTES];
  const ssize_t got = recvfrom(worker->fd, data, sizeof(data), 0, (struct sockaddr *)&peer, &peer_bytes);
  const int bytes = got < 0 ? 0 : put_answer(data, got);

  if (bytes == 0)
    return got < 0 ? -errno : -EBADMSG;
  return sendto(worker->fd, data, (size_t)bytes, 0, (struct sockaddr *)&peer, peer_bytes) < 0 ? -errno : 0;
}

static long serve_connection(struct worker *worker) {
  const struct timeval wait = {.tv_sec = WAIT_SECONDS};
  char data[MESSAGE_BYTES + 2];
  const int fd = accept(worker->other_fd, NULL, NULL);

  if (fd < 0)
    return -errno;
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
  const int got = read_message(fd, data + 2);
  const int bytes = got < 0 ? 0 : put_answer(data + 2, got);

  data[0] = (char)(bytes >> 8);
  data[1] = (char)bytes;
  const long result = bytes == 0 ? got < 0 ? got : -EBADMSG : write(fd, data, (size_t)bytes + 2);

  close(fd);
  return result;
}

static long serve_once(struct worker *worker, long index) {
  struct pollfd sockets[] = {{.fd = worker->fd, .events = POLLIN}, {.fd = worker->other_fd, .events = POLLIN}};

  (void)index;
  if (poll(sockets, 2, -1) < 0)
    return -errno;
  return sockets[0].revents != 0 ? serve_datagram(worker) : serve_connection(worker);
}

const struct behaviour name_behaviours[] = {
    {"dns-query", "asks --address for NAME-N.activity.test, and waits for the answer", COMPAT | SOCKETCALL | RING | STRANGE | THREADS | TCP | SPLIT, 0, NULL, prepare_query, query_once, NULL},
    {"dns-serve", "answers as many questions, over UDP and TCP; says first when it is ready", 0, 0, NULL, prepare_server, serve_once, NULL},
    {0},
};
