// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "queue_relief.h"

#include "fanotify_names.h"

#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define LOOK_INTERVAL_NS 1000000000ull

static struct discarded_events *counts_of(struct queue_relief *relief, int32_t pid) {
  if (pid <= 0)
    return &relief->processes[0];
  /* From the newest: what floods the queue was there a moment ago. */
  for (int index = relief->process_count; index >= 1; index--) {
    if (relief->processes[index].pid == pid)
      return &relief->processes[index];
  }
  if (relief->process_count == DISCARDED_PROCESSES_MAX)
    return &relief->processes[0];
  struct discarded_events *added = &relief->processes[++relief->process_count];

  *added = (struct discarded_events){.pid = pid};
  return added;
}

/* Counts what the decoder would have told: a creation with its write is one creation, folders only when renamed. */
static void count(struct queue_relief *relief, const struct fanotify_event_metadata *event) {
  const uint64_t mask = event->mask;
  const bool is_rename = (mask & (FAN_RENAME | FAN_MOVED_TO)) != 0;

  if (mask & FAN_ONDIR) {
    if (!is_rename)
      return;
    relief->directory_renamed = true;
  }
  struct discarded_events *counts = counts_of(relief, event->pid);

  if (mask & FAN_CREATE)
    counts->creations++;
  else if (mask & FAN_CLOSE_WRITE)
    counts->modifications++;
  if (is_rename)
    counts->renames++;
  if (mask & FAN_DELETE)
    counts->deletions++;
}

/* Reads one buffer of events and counts them. Returns how many there were. */
static uint32_t discard(struct queue_relief *relief) {
  const ssize_t length = read(relief->group, relief->buffer, sizeof(relief->buffer));
  const uint8_t *position = relief->buffer;
  uint32_t events = 0;

  for (ssize_t remaining = length; remaining >= (ssize_t)sizeof(struct fanotify_event_metadata); events++) {
    const struct fanotify_event_metadata *event = (const void *)position;

    if (event->event_len < sizeof(*event) || event->event_len > remaining)
      break;
    count(relief, event);
    position += event->event_len;
    remaining -= event->event_len;
  }
  return events;
}

static void trim(struct queue_relief *relief) {
  int waiting_bytes = 0;

  /* The kernel answers with the size of the fixed part of an event for each that waits. */
  if (ioctl(relief->group, FIONREAD, &waiting_bytes) < 0 || waiting_bytes < 0)
    return;
  const uint32_t waiting = (uint32_t)waiting_bytes / FAN_EVENT_METADATA_LEN;
  uint32_t excess = waiting > relief->waiting_max ? waiting - relief->waiting_max : 0;

  while (excess > 0) {
    const uint32_t discarded = discard(relief);

    if (discarded == 0)
      return;
    excess -= discarded < excess ? discarded : excess;
  }
}

static void run(void *argument) {
  struct queue_relief *relief = argument;

  uv_mutex_lock(&relief->lock);
  while (!relief->is_stopping) {
    uv_cond_timedwait(&relief->stop_asked, &relief->lock, LOOK_INTERVAL_NS);
    if (!atomic_exchange(&relief->was_emptied, false) && !relief->is_stopping)
      trim(relief);
  }
  uv_mutex_unlock(&relief->lock);
}

int queue_relief_start(struct queue_relief *relief, int group, uint32_t waiting_max) {
  sigset_t all, before;

  relief->group = group;
  relief->waiting_max = waiting_max;
  int error = uv_mutex_init(&relief->lock);

  if (error != 0)
    return -error;
  error = uv_cond_init(&relief->stop_asked);
  if (error == 0) {
    /* Signals are for the other threads. Not pthread_sigmask, which asks for glibc 2.32: on Linux the two are one. */
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    error = uv_thread_create(&relief->thread, run, relief);
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (error == 0) {
      relief->is_running = true;
      return 0;
    }
    uv_cond_destroy(&relief->stop_asked);
  }
  uv_mutex_destroy(&relief->lock);
  return -error;
}

void queue_relief_stop(struct queue_relief *relief) {
  if (!relief->is_running)
    return;
  uv_mutex_lock(&relief->lock);
  relief->is_stopping = true;
  uv_cond_signal(&relief->stop_asked);
  uv_mutex_unlock(&relief->lock);
  uv_thread_join(&relief->thread);
  uv_cond_destroy(&relief->stop_asked);
  uv_mutex_destroy(&relief->lock);
  relief->is_running = false;
}

void queue_relief_trim(struct queue_relief *relief, uint32_t waiting_max) {
  uv_mutex_lock(&relief->lock);
  relief->waiting_max = waiting_max;
  trim(relief);
  uv_mutex_unlock(&relief->lock);
}

static bool is_empty(const struct discarded_events *counts) {
  return (counts->creations | counts->modifications | counts->deletions | counts->renames) == 0;
}

size_t queue_relief_take(struct queue_relief *relief, uint8_t *target, size_t capacity) {
  size_t written = 0;

  uv_mutex_lock(&relief->lock);
  while (relief->process_count >= 0 && written + sizeof(struct discarded_events) <= capacity) {
    struct discarded_events *counts = &relief->processes[relief->process_count];

    if (!is_empty(counts)) {
      memcpy(target + written, counts, sizeof(*counts));
      written += sizeof(*counts);
    }
    *counts = (struct discarded_events){0};
    if (relief->process_count == 0)
      break;
    relief->process_count--;
  }
  uv_mutex_unlock(&relief->lock);
  return written;
}

bool queue_relief_take_directory_renamed(struct queue_relief *relief) {
  uv_mutex_lock(&relief->lock);
  const bool result = relief->directory_renamed;

  relief->directory_renamed = false;
  uv_mutex_unlock(&relief->lock);
  return result;
}
