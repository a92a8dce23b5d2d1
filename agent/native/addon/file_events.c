// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "file_events.h"

#include "fanotify_names.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The kernel's record of one directory and one name, taken apart; pointers into the event buffer. */
struct named_entry {
  const uint8_t *filesystem_id;
  const uint8_t *handle;
  uint16_t handle_bytes;
  const char *name;
  uint16_t name_bytes;
};

struct resolved_directory {
  const char *path;
  uint16_t path_bytes;
  int error;
};

/* Returns the mark with its mount, opened for this batch; null with errno. */
static const struct marked_filesystem *open_mount(struct file_events *events, const uint8_t *filesystem_id) {
  for (int index = 0; index < events->mark_count; index++) {
    struct marked_filesystem *mark = &events->marks[index];
    struct statfs status;

    if (memcmp(mark->id, filesystem_id, sizeof(mark->id)) != 0)
      continue;
    if (mark->mount >= 0)
      return mark;
    mark->mount = open(mark->mount_point, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);
    /* Something else may be mounted there by now. */
    if (mark->mount >= 0 && (fstatfs(mark->mount, &status) < 0 || memcmp(&status.f_fsid, mark->id, 8) != 0)) {
      close(mark->mount);
      mark->mount = -1;
      errno = ESTALE;
    }
    return mark->mount < 0 ? NULL : mark;
  }
  errno = ENODEV;
  return NULL;
}

static void close_mounts(struct file_events *events) {
  for (int index = 0; index < events->mark_count; index++) {
    if (events->marks[index].mount >= 0)
      close(events->marks[index].mount);
    events->marks[index].mount = -1;
  }
}

static void close_directory(struct file_events *events) {
  if (events->directory.key_bytes > 0)
    close(events->directory.descriptor);
  events->directory.key_bytes = 0;
}

static uint16_t write_key(const struct named_entry *entry, uint8_t key[DIRECTORY_KEY_BYTES_MAX]) {
  memcpy(key, entry->filesystem_id, 8);
  memcpy(key + 8, entry->handle, entry->handle_bytes);
  return (uint16_t)(8 + entry->handle_bytes);
}

/* Opens the directory that the handle names, or finds it open. Null with errno. */
static const struct open_directory *open_directory(struct file_events *events, const struct named_entry *entry) {
  struct open_directory *directory = &events->directory;
  _Alignas(8) uint8_t handle[DIRECTORY_KEY_BYTES_MAX];
  uint8_t key[DIRECTORY_KEY_BYTES_MAX];
  const uint16_t key_bytes = write_key(entry, key);

  if (directory->key_bytes == key_bytes && memcmp(directory->key, key, key_bytes) == 0)
    return directory;
  const struct marked_filesystem *mark = open_mount(events, entry->filesystem_id);

  if (mark == NULL)
    return NULL;
  memcpy(handle, entry->handle, entry->handle_bytes);
  const int descriptor = open_by_handle_at(mark->mount, (struct file_handle *)(void *)handle, O_PATH | O_CLOEXEC);

  if (descriptor < 0)
    return NULL;
  close_directory(events);
  *directory = (struct open_directory){.descriptor = descriptor, .key_bytes = key_bytes, .mark = mark};
  memcpy(directory->key, key, key_bytes);
  return directory;
}

/* Writes the path of the directory that the handle names. Returns its length, or -1 with errno. */
static int read_directory_path(struct file_events *events, const struct named_entry *entry,
                               char path[DIRECTORY_BYTES_MAX]) {
  const struct open_directory *directory = open_directory(events, entry);
  char link[32];

  if (directory == NULL)
    return -1;
  const size_t prefix_bytes = strlen(directory->mark->path_prefix);

  memcpy(path, directory->mark->path_prefix, prefix_bytes);
  snprintf(link, sizeof(link), "/proc/self/fd/%d", directory->descriptor);
  const ssize_t length = readlink(link, path + prefix_bytes, PATH_MAX);

  if (length == PATH_MAX)
    errno = ENAMETOOLONG;
  return length < 0 || length == PATH_MAX ? -1 : (int)prefix_bytes + (int)length;
}

