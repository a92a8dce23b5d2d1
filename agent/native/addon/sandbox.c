// SPDX-License-Identifier: Apache-2.0
/*
 * Gives up, for good, what a process that reads hostile files does not need. The order matters: what needs
 * root comes first, what a change of user resets comes after it, the filter that refuses the rest comes last.
 */
#define _GNU_SOURCE
#include "node.h"
#include "seccomp_filter.h"

#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

struct sandbox_options {
  bool has_user;
  uint64_t user_id;
  uint64_t group_id;
  bool has_address_space, has_data, has_cpu;
  uint64_t address_space_bytes_max, data_bytes_max, cpu_seconds;
  uint64_t open_files_max;
  bool refuse_paths;
};

static bool read_options(napi_env env, napi_value object, struct sandbox_options *options) {
  napi_valuetype type;
  bool has_group, has_files;

  if (napi_typeof(env, object, &type) != napi_ok || type != napi_object) {
    throw_invalid_argument(env, "options must be an object");
    return false;
  }
  if (!read_optional_uint64(env, object, "userId", &options->has_user, &options->user_id) ||
      !read_optional_uint64(env, object, "groupId", &has_group, &options->group_id) ||
      !read_optional_uint64(env, object, "addressSpaceBytesMax", &options->has_address_space,
                            &options->address_space_bytes_max) ||
      !read_optional_uint64(env, object, "dataBytesMax", &options->has_data, &options->data_bytes_max) ||
      !read_optional_uint64(env, object, "cpuSeconds", &options->has_cpu, &options->cpu_seconds) ||
      !read_optional_uint64(env, object, "openFilesMax", &has_files, &options->open_files_max))
    return false;
  if (!read_optional_bool(env, object, "refusePaths", &options->refuse_paths))
    return false;
  if (!options->has_user || !has_group || !has_files || options->user_id == 0 || options->group_id == 0 ||
      options->user_id >= UINT32_MAX || options->group_id >= UINT32_MAX) {
    throw_invalid_argument(env, "userId and groupId (neither root) and openFilesMax are needed");
    return false;
  }
  return true;
}

/* Returns the call that failed, with errno set; NULL when the limit is in place. */
static const char *limit(int resource, const char *name, uint64_t value) {
  const struct rlimit bound = {.rlim_cur = value, .rlim_max = value};

  return setrlimit((__rlimit_resource_t)resource, &bound) < 0 ? name : NULL;
}

static const char *apply_limits(const struct sandbox_options *options) {
  const char *failed = NULL;

  /* A write past the limit of 0 bytes is an error to the writer, not the end of the process. */
  signal(SIGXFSZ, SIG_IGN);
  if ((failed = limit(RLIMIT_FSIZE, "setrlimit(RLIMIT_FSIZE)", 0)) != NULL)
    return failed;
  if ((failed = limit(RLIMIT_CORE, "setrlimit(RLIMIT_CORE)", 0)) != NULL)
    return failed;
  if ((failed = limit(RLIMIT_NOFILE, "setrlimit(RLIMIT_NOFILE)", options->open_files_max)) != NULL)
    return failed;
  if (options->has_cpu && (failed = limit(RLIMIT_CPU, "setrlimit(RLIMIT_CPU)", options->cpu_seconds)) != NULL)
    return failed;
  if (options->has_data && (failed = limit(RLIMIT_DATA, "setrlimit(RLIMIT_DATA)", options->data_bytes_max)) != NULL)
    return failed;
  if (options->has_address_space)
    failed = limit(RLIMIT_AS, "setrlimit(RLIMIT_AS)", options->address_space_bytes_max);
  return failed;
}

/* The C library carries these three out on every thread; the kernel alone would change only this one. */
static const char *drop_user(const struct sandbox_options *options) {
  const gid_t group = (gid_t)options->group_id;
  const uid_t user = (uid_t)options->user_id;

  if (setgroups(0, NULL) < 0)
    return "setgroups";
  if (setresgid(group, group, group) < 0)
    return "setresgid";
  if (setresuid(user, user, user) < 0)
    return "setresuid";
  /* A process that could take root back has given up nothing. */
  if (setuid(0) == 0) {
    errno = EPERM;
    return "setuid(0) after dropping it";
  }
  return NULL;
}

static bool set_flag(napi_env env, napi_value object, const char *name, bool value) {
  return set_property(env, object, name, boolean_value(env, value));
}

/* enterSandbox(options): what was achieved. Throws when a step that must succeed fails. */
static napi_value enter_sandbox(napi_env env, napi_callback_info info) {
  napi_value arguments[1], result;
  struct sandbox_options options = {0};
  const char *failed = NULL;

  if (!read_arguments(env, info, 1, arguments) || !read_options(env, arguments[0], &options))
    return NULL;
  const bool was_root = geteuid() == 0;
  /* Only this thread moves: the others exist already. The filter below covers them all. */
  const bool left_network = unshare(CLONE_NEWNET) == 0;
  const pid_t parent = getppid();

  if ((failed = apply_limits(&options)) != NULL)
    return throw_system_error(env, failed, errno);
  if (was_root && (failed = drop_user(&options)) != NULL)
    return throw_system_error(env, failed, errno);
  /* A change of user clears both of these. */
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
    return throw_system_error(env, "prctl(PR_SET_DUMPABLE)", errno);
  if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
    return throw_system_error(env, "prctl(PR_SET_PDEATHSIG)", errno);
  /* The parent may have died just before: then nobody is left to send the signal. */
  if (getppid() != parent)
    return throw_system_error(env, "getppid", ESRCH);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
    return throw_system_error(env, "prctl(PR_SET_NO_NEW_PRIVS)", errno);
  const int filter_error = install_seccomp_filter(options.refuse_paths);

  if (napi_create_object(env, &result) != napi_ok || !set_flag(env, result, "userDropped", was_root) ||
      !set_flag(env, result, "networkNamespaceOfThread", left_network) ||
      !set_flag(env, result, "systemCallFilter", filter_error == 0))
    return NULL;
  return result;
}

bool export_sandbox(napi_env env, napi_value exports) {
  return export_function(env, exports, "enterSandbox", enter_sandbox);
}
