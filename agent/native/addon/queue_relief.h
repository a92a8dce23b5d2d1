// SPDX-License-Identifier: Apache-2.0
/*
 * Bounds a fanotify queue that the kernel does not bound (FAN_UNLIMITED_QUEUE), and counts to the unit what that
 * costs: the kernel's own bound drops events without saying how many. A waiting event is kernel memory of 130
 * bytes and more, by its name (fanotify_name_event), charged to the memory cgroup of the process that opened the
 * group (fanotify_init(2), mm/memcontrol.c); it is allocated with __GFP_NOFAIL, so without a bound a stalled agent
 * would be ended for lack of memory. A thread looks once a second, so that the bound holds while the agent's main
 * thread stands still. Counting what waits holds the queue's lock for as long as the queue is (150,000 events took
 * 20 ms), and so is done only when the queue was not emptied for a while.
 */
#ifndef CORDON_QUEUE_RELIEF_H
#define CORDON_QUEUE_RELIEF_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#define RELIEF_BUFFER_BYTES 65536
#define DISCARDED_PROCESSES_MAX 256

/* Packed as it is for `agent/sensors/fanotify/discarded-events.ts`. */
struct discarded_events {
  int32_t pid; /* 0: of processes that had no room in the table, or that the kernel does not name */
  uint32_t creations;
  uint32_t modifications;
  uint32_t deletions;
  uint32_t renames;
};

struct queue_relief {
  int group;
  /* Held while the queue is trimmed and while what follows is read or written. */
  uv_mutex_t lock;
  uv_cond_t stop_asked;
  uv_thread_t thread;
  bool is_running;
  bool is_stopping;
  uint32_t waiting_max;
  /* The queue was seen empty since the thread looked last. */
  atomic_bool was_emptied;
  /* A directory was renamed by an event that nobody saw: known paths may no longer be true. */
  bool directory_renamed;
  int process_count;
  /* The first is the one of pid 0. */
  struct discarded_events processes[1 + DISCARDED_PROCESSES_MAX];
  _Alignas(8) uint8_t buffer[RELIEF_BUFFER_BYTES];
};

/* Starts the thread. Returns 0, or an errno. */
int queue_relief_start(struct queue_relief *relief, int group, uint32_t waiting_max);
/* Returns once the thread has ended. Does nothing when it does not run. */
void queue_relief_stop(struct queue_relief *relief);
/* Discards the oldest events until at most `waiting_max` wait. */
void queue_relief_trim(struct queue_relief *relief, uint32_t waiting_max);
/* Moves what was counted into `target` and starts again at nothing; returns the bytes written. */
size_t queue_relief_take(struct queue_relief *relief, uint8_t *target, size_t capacity);
/* Whether a discarded event renamed a directory since the last call. */
bool queue_relief_take_directory_renamed(struct queue_relief *relief);

#endif
