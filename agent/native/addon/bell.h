// SPDX-License-Identifier: Apache-2.0
/*
 * Tells JavaScript once that a source has something to fetch, so that the agent sleeps while there is nothing. On a
 * virtual machine each wake-up costs (a thread that only looked took 66 us, a timer of Node that found nothing 300),
 * so a thread waits in the kernel until the source is readable, and nobody looks every few milliseconds.
 */
#ifndef CORDON_BELL_H
#define CORDON_BELL_H

#include "node.h"

#include <stdatomic.h>
#include <uv.h>

struct bell {
  /* A descriptor that poll(2) calls readable when something waits. Not owned. */
  int source;
  /* Where whoever fills the source is told that the agent wants to be woken; may be NULL. */
  _Atomic uint64_t *wish;
  napi_threadsafe_function callback;
  uv_thread_t thread;
  /* An eventfd: the thread has something to see to. */
  int changed;
  atomic_bool is_armed;
  atomic_bool is_stopping;
  bool is_running;
};

/* Starts the thread of a bell that is all zero. Returns 0, or an errno. */
int bell_start(struct bell *bell, napi_env env, napi_value callback, int source, _Atomic uint64_t *wish);
/* From now on the callback is called once, as soon as there is something. Does nothing when it does not run. */
void bell_arm(struct bell *bell);
/* Returns once the thread has ended; the callback is not called any more. Does nothing when it does not run. */
void bell_stop(struct bell *bell);

#endif
