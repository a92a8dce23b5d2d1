// SPDX-License-Identifier: Apache-2.0
/* Hands open descriptors from one process to another over a unix socket (unix(7), SCM_RIGHTS). */
#define _GNU_SOURCE
#include "node.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* More than one is never sent; room for a few, so that those of a misbehaving sender can be closed. */
#define DESCRIPTORS_RECEIVED_MAX 8

/* socketPair(): [fd, fd] */
static napi_value socket_pair(napi_env env, napi_callback_info info) {
  int ends[2];
  napi_value result;

  (void)info;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
    return throw_system_error(env, "socketpair", errno);
  if (napi_create_array_with_length(env, 2, &result) != napi_ok ||
      napi_set_element(env, result, 0, number_value(env, ends[0])) != napi_ok ||
      napi_set_element(env, result, 1, number_value(env, ends[1])) != napi_ok) {
    close(ends[0]);
    close(ends[1]);
    return NULL;
  }
  return result;
}

/* sendDescriptor(socketFd, fd, payload): never waits; a full socket is EAGAIN. fd -1 sends the payload alone. */
static napi_value send_descriptor(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  int32_t socket_fd, fd;
  struct bytes payload;
  union {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int))];
  } control;
  struct msghdr message;
  struct iovec part;

  if (!read_arguments(env, info, 3, arguments) || !read_int32(env, arguments[0], "socketFd", 0, &socket_fd) ||
      !read_int32(env, arguments[1], "fd", -1, &fd) || !read_bytes(env, arguments[2], "payload", &payload))
    return NULL;
  if (payload.length == 0)
    return throw_invalid_argument(env, "payload must not be empty: an empty message looks like the end");

  memset(&message, 0, sizeof(message));
  memset(&control, 0, sizeof(control));
  part.iov_base = payload.data;
  part.iov_len = payload.length;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = control.space;
    message.msg_controllen = sizeof(control.space);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof(int));
  }
  if (sendmsg(socket_fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
    return throw_system_error(env, "sendmsg", errno);
  return undefined_value(env);
}

/* Keeps the first descriptor of the message, closes any other. -1: there was none. */
static int take_descriptor(struct msghdr *message) {
  int kept = -1;

  for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header != NULL; header = CMSG_NXTHDR(message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
      continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);

    for (size_t index = 0; index < count; index++) {
      int fd;

      memcpy(&fd, CMSG_DATA(header) + index * sizeof(int), sizeof(int));
      if (kept < 0)
        kept = fd;
      else
        close(fd);
    }
  }
  return kept;
}

/* receiveDescriptor(socketFd, buffer, timeoutMs): { fd, length }, or null when the time is up */
static napi_value receive_descriptor(napi_env env, napi_callback_info info) {
  napi_value arguments[3], result;
  int32_t socket_fd, timeout_ms;
  struct bytes target;
  union {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int) * DESCRIPTORS_RECEIVED_MAX)];
  } control;
  struct msghdr message;
  struct iovec part;

  if (!read_arguments(env, info, 3, arguments) || !read_int32(env, arguments[0], "socketFd", 0, &socket_fd) ||
      !read_bytes(env, arguments[1], "buffer", &target) ||
      !read_int32(env, arguments[2], "timeoutMs", -1, &timeout_ms))
    return NULL;

  struct pollfd wait = {.fd = socket_fd, .events = POLLIN};
  const int ready = poll(&wait, 1, timeout_ms);

  if (ready < 0 && errno != EINTR)
    return throw_system_error(env, "poll", errno);
  if (ready <= 0)
    return napi_get_null(env, &result) == napi_ok ? result : NULL;

  memset(&message, 0, sizeof(message));
  part.iov_base = target.data;
  part.iov_len = target.length;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.space;
  message.msg_controllen = sizeof(control.space);
  const ssize_t length = recvmsg(socket_fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

  if (length < 0)
    return throw_system_error(env, "recvmsg", errno);
  const int fd = take_descriptor(&message);

  if (message.msg_flags & MSG_TRUNC) {
    if (fd >= 0)
      close(fd);
    return throw_system_error(env, "recvmsg", EMSGSIZE);
  }
  if (napi_create_object(env, &result) != napi_ok || !set_property(env, result, "fd", number_value(env, fd)) ||
      !set_property(env, result, "length", number_value(env, (double)length))) {
    if (fd >= 0)
      close(fd);
    return NULL;
  }
  return result;
}

bool export_descriptors(napi_env env, napi_value exports) {
  return export_function(env, exports, "socketPair", socket_pair) &&
         export_function(env, exports, "sendDescriptor", send_descriptor) &&
         export_function(env, exports, "receiveDescriptor", receive_descriptor);
}
