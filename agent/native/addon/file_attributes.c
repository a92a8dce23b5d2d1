// SPDX-License-Identifier: Apache-2.0
/* What a file carries beside its content, through its descriptor: extended attributes and exact times. */
#define _GNU_SOURCE
#include "node.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#endif

/* XATTR_NAME_MAX, XATTR_SIZE_MAX and XATTR_LIST_MAX of linux/limits.h. */
enum { name_bytes_max = 255, value_bytes_max = 65536, list_bytes_max = 65536 };

static bool read_attribute_name(napi_env env, napi_value value, char *result) {
  struct bytes name;

  if (!read_bytes(env, value, "name", &name))
    return false;
  if (name.length == 0 || name.length > name_bytes_max || memchr(name.data, 0, name.length) != NULL) {
    throw_invalid_argument(env, "name must be 1 to 255 bytes without a zero");
    return false;
  }
  memcpy(result, name.data, name.length);
  result[name.length] = 0;
  return true;
}

/* listAttributes(fd): Buffer of names, each ended by a zero byte */
static napi_value list_attributes(napi_env env, napi_callback_info info) {
  napi_value arguments[1], result = NULL;
  int32_t fd;

  if (!read_arguments(env, info, 1, arguments) || !read_int32(env, arguments[0], "fd", 0, &fd))
    return NULL;
  char *names = malloc(list_bytes_max);

  if (names == NULL)
    return throw_system_error(env, "malloc", ENOMEM);
  const ssize_t length = flistxattr(fd, names, list_bytes_max);

  if (length < 0)
    throw_system_error(env, "flistxattr", errno);
  else if (napi_create_buffer_copy(env, (size_t)length, names, NULL, &result) != napi_ok)
    result = NULL;
  free(names);
  return result;
}

/* getAttribute(fd, name): Buffer, or null when there is none of that name */
static napi_value get_attribute(napi_env env, napi_callback_info info) {
  napi_value arguments[2], result = NULL;
  char name[name_bytes_max + 1];
  int32_t fd;

  if (!read_arguments(env, info, 2, arguments) || !read_int32(env, arguments[0], "fd", 0, &fd) ||
      !read_attribute_name(env, arguments[1], name))
    return NULL;
  char *value = malloc(value_bytes_max);

  if (value == NULL)
    return throw_system_error(env, "malloc", ENOMEM);
  const ssize_t length = fgetxattr(fd, name, value, value_bytes_max);

  if (length < 0 && errno == ENODATA)
    napi_get_null(env, &result);
  else if (length < 0)
    throw_system_error(env, "fgetxattr", errno);
  else if (napi_create_buffer_copy(env, (size_t)length, value, NULL, &result) != napi_ok)
    result = NULL;
  free(value);
  return result;
}

/* setAttribute(fd, name, value): made, or replaced when it is there */
static napi_value set_attribute(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  char name[name_bytes_max + 1];
  struct bytes value;
  int32_t fd;

  if (!read_arguments(env, info, 3, arguments) || !read_int32(env, arguments[0], "fd", 0, &fd) ||
      !read_attribute_name(env, arguments[1], name) || !read_bytes(env, arguments[2], "value", &value))
    return NULL;
  if (fsetxattr(fd, name, value.data, value.length, 0) < 0)
    return throw_system_error(env, "fsetxattr", errno);
  return undefined_value(env);
}

/* removeAttribute(fd, name): one that is not there is no error */
static napi_value remove_attribute(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  char name[name_bytes_max + 1];
  int32_t fd;

  if (!read_arguments(env, info, 2, arguments) || !read_int32(env, arguments[0], "fd", 0, &fd) ||
      !read_attribute_name(env, arguments[1], name))
    return NULL;
  if (fremovexattr(fd, name) < 0 && errno != ENODATA)
    return throw_system_error(env, "fremovexattr", errno);
  return undefined_value(env);
}

static bool read_nanoseconds(napi_env env, napi_value value, const char *name, struct timespec *result) {
  const int64_t second = 1000000000;
  int64_t total;
  bool lossless = false;

  if (napi_get_value_bigint_int64(env, value, &total, &lossless) != napi_ok || !lossless) {
    char text[96];

    snprintf(text, sizeof(text), "%s must be a bigint of nanoseconds", name);
    throw_invalid_argument(env, text);
    return false;
  }
  /* Before 1970 the seconds are negative and the nanoseconds still count upwards. */
  result->tv_sec = total / second - (total % second < 0 ? 1 : 0);
  result->tv_nsec = (total % second + second) % second;
  return true;
}

/* setTimes(fd, accessedNs, modifiedNs): bigints of nanoseconds since 1970 */
static napi_value set_times(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  struct timespec times[2];
  int32_t fd;

  if (!read_arguments(env, info, 3, arguments) || !read_int32(env, arguments[0], "fd", 0, &fd) ||
      !read_nanoseconds(env, arguments[1], "accessedNs", &times[0]) ||
      !read_nanoseconds(env, arguments[2], "modifiedNs", &times[1]))
    return NULL;
  if (futimens(fd, times) < 0)
    return throw_system_error(env, "futimens", errno);
  return undefined_value(env);
}

static bool read_entry_name(napi_env env, napi_value value, char *result) {
  if (!read_attribute_name(env, value, result))
    return false;
  if (strchr(result, '/') == NULL)
    return true;
  throw_invalid_argument(env, "name must be that of an entry, without a slash");
  return false;
}

/* renameNew(fromDirectoryFd, fromName, toDirectoryFd, toName): EEXIST instead of replacing anything */
static napi_value rename_new(napi_env env, napi_callback_info info) {
  napi_value arguments[4];
  char from_name[name_bytes_max + 1], to_name[name_bytes_max + 1];
  int32_t from_fd, to_fd;

  if (!read_arguments(env, info, 4, arguments) ||
      !read_int32(env, arguments[0], "fromDirectoryFd", 0, &from_fd) ||
      !read_entry_name(env, arguments[1], from_name) ||
      !read_int32(env, arguments[2], "toDirectoryFd", 0, &to_fd) || !read_entry_name(env, arguments[3], to_name))
    return NULL;
  if (syscall(SYS_renameat2, from_fd, from_name, to_fd, to_name, RENAME_NOREPLACE) < 0)
    return throw_system_error(env, "renameat2", errno);
  return undefined_value(env);
}

bool export_file_attributes(napi_env env, napi_value exports) {
  return export_function(env, exports, "listAttributes", list_attributes) &&
         export_function(env, exports, "getAttribute", get_attribute) &&
         export_function(env, exports, "setAttribute", set_attribute) &&
         export_function(env, exports, "removeAttribute", remove_attribute) &&
         export_function(env, exports, "setTimes", set_times) &&
         export_function(env, exports, "renameNew", rename_new);
}
