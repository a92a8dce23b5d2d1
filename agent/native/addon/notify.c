// SPDX-License-Identifier: Apache-2.0
/* One datagram to the service manager (sd_notify(3)): Node has no datagram sockets of the unix family. */
#define _GNU_SOURCE
#include "node.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* notifyService(socketPath, payload): a path that begins with @ is a name in the abstract namespace */
static napi_value notify_service(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  struct bytes payload;
  struct sockaddr_un address = {.sun_family = AF_UNIX};

  if (!read_arguments(env, info, 2, arguments) ||
      !read_path(env, arguments[0], "socketPath", address.sun_path, sizeof(address.sun_path)) ||
      !read_bytes(env, arguments[1], "payload", &payload))
    return NULL;
  const size_t length = strlen(address.sun_path);

  if (address.sun_path[0] == '@')
    address.sun_path[0] = '\0';
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

  if (fd < 0)
    return throw_system_error(env, "socket", errno);
  /* A manager that does not read must not hold the agent: what does not fit is not sent. */
  const ssize_t sent = sendto(fd, payload.data, payload.length, MSG_DONTWAIT | MSG_NOSIGNAL,
                              (struct sockaddr *)&address, offsetof(struct sockaddr_un, sun_path) + length);
  const int error_number = errno;

  close(fd);
  if (sent < 0)
    return throw_system_error(env, "sendto", error_number);
  return undefined_value(env);
}

bool export_notify(napi_env env, napi_value exports) {
  return export_function(env, exports, "notifyService", notify_service);
}