static bool ends_with_deleted(const char *path, int length) {
  static const char suffix[] = " (deleted)";
  const int suffix_bytes = (int)sizeof(suffix) - 1;

  return length > suffix_bytes && memcmp(path + length - suffix_bytes, suffix, (size_t)suffix_bytes) == 0;
}

static struct resolved_directory resolve(struct file_events *events, const struct named_entry *entry) {
  struct directory_cache *cache = &events->directories;
  uint8_t key[DIRECTORY_KEY_BYTES_MAX];
  char path[DIRECTORY_BYTES_MAX];
  const uint16_t key_bytes = write_key(entry, key);
  struct directory_entry *slot = directory_cache_slot(cache, key, key_bytes);

  if (slot->path == NULL || slot->batch != cache->batch) {
    const int length = read_directory_path(events, entry, path);
    const int error = errno;

    /* A removed directory that somebody still holds: what it was called last is better without the suffix. */
    if (length > 0 && !(ends_with_deleted(path, length) && slot->path != NULL))
      directory_cache_store(cache, slot, path, (uint16_t)length);
    else if (length <= 0 && (slot->path == NULL || slot->generation != cache->generation))
      return (struct resolved_directory){.error = error == 0 ? EIO : error};
  }
  if (slot->path == NULL)
    return (struct resolved_directory){.error = ENOMEM};
  return (struct resolved_directory){.path = slot->path, .path_bytes = slot->path_bytes};
}

