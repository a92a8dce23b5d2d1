// SPDX-License-Identifier: Apache-2.0
/*
 * File events with paths: reads a fanotify group, turns directory handles into paths and packs the result for
 * `agent/sensors/fanotify/file-event-decoder.ts`, which reads it by the same offsets.
 */
#ifndef CORDON_FILE_EVENTS_H
#define CORDON_FILE_EVENTS_H

#include "bell.h"
#include "directory_cache.h"
#include "queue_relief.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MARKED_FILESYSTEMS_MAX 1024
#define EVENT_BUFFER_BYTES 65536
/* What leads to a mount that only a process of another mount namespace sees, such as /proc/4194304/root. */
#define PATH_PREFIX_BYTES_MAX 64
#define DIRECTORY_BYTES_MAX (PATH_MAX + PATH_PREFIX_BYTES_MAX)
/* Two directories, two names and a link's target beside the header: what one record can need at most. */
#define PACKED_RECORD_BYTES_MAX (48 + 2 * (DIRECTORY_BYTES_MAX + 256) + PATH_MAX)

struct packed_event {
  uint32_t length; /* 0: of the record, a multiple of 8 */
  uint32_t mask; /* 4: as fanotify(7) */
  int32_t pid; /* 8: 0 when the kernel does not say */
  int32_t error; /* 12: errno when the directory has no path any more, else 0 */
  uint16_t directory_bytes; /* 16 */
  uint16_t name_bytes; /* 18 */
  uint16_t old_directory_bytes; /* 20 */
  uint16_t old_name_bytes; /* 22 */
  uint32_t mode; /* 24: st_mode of a new name; 0 when it was not there any more */
  uint32_t links; /* 28: st_nlink */
  uint16_t target_bytes; /* 32: what a symbolic link says */
  uint16_t looked_at; /* 34: 1 when the name was looked at */
  uint32_t reserved; /* 36 */
  /* 40: directory, name, old directory, old name, target. */
};

struct marked_filesystem {
  uint8_t id[8];
  /* Open only while a batch is read: an open descriptor would keep the file system from being unmounted. */
  int mount;
  char *mount_point;
  /* Stands before the paths that come out of this mount; empty for those of the agent's own namespace. */
  char path_prefix[PATH_PREFIX_BYTES_MAX];
};

/* The directory that was opened last, kept while a batch is read: what comes in a row is mostly in one. */
struct open_directory {
  int descriptor;
  uint16_t key_bytes;
  uint8_t key[DIRECTORY_KEY_BYTES_MAX];
  const struct marked_filesystem *mark;
};

struct file_events {
  int group;
  struct marked_filesystem marks[MARKED_FILESYSTEMS_MAX];
  int mark_count;
  struct directory_cache directories;
  struct open_directory directory;
  struct queue_relief relief;
  struct bell bell;
  size_t filled;
  size_t position;
  _Alignas(8) uint8_t buffer[EVENT_BUFFER_BYTES];
};

/* Packs what is there, up to `capacity`; returns the bytes written, or -1 with errno. */
long file_events_drain(struct file_events *events, uint8_t *target, size_t capacity);

#endif
