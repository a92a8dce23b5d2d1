// SPDX-License-Identifier: Apache-2.0
/*
 * Netlink sockets (netlink(7)) that never wait: what the kernel sends is fetched in batches, and what anybody else
 * sends is dropped. A packed message is a 32-bit length, that many bytes, and zero to three bytes up to a
 * multiple of four; the length 0 stands where the kernel dropped messages because they were not fetched in time.
 */
#define _GNU_SOURCE
#include "node.h"

#include <errno.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const napi_type_tag socket_tag = {0x8c41f6b07d2e4a95, 0x9e7a35d1c08b462f};

#define LENGTH_BYTES 4
/* Room that a message is given at least: the longest that the kernel's audit sends has 8,970 bytes. */
#define MESSAGE_BYTES_MAX 16384
/* Bounds one call when somebody floods the socket with messages that are all dropped. */
#define RECEIVED_MAX 65536

struct netlink_socket {
  int fd;
};

static void release(struct netlink_socket *netlink) {
  if (netlink->fd >= 0)
    close(netlink->fd);
  netlink->fd = -1;
}

static void finalize(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  release(data);
  free(data);
}

static int open_bound(int32_t protocol, uint32_t groups, int32_t receive_bytes, const char **failed) {
  struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = groups};
  const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);

  *failed = "socket";
  if (fd < 0)
    return -1;
  /* The forced size needs CAP_NET_ADMIN; without it, net.core.rmem_max is the bound. */
  if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &receive_bytes, sizeof(receive_bytes)) < 0 &&
      setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes)) < 0)
    *failed = "setsockopt";
  else if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
    *failed = "bind";
  else
    return fd;
  const int error = errno;

  close(fd);
  errno = error;
  return -1;
}

/* netlinkOpen(protocol, groups, receiveBytes): handle */
static napi_value open_netlink(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  int32_t protocol, receive_bytes;
  uint64_t groups;
  const char *failed;

  if (!read_arguments(env, info, 3, arguments) || !read_int32(env, arguments[0], "protocol", 0, &protocol) ||
      !read_uint64(env, arguments[1], "groups", &groups) ||
      !read_int32(env, arguments[2], "receiveBytes", 0, &receive_bytes))
    return NULL;
  if (groups > UINT32_MAX)
    return throw_invalid_argument(env, "groups must be a mask of 32 bits");
  struct netlink_socket *netlink = calloc(1, sizeof(*netlink));

  if (netlink == NULL)
    return throw_system_error(env, "calloc", ENOMEM);
  netlink->fd = open_bound(protocol, (uint32_t)groups, receive_bytes, &failed);
  if (netlink->fd < 0) {
    const int error = errno;

    free(netlink);
    return throw_system_error(env, failed, error);
  }
  return create_handle(env, netlink, finalize, &socket_tag);
}

static struct netlink_socket *read_netlink(napi_env env, napi_value value) {
  void *data;

  if (!read_handle(env, value, &socket_tag, &data))
    return NULL;
  struct netlink_socket *netlink = data;

  if (netlink->fd < 0) {
    throw_system_error(env, "netlink handle", EBADF);
    return NULL;
  }
  return netlink;
}

/* netlinkSend(handle, message): to the kernel, which acts on it before this returns */
static napi_value send_message(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  struct bytes message;
  const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};

  if (!read_arguments(env, info, 2, arguments))
    return NULL;
  struct netlink_socket *netlink = read_netlink(env, arguments[0]);

  if (netlink == NULL || !read_bytes(env, arguments[1], "message", &message))
    return NULL;
  if (message.length < sizeof(struct nlmsghdr))
    return throw_invalid_argument(env, "message must begin with a netlink header");
  ssize_t sent;

  do {
    sent = sendto(netlink->fd, message.data, message.length, MSG_DONTWAIT, (const struct sockaddr *)&kernel,
                  sizeof(kernel));
  } while (sent < 0 && errno == EINTR);
  if (sent < 0)
    return throw_system_error(env, "sendto", errno);
  return undefined_value(env);
}

/* Bytes received; 0 for a message that is not the kernel's; -1 with errno. A longer message than fits: its length. */
static ssize_t receive_from_kernel(int fd, uint8_t *target, size_t capacity) {
  struct sockaddr_nl sender = {0};
  struct iovec part = {.iov_base = target, .iov_len = capacity};
  struct msghdr message = {
      .msg_name = &sender, .msg_namelen = sizeof(sender), .msg_iov = &part, .msg_iovlen = 1};
  const ssize_t received = recvmsg(fd, &message, MSG_DONTWAIT | MSG_TRUNC);

  if (received < 0)
    return -1;
  return message.msg_namelen == sizeof(sender) && sender.nl_pid == 0 ? received : 0;
}

static size_t pack(uint8_t *target, size_t length) {
  const uint32_t told = (uint32_t)length;
  const size_t padded = (length + 3) & ~(size_t)3;

  memcpy(target, &told, LENGTH_BYTES);
  memset(target + LENGTH_BYTES + length, 0, padded - length);
  return LENGTH_BYTES + padded;
}

/* Bytes packed, or -1 with errno when there are none. */
static ssize_t drain_into(int fd, uint8_t *target, size_t capacity) {
  size_t used = 0;

  for (int round = 0; round < RECEIVED_MAX && capacity - used >= LENGTH_BYTES + MESSAGE_BYTES_MAX; round++) {
    const ssize_t received = receive_from_kernel(fd, target + used + LENGTH_BYTES, MESSAGE_BYTES_MAX);

    if (received > MESSAGE_BYTES_MAX || (received < 0 && errno == ENOBUFS))
      used += pack(target + used, 0);
    else if (received > 0)
      used += pack(target + used, (size_t)received);
    else if (received < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
      break;
    else if (received < 0 && errno != EINTR)
      return used > 0 ? (ssize_t)used : -1;
  }
  return (ssize_t)used;
}

/* netlinkDrain(handle, buffer): bytes packed */
static napi_value drain(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  struct bytes target;

  if (!read_arguments(env, info, 2, arguments))
    return NULL;
  struct netlink_socket *netlink = read_netlink(env, arguments[0]);

  if (netlink == NULL || !read_bytes(env, arguments[1], "buffer", &target))
    return NULL;
  if (target.length < 2 * MESSAGE_BYTES_MAX)
    return throw_invalid_argument(env, "buffer must have at least 32768 bytes");
  const ssize_t used = drain_into(netlink->fd, target.data, target.length);

  if (used < 0)
    return throw_system_error(env, "recvmsg", errno);
  return number_value(env, (double)used);
}

/* netlinkClose(handle): a second call does nothing. */
static napi_value close_netlink(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  void *data;

  if (!read_arguments(env, info, 1, arguments) || !read_handle(env, arguments[0], &socket_tag, &data))
    return NULL;
  release(data);
  return undefined_value(env);
}

bool export_netlink(napi_env env, napi_value exports) {
  return export_function(env, exports, "netlinkOpen", open_netlink) &&
         export_function(env, exports, "netlinkSend", send_message) &&
         export_function(env, exports, "netlinkDrain", drain) &&
         export_function(env, exports, "netlinkClose", close_netlink);
}