/* Says what a new name leads to, without following it. Returns the bytes of a link's target, kept in `target`. */
static size_t look_at(struct file_events *events, const struct named_entry *entry, struct packed_event *packed,
                      char target[PATH_MAX]) {
  const struct open_directory *directory = open_directory(events, entry);
  struct stat status;
  char name[NAME_MAX + 1];

  packed->looked_at = 1;
  memcpy(name, entry->name, entry->name_bytes);
  name[entry->name_bytes] = 0;
  /* The call itself: the wrapper would ask for glibc 2.33. */
  if (directory == NULL || syscall(SYS_newfstatat, directory->descriptor, name, &status,
                                   AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
    return 0;
  packed->mode = status.st_mode;
  packed->links = status.st_nlink > UINT32_MAX ? UINT32_MAX : (uint32_t)status.st_nlink;
  const ssize_t length = S_ISLNK(status.st_mode) ? readlinkat(directory->descriptor, name, target, PATH_MAX) : 0;

  return length > 0 ? (size_t)length : 0;
}

/* Takes one information record apart. False when it is not of this kind or does not hold together. */
static bool parse_entry(const uint8_t *record, uint16_t length, struct named_entry *entry) {
  /* struct fanotify_event_info_fid: 4 bytes of header, 8 of file system id, then struct file_handle. */
  const uint16_t handle_offset = 12;
  uint32_t opaque_bytes;

  if (length < handle_offset + 8)
    return false;
  memcpy(&opaque_bytes, record + handle_offset, sizeof(opaque_bytes));
  if (opaque_bytes > 128 || (uint32_t)handle_offset + 8 + opaque_bytes > length)
    return false;
  entry->filesystem_id = record + 4;
  entry->handle = record + handle_offset;
  entry->handle_bytes = (uint16_t)(8 + opaque_bytes);
  entry->name = (const char *)(entry->handle + entry->handle_bytes);
  entry->name_bytes = (uint16_t)strnlen(entry->name, (size_t)(length - handle_offset - entry->handle_bytes));
  return entry->name_bytes <= NAME_MAX;
}

static uint8_t *append(uint8_t *end, const void *bytes, size_t length) {
  if (length > 0)
    memcpy(end, bytes, length);
  return end + length;
}

/* Packs one event of the kernel and returns the bytes written. */
static size_t pack(struct file_events *events, const struct fanotify_event_metadata *event, uint8_t *target) {
  struct packed_event packed = {.mask = (uint32_t)event->mask, .pid = event->pid};
  struct named_entry current = {0}, old = {0};
  const uint8_t *record = (const uint8_t *)event + event->metadata_len;
  const uint8_t *end = (const uint8_t *)event + event->event_len;
  uint8_t *write = target + sizeof(packed);

  while (record + 4 <= end) {
    uint16_t length;

    memcpy(&length, record + 2, sizeof(length));
    if (length < 4 || record + length > end)
      break;
    if (record[0] == FAN_EVENT_INFO_TYPE_OLD_DFID_NAME)
      parse_entry(record, length, &old);
    else if (record[0] == FAN_EVENT_INFO_TYPE_DFID_NAME || record[0] == FAN_EVENT_INFO_TYPE_NEW_DFID_NAME)
      parse_entry(record, length, &current);
    record += length;
  }
  if (current.name_bytes > 0) {
    const struct resolved_directory directory = resolve(events, &current);

    packed.error = directory.error;
    packed.directory_bytes = directory.path_bytes;
    packed.name_bytes = current.name_bytes;
    write = append(write, directory.path, directory.path_bytes);
    write = append(write, current.name, current.name_bytes);
  }
  if (old.name_bytes > 0) {
    const struct resolved_directory directory = resolve(events, &old);

    packed.old_directory_bytes = directory.path_bytes;
    packed.old_name_bytes = old.name_bytes;
    write = append(write, directory.path, directory.path_bytes);
    write = append(write, old.name, old.name_bytes);
  }
  /* Folders that come are not told, so nobody asks what they are. */
  if (packed.directory_bytes > 0 && (event->mask & FAN_CREATE) && !(event->mask & FAN_ONDIR)) {
    char link_target[PATH_MAX];
    const size_t length = look_at(events, &current, &packed, link_target);

    packed.target_bytes = (uint16_t)length;
    write = append(write, link_target, length);
  }
  if ((event->mask & FAN_ONDIR) && (event->mask & (FAN_RENAME | FAN_MOVED_TO)))
    events->directories.generation++;
  while ((size_t)(write - target) % 8 != 0)
    *write++ = 0;
  packed.length = (uint32_t)(write - target);
  memcpy(target, &packed, sizeof(packed));
  return packed.length;
}

long file_events_drain(struct file_events *events, uint8_t *target, size_t capacity) {
  size_t written = 0;
  long result = 0;

  events->directories.batch++;
  if (queue_relief_take_directory_renamed(&events->relief))
    events->directories.generation++;
  for (;;) {
    if (events->position >= events->filled) {
      const ssize_t length = read(events->group, events->buffer, sizeof(events->buffer));

      events->position = 0;
      events->filled = length > 0 ? (size_t)length : 0;
      if (length < 0 && errno == EAGAIN)
        atomic_store(&events->relief.was_emptied, true);
      else if (length < 0 && errno != EINTR)
        result = -1;
      if (length <= 0)
        break;
    }
    struct fanotify_event_metadata *event = (void *)(events->buffer + events->position);
    const size_t remaining = events->filled - events->position;

    if (remaining < sizeof(*event) || event->event_len < sizeof(*event) || event->event_len > remaining ||
        event->metadata_len > event->event_len) {
      /* The kernel does not write such. What it may have meant is told as lost, not passed over. */
      const struct packed_event unreadable = {.length = sizeof(unreadable), .mask = FAN_Q_OVERFLOW};

      if (written + sizeof(unreadable) > capacity)
        break;
      memcpy(target + written, &unreadable, sizeof(unreadable));
      written += sizeof(unreadable);
      events->position = events->filled;
      continue;
    }
    if (written + PACKED_RECORD_BYTES_MAX > capacity)
      break;
    written += pack(events, event, target + written);
    events->position += event->event_len;
  }
  const int error = errno;

  close_directory(events);
  close_mounts(events);
  errno = error;
  return result < 0 && written == 0 ? -1 : (long)written;
}
