// SPDX-License-Identifier: Apache-2.0
/* What every file of the addon shares: reading arguments, throwing errors, and the list of its parts. */
#ifndef CORDON_NODE_H
#define CORDON_NODE_H

#define NAPI_VERSION 8
#include <node_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bytes {
  uint8_t *data;
  size_t length;
};

/* Throws an Error with `code` (such as EPERM), `errno`, `syscall` and a message naming both. Returns NULL. */
napi_value throw_system_error(napi_env env, const char *system_call, int error_number);
/* Throws a TypeError with code ERR_INVALID_ARG_TYPE. Returns NULL. */
napi_value throw_invalid_argument(napi_env env, const char *message);

/* Fills exactly `expected` arguments, or throws. */
bool read_arguments(napi_env env, napi_callback_info info, size_t expected, napi_value *arguments);
/* Each of these throws a TypeError naming the argument when the value does not fit, and returns false. */
bool read_int32(napi_env env, napi_value value, const char *name, int32_t minimum, int32_t *result);
bool read_uint64(napi_env env, napi_value value, const char *name, uint64_t *result);
bool read_function(napi_env env, napi_value value, const char *name);
bool read_boolean(napi_env env, napi_value value, const char *name, bool *result);
bool read_bytes(napi_env env, napi_value value, const char *name, struct bytes *result);
/* A path: no zero byte inside, at most PATH_MAX with its end. */
bool read_path(napi_env env, napi_value value, const char *name, char *result, size_t capacity);
/* Reads a number property; `present` tells whether it was there. False after a throw. */
bool read_optional_uint64(napi_env env, napi_value object, const char *name, bool *present, uint64_t *result);
/* Reads a boolean property; false when it is not there. */
bool read_optional_bool(napi_env env, napi_value object, const char *name, bool *result);

/* A handle is an external with a tag, so that one kind is never taken for the other. */
bool read_handle(napi_env env, napi_value value, const napi_type_tag *tag, void **result);
napi_value create_handle(napi_env env, void *data, napi_finalize release, const napi_type_tag *tag);

napi_value undefined_value(napi_env env);
napi_value number_value(napi_env env, double number);
napi_value boolean_value(napi_env env, bool value);
bool set_property(napi_env env, napi_value object, const char *name, napi_value value);
bool export_function(napi_env env, napi_value exports, const char *name, napi_callback function);

bool export_kernel_programs(napi_env env, napi_value exports);
bool export_fanotify(napi_env env, napi_value exports);
bool export_descriptors(napi_env env, napi_value exports);
bool export_pidfd(napi_env env, napi_value exports);
bool export_file_attributes(napi_env env, napi_value exports);
bool export_sandbox(napi_env env, napi_value exports);
bool export_notify(napi_env env, napi_value exports);
bool export_memory(napi_env env, napi_value exports);
bool export_netlink(napi_env env, napi_value exports);

#endif
