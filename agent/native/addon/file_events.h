// SPDX-License-Identifier: Apache-2.0
/*
 * File events with paths: reads a fanotify group, turns directory handles into paths and packs the result for
 * `agent/sensors/fanotify/file-event-decoder.ts`, which reads it by the same offsets.
 */
#ifndef CORDON_FILE_EVENTS_H
#define CORDON_FILE_EVENTS_H

#include "directory_cache.h"

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#define MARKED_FILESYSTEMS_MAX 1024
#define EVENT_BUFFER_BYTES 65536
/* Two directories and two names beside the header: what one record can need at most. */
#define PACKED_RECORD_BYTES_MAX (32 + 2 * (PATH_MAX + 256))

struct packed_event {
  uint32_t length; /* 0: of the record, a multiple of 8 */
  uint32_t mask; /* 4: as fanotify(7) */
  int32_t pid; /* 8: 0 when the kernel does not say */
  int32_t error; /* 12: errno when the directory has no path any more, else 0 */
  uint16_t directory_bytes; /* 16 */
  uint16_t name_bytes; /* 18 */
  uint16_t old_directory_bytes; /* 20 */
  uint16_t old_name_bytes; /* 22 */
  /* 24: directory, name, old directory, old name. */
};

struct marked_filesystem {
  uint8_t id[8];
  /* Open only while a batch is read: an open descriptor would keep the file system from being unmounted. */
  int mount;
  char *mount_point;
};

struct file_events {
  int group;
  struct marked_filesystem marks[MARKED_FILESYSTEMS_MAX];
  int mark_count;
  struct directory_cache directories;
  size_t filled;
  size_t position;
  _Alignas(8) uint8_t buffer[EVENT_BUFFER_BYTES];
};

/* Packs what is there, up to `capacity`; returns the bytes written, or -1 with errno. */
long file_events_drain(struct file_events *events, uint8_t *target, size_t capacity);

#endif
