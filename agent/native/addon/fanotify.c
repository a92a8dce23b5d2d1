// SPDX-License-Identifier: Apache-2.0
/* One fanotify group that only notifies: it never holds a process up, whatever the agent does. */
#define _GNU_SOURCE
#include "node.h"

#include "fanotify_names.h"
#include "file_events.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <unistd.h>

static const napi_type_tag group_tag = {0x5f1d0c9a77e84b23, 0xb1f49e0d2c6a4f58};

#define WATCHED (FAN_CREATE | FAN_CLOSE_WRITE | FAN_DELETE | FAN_ONDIR)

static void forget_mark(struct file_events *events, int index) {
  free(events->marks[index].mount_point);
  events->marks[index] = events->marks[--events->mark_count];
}

static void release(struct file_events *events) {
  /* First, because their threads read the group. */
  bell_stop(&events->bell);
  queue_relief_stop(&events->relief);
  if (events->group >= 0)
    close(events->group);
  events->group = -1;
  while (events->mark_count > 0)
    forget_mark(events, events->mark_count - 1);
  directory_cache_clear(&events->directories);
}

static void finalize(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  release(data);
  free(data);
}

/* Until the first call of fanotifyTrim, which says another. */
#define WAITING_EVENTS_MAX 200000

/* fanotifyOpen(): handle. The queue is bounded by queue_relief.h alone. */
static napi_value open_group(napi_env env, napi_callback_info info) {
  (void)info;
  const unsigned int flags = FAN_CLASS_NOTIF | FAN_REPORT_DFID_NAME | FAN_CLOEXEC | FAN_NONBLOCK;
  struct file_events *events = calloc(1, sizeof(*events));

  if (events == NULL)
    return throw_system_error(env, "calloc", ENOMEM);
  events->group = fanotify_init(flags | FAN_UNLIMITED_QUEUE, O_RDONLY | O_CLOEXEC);
  if (events->group < 0) {
    const int error = errno;

    free(events);
    return throw_system_error(env, "fanotify_init", error);
  }
  const int error = queue_relief_start(&events->relief, events->group, WAITING_EVENTS_MAX);

  if (error != 0) {
    close(events->group);
    free(events);
    return throw_system_error(env, "uv_thread_create", error);
  }
  return create_handle(env, events, finalize, &group_tag);
}

static struct file_events *read_group(napi_env env, napi_value value) {
  void *data;

  if (!read_handle(env, value, &group_tag, &data))
    return NULL;
  struct file_events *events = data;

  if (events->group < 0) {
    throw_system_error(env, "fanotify handle", EBADF);
    return NULL;
  }
  return events;
}

static int find_mark(const struct file_events *events, const char *mount_point) {
  for (int index = 0; index < events->mark_count; index++) {
    if (strcmp(events->marks[index].mount_point, mount_point) == 0)
      return index;
  }
  return -1;
}

/* fanotifyMark(handle, mountPoint, root): whether renames are told with both names (from Linux 5.17) */
static napi_value add_mark(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  char path[PATH_MAX];
  /* A byte more than fits, because read_path keeps one free. */
  char root[PATH_PREFIX_BYTES_MAX + 1];
  struct statfs status;
  bool tells_rename = true;
  const unsigned int flags = FAN_MARK_ADD | FAN_MARK_FILESYSTEM;

  if (!read_arguments(env, info, 3, arguments))
    return NULL;
  struct file_events *events = read_group(env, arguments[0]);

  if (events == NULL || !read_path(env, arguments[1], "mountPoint", path, sizeof(path)) ||
      !read_path(env, arguments[2], "root", root, sizeof(root)))
    return NULL;
  if (events->mark_count == MARKED_FILESYSTEMS_MAX)
    return throw_system_error(env, "fanotify_mark", ENOSPC);
  if (statfs(path, &status) < 0)
    return throw_system_error(env, "statfs", errno);
  if (fanotify_mark(events->group, flags, WATCHED | FAN_RENAME, AT_FDCWD, path) < 0) {
    if (errno != EINVAL)
      return throw_system_error(env, "fanotify_mark", errno);
    tells_rename = false;
    if (fanotify_mark(events->group, flags, WATCHED | FAN_MOVED_TO, AT_FDCWD, path) < 0)
      return throw_system_error(env, "fanotify_mark", errno);
  }
  const int known = find_mark(events, path);

  if (known >= 0)
    forget_mark(events, known);
  struct marked_filesystem *mark = &events->marks[events->mark_count];

  mark->mount_point = strdup(path);
  if (mark->mount_point == NULL)
    return throw_system_error(env, "strdup", ENOMEM);
  mark->mount = -1;
  /* The agent's own root adds nothing. */
  strcpy(mark->path_prefix, strcmp(root, "/") == 0 ? "" : root);
  memcpy(mark->id, &status.f_fsid, sizeof(mark->id));
  events->mark_count++;
  return boolean_value(env, tells_rename);
}

