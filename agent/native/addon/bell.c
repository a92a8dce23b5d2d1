// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "bell.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void ring(struct bell *bell) {
  /* Arming meanwhile may be lost: the callback looks and arms again. */
  if (bell->wish != NULL)
    atomic_store(bell->wish, 0);
  atomic_store(&bell->is_armed, false);
  /* Fails only while the environment ends. */
  napi_call_threadsafe_function(bell->callback, NULL, napi_tsfn_nonblocking);
}

static void run(void *argument) {
  struct bell *bell = argument;

  while (!atomic_load(&bell->is_stopping)) {
    struct pollfd waits[] = {{.fd = bell->changed, .events = POLLIN}, {.fd = bell->source, .events = POLLIN}};
    const bool is_armed = atomic_load(&bell->is_armed);
    eventfd_t count;

    if (poll(waits, is_armed ? 2 : 1, -1) < 0 && errno != EINTR)
      return;
    if (waits[0].revents != 0)
      eventfd_read(bell->changed, &count);
    /* An error of the source is for whoever reads it. */
    if (is_armed && waits[1].revents != 0)
      ring(bell);
  }
}

static int start_thread(struct bell *bell) {
  const uv_thread_options_t options = {.flags = UV_THREAD_HAS_STACK_SIZE, .stack_size = 64 * 1024};
  sigset_t all, before;

  /* Signals are for the other threads. On Linux this is the thread's own mask. */
  sigfillset(&all);
  sigprocmask(SIG_BLOCK, &all, &before);
  const int error = uv_thread_create_ex(&bell->thread, &options, run, bell);

  sigprocmask(SIG_SETMASK, &before, NULL);
  return -error;
}

int bell_start(struct bell *bell, napi_env env, napi_value callback, int source, _Atomic uint64_t *wish) {
  napi_value name;

  if (bell->is_running)
    return EBUSY;
  bell->source = source;
  bell->wish = wish;
  bell->changed = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (bell->changed < 0)
    return errno;
  if (napi_create_string_utf8(env, "cordon bell", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_threadsafe_function(env, callback, NULL, name, 0, 1, NULL, NULL, NULL, NULL, &bell->callback) !=
          napi_ok) {
    close(bell->changed);
    return ENOMEM;
  }
  /* Waiting for something to happen is no reason for the process to stay. */
  napi_unref_threadsafe_function(env, bell->callback);
  const int error = start_thread(bell);

  if (error != 0) {
    napi_release_threadsafe_function(bell->callback, napi_tsfn_abort);
    close(bell->changed);
    return error;
  }
  bell->is_running = true;
  return 0;
}

void bell_arm(struct bell *bell) {
  if (!bell->is_running)
    return;
  /* Before the thread asks whether something waits already: what comes after that knows of the wish. */
  if (bell->wish != NULL)
    atomic_store(bell->wish, 1);
  atomic_store(&bell->is_armed, true);
  eventfd_write(bell->changed, 1);
}

void bell_stop(struct bell *bell) {
  if (!bell->is_running)
    return;
  atomic_store(&bell->is_stopping, true);
  eventfd_write(bell->changed, 1);
  uv_thread_join(&bell->thread);
  close(bell->changed);
  napi_release_threadsafe_function(bell->callback, napi_tsfn_abort);
  *bell = (struct bell){0};
}
