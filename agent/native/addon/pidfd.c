// SPDX-License-Identifier: Apache-2.0
/* Processes by descriptor (pidfd_open(2)): a signal sent through one never reaches a reused pid. */
#define _GNU_SOURCE
#include "node.h"

#include <errno.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Older C libraries know neither call; the numbers are the same on every architecture. */
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

/* pidfdOpen(pid): fd, closed with fs.closeSync */
static napi_value pidfd_open_process(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  int32_t pid;

  if (!read_arguments(env, info, 1, arguments) || !read_int32(env, arguments[0], "pid", 1, &pid))
    return NULL;
  /* The kernel sets close-on-exec itself. */
  const long fd = syscall(SYS_pidfd_open, pid, 0);

  if (fd < 0)
    return throw_system_error(env, "pidfd_open", errno);
  return number_value(env, (double)fd);
}

/* pidfdSendSignal(fd, signal): signal 0 only asks whether it could be sent */
static napi_value pidfd_signal(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  int32_t fd, signal_number;

  if (!read_arguments(env, info, 2, arguments) || !read_int32(env, arguments[0], "fd", 0, &fd) ||
      !read_int32(env, arguments[1], "signal", 0, &signal_number))
    return NULL;
  if (syscall(SYS_pidfd_send_signal, fd, signal_number, NULL, 0) < 0)
    return throw_system_error(env, "pidfd_send_signal", errno);
  return undefined_value(env);
}

/* pidfdWaitExited(fd, timeoutMs): whether the process has ended */
static napi_value pidfd_wait_exited(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  int32_t fd, timeout_ms;

  if (!read_arguments(env, info, 2, arguments) || !read_int32(env, arguments[0], "fd", 0, &fd) ||
      !read_int32(env, arguments[1], "timeoutMs", 0, &timeout_ms))
    return NULL;
  struct pollfd wait = {.fd = fd, .events = POLLIN};
  const int ready = poll(&wait, 1, timeout_ms);

  if (ready < 0 && errno != EINTR)
    return throw_system_error(env, "poll", errno);
  if (ready > 0 && (wait.revents & POLLNVAL))
    return throw_system_error(env, "poll", EBADF);
  return boolean_value(env, ready > 0);
}

bool export_pidfd(napi_env env, napi_value exports) {
  return export_function(env, exports, "pidfdOpen", pidfd_open_process) &&
         export_function(env, exports, "pidfdSendSignal", pidfd_signal) &&
         export_function(env, exports, "pidfdWaitExited", pidfd_wait_exited);
}