/* fanotifyForget(handle, mountPoint): for one that was unmounted, which took its mark with it */
static napi_value forget(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  char path[PATH_MAX];

  if (!read_arguments(env, info, 2, arguments))
    return NULL;
  struct file_events *events = read_group(env, arguments[0]);

  if (events == NULL || !read_path(env, arguments[1], "mountPoint", path, sizeof(path)))
    return NULL;
  const int known = find_mark(events, path);

  if (known >= 0)
    forget_mark(events, known);
  return undefined_value(env);
}

/* fanotifyDrain(handle, buffer): bytes packed */
static napi_value drain(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  struct bytes target;

  if (!read_arguments(env, info, 2, arguments))
    return NULL;
  struct file_events *events = read_group(env, arguments[0]);

  if (events == NULL || !read_bytes(env, arguments[1], "buffer", &target))
    return NULL;
  if (target.length < PACKED_RECORD_BYTES_MAX)
    return throw_invalid_argument(env, "buffer must have at least 16384 bytes");
  const long written = file_events_drain(events, target.data, target.length);

  if (written < 0)
    return throw_system_error(env, "read of the fanotify group", errno);
  return number_value(env, (double)written);
}

/* fanotifyBell(handle, callback): see bell.h. Once. */
static napi_value start_bell(napi_env env, napi_callback_info info) {
  napi_value arguments[2];

  if (!read_arguments(env, info, 2, arguments))
    return NULL;
  struct file_events *events = read_group(env, arguments[0]);

  if (events == NULL || !read_function(env, arguments[1], "callback"))
    return NULL;
  const int error = bell_start(&events->bell, env, arguments[1], events->group, NULL);

  return error != 0 ? throw_system_error(env, "uv_thread_create", error) : undefined_value(env);
}

/* fanotifyArmBell(handle): the callback is called once, when something waits */
static napi_value arm_bell(napi_env env, napi_callback_info info) {
  napi_value arguments[1];

  if (!read_arguments(env, info, 1, arguments))
    return NULL;
  struct file_events *events = read_group(env, arguments[0]);

  if (events == NULL)
    return NULL;
  bell_arm(&events->bell);
  return undefined_value(env);
}

/* fanotifyTrim(handle, waitingMax): discards and counts what waits beyond it, now and from now on */
static napi_value trim(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  int32_t waiting_max;

  if (!read_arguments(env, info, 2, arguments))
    return NULL;
  struct file_events *events = read_group(env, arguments[0]);

  if (events == NULL || !read_int32(env, arguments[1], "waitingMax", 0, &waiting_max))
    return NULL;
  queue_relief_trim(&events->relief, (uint32_t)waiting_max);
  return undefined_value(env);
}

/* fanotifyDiscarded(handle, buffer): bytes of struct discarded_events, which are counted anew from then on */
static napi_value take_discarded(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  struct bytes target;

  if (!read_arguments(env, info, 2, arguments))
    return NULL;
  struct file_events *events = read_group(env, arguments[0]);

  if (events == NULL || !read_bytes(env, arguments[1], "buffer", &target))
    return NULL;
  return number_value(env, (double)queue_relief_take(&events->relief, target.data, target.length));
}

/* fanotifyClose(handle): a second call does nothing. */
static napi_value close_group(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  void *data;

  if (!read_arguments(env, info, 1, arguments) || !read_handle(env, arguments[0], &group_tag, &data))
    return NULL;
  release(data);
  return undefined_value(env);
}

bool export_fanotify(napi_env env, napi_value exports) {
  return export_function(env, exports, "fanotifyOpen", open_group) &&
         export_function(env, exports, "fanotifyMark", add_mark) &&
         export_function(env, exports, "fanotifyForget", forget) &&
         export_function(env, exports, "fanotifyDrain", drain) &&
         export_function(env, exports, "fanotifyBell", start_bell) &&
         export_function(env, exports, "fanotifyArmBell", arm_bell) &&
         export_function(env, exports, "fanotifyTrim", trim) &&
         export_function(env, exports, "fanotifyDiscarded", take_discarded) &&
         export_function(env, exports, "fanotifyClose", close_group);
}
