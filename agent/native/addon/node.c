// SPDX-License-Identifier: Apache-2.0
#include "node.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define NAME_OF(error) {error, #error}

/* glibc names error numbers only from 2.32. These are the ones that the calls used here are documented to give. */
static const struct {
  int number;
  const char *name;
} error_names[] = {
    NAME_OF(EPERM),      NAME_OF(ENOENT),    NAME_OF(ESRCH),     NAME_OF(EINTR),      NAME_OF(EIO),
    NAME_OF(E2BIG),      NAME_OF(EBADF),     NAME_OF(EAGAIN),    NAME_OF(ENOMEM),     NAME_OF(EACCES),
    NAME_OF(EFAULT),     NAME_OF(EBUSY),     NAME_OF(EEXIST),    NAME_OF(EXDEV),      NAME_OF(ENODEV),
    NAME_OF(ENOTDIR),    NAME_OF(EISDIR),    NAME_OF(EINVAL),    NAME_OF(ENFILE),     NAME_OF(EMFILE),
    NAME_OF(EFBIG),      NAME_OF(ENOSPC),    NAME_OF(EROFS),     NAME_OF(EPIPE),      NAME_OF(ERANGE),
    NAME_OF(ENOSYS),     NAME_OF(ELOOP),     NAME_OF(EOVERFLOW), NAME_OF(ENOTSOCK),   NAME_OF(EMSGSIZE),
    NAME_OF(EOPNOTSUPP), NAME_OF(ENOBUFS),   NAME_OF(ENOTCONN),  NAME_OF(ECONNRESET), NAME_OF(ECONNREFUSED),
    NAME_OF(ESTALE),     NAME_OF(ETIMEDOUT), NAME_OF(EUSERS),    NAME_OF(ENAMETOOLONG),
    NAME_OF(EDQUOT),     NAME_OF(EPROTONOSUPPORT),
};

static const char *name_error(int number) {
  for (size_t index = 0; index < sizeof(error_names) / sizeof(error_names[0]); index++) {
    if (error_names[index].number == number)
      return error_names[index].name;
  }
  return "EUNKNOWN";
}

napi_value throw_system_error(napi_env env, const char *system_call, int error_number) {
  char text[256];
  const char *name = name_error(error_number);
  napi_value code, message, error, system_call_text;

  snprintf(text, sizeof(text), "%s: %s (%s)", system_call, strerror(error_number), name);
  if (napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &code) == napi_ok &&
      napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message) == napi_ok &&
      napi_create_string_utf8(env, system_call, NAPI_AUTO_LENGTH, &system_call_text) == napi_ok &&
      napi_create_error(env, code, message, &error) == napi_ok &&
      set_property(env, error, "errno", number_value(env, error_number)) &&
      set_property(env, error, "syscall", system_call_text))
    napi_throw(env, error);
  return NULL;
}

napi_value throw_invalid_argument(napi_env env, const char *message) {
  napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", message);
  return NULL;
}

static bool refuse(napi_env env, const char *name, const char *expected) {
  char text[160];

  snprintf(text, sizeof(text), "%s must be %s", name, expected);
  throw_invalid_argument(env, text);
  return false;
}

bool read_arguments(napi_env env, napi_callback_info info, size_t expected, napi_value *arguments) {
  size_t count = expected;

  if (napi_get_cb_info(env, info, &count, arguments, NULL, NULL) != napi_ok || count < expected) {
    throw_invalid_argument(env, "too few arguments");
    return false;
  }
  return true;
}

bool read_int32(napi_env env, napi_value value, const char *name, int32_t minimum, int32_t *result) {
  double number;

  if (napi_get_value_double(env, value, &number) != napi_ok || !(number >= minimum && number <= INT32_MAX) ||
      number != (double)(int32_t)number)
    return refuse(env, name, minimum < 0 ? "a whole number" : "a whole number, not negative");
  *result = (int32_t)number;
  return true;
}

bool read_uint64(napi_env env, napi_value value, const char *name, uint64_t *result) {
  const double safe_integer_max = 9007199254740991.0;
  double number;

  if (napi_get_value_double(env, value, &number) != napi_ok || !(number >= 0 && number <= safe_integer_max) ||
      number != (double)(uint64_t)number)
    return refuse(env, name, "a whole number, not negative");
  *result = (uint64_t)number;
  return true;
}

bool read_bytes(napi_env env, napi_value value, const char *name, struct bytes *result) {
  bool is_buffer = false;
  void *data;

  if (napi_is_buffer(env, value, &is_buffer) != napi_ok || !is_buffer ||
      napi_get_buffer_info(env, value, &data, &result->length) != napi_ok)
    return refuse(env, name, "a Buffer");
  result->data = data;
  return true;
}

bool read_boolean(napi_env env, napi_value value, const char *name, bool *result) {
  return napi_get_value_bool(env, value, result) == napi_ok || refuse(env, name, "a boolean");
}

bool read_function(napi_env env, napi_value value, const char *name) {
  napi_valuetype type;

  return (napi_typeof(env, value, &type) == napi_ok && type == napi_function) || refuse(env, name, "a function");
}

bool read_path(napi_env env, napi_value value, const char *name, char *result, size_t capacity) {
  size_t length;

  if (napi_get_value_string_utf8(env, value, result, capacity, &length) != napi_ok || length == 0 ||
      length + 1 >= capacity || memchr(result, 0, length) != NULL)
    return refuse(env, name, "a path");
  return true;
}

static bool read_optional(napi_env env, napi_value object, const char *name, bool *present, napi_value *value) {
  napi_valuetype type;

  *present = false;
  if (napi_get_named_property(env, object, name, value) != napi_ok || napi_typeof(env, *value, &type) != napi_ok)
    return refuse(env, name, "readable");
  *present = type != napi_undefined;
  return true;
}

bool read_optional_uint64(napi_env env, napi_value object, const char *name, bool *present, uint64_t *result) {
  napi_value value;

  if (!read_optional(env, object, name, present, &value))
    return false;
  return !*present || read_uint64(env, value, name, result);
}

bool read_optional_bool(napi_env env, napi_value object, const char *name, bool *result) {
  napi_value value;
  bool present;

  *result = false;
  if (!read_optional(env, object, name, &present, &value))
    return false;
  return !present || napi_get_value_bool(env, value, result) == napi_ok || refuse(env, name, "a boolean");
}

bool read_handle(napi_env env, napi_value value, const napi_type_tag *tag, void **result) {
  napi_valuetype type;
  bool tagged = false;

  if (napi_typeof(env, value, &type) != napi_ok || type != napi_external ||
      napi_check_object_type_tag(env, value, tag, &tagged) != napi_ok || !tagged ||
      napi_get_value_external(env, value, result) != napi_ok)
    return refuse(env, "handle", "one that this addon opened");
  return true;
}

napi_value create_handle(napi_env env, void *data, napi_finalize release, const napi_type_tag *tag) {
  napi_value handle;

  if (napi_create_external(env, data, release, NULL, &handle) != napi_ok) {
    release(env, data, NULL);
    return throw_system_error(env, "napi_create_external", ENOMEM);
  }
  /* From here on the garbage collector releases the data, so a failure needs no cleaning up. */
  if (napi_type_tag_object(env, handle, tag) != napi_ok)
    return throw_system_error(env, "napi_type_tag_object", EINVAL);
  return handle;
}

napi_value undefined_value(napi_env env) {
  napi_value value;

  return napi_get_undefined(env, &value) == napi_ok ? value : NULL;
}

napi_value number_value(napi_env env, double number) {
  napi_value value;

  return napi_create_double(env, number, &value) == napi_ok ? value : NULL;
}

napi_value boolean_value(napi_env env, bool value) {
  napi_value result;

  return napi_get_boolean(env, value, &result) == napi_ok ? result : NULL;
}

bool set_property(napi_env env, napi_value object, const char *name, napi_value value) {
  return value != NULL && napi_set_named_property(env, object, name, value) == napi_ok;
}

bool export_function(napi_env env, napi_value exports, const char *name, napi_callback function) {
  napi_value value;

  return napi_create_function(env, name, NAPI_AUTO_LENGTH, function, NULL, &value) == napi_ok &&
         set_property(env, exports, name, value);
}
