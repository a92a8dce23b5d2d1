// SPDX-License-Identifier: Apache-2.0
/* Loads Cordon's kernel programs, and hands out what they write. */
#include "node.h"

#include "bell.h"
#include "kernel_links.h"
#include "ring.h"
#include "skeleton_runtime.h"

#include "../bpf/cordon.lskel.h"
#include "../bpf/core.lskel.h"
#include "../bpf/records.h"

#include <fcntl.h>
#include <limits.h>

#include <signal.h>
#include <sys/mman.h>

/* The kernel gives up with EAGAIN when something else wants the thread while it checks the programs. */
#define LOAD_ATTEMPTS_MAX 10
/* A record that cannot fit the buffer would never leave the ring. */
#define DRAIN_BYTES_MIN 32768

static const napi_type_tag programs_tag = {0x9d6d1c3f1a5b4e07, 0x8a5be2f06d774c11};

/* What is in force beyond the core, each 0 or the errno that keeps it away. */
struct features {
  int system_calls;
  int packets;
  int signals;
};

struct kernel_programs {
  /* One of the two. */
  struct cordon_bpf *whole;
  struct core_bpf *core;
  int records;
  int counters_map;
  int excluded;
  struct features features;
  struct kernel_links links;
  struct ring ring;
  struct bell bell;
  uint64_t *counters;
};

static bool is_open(const struct kernel_programs *programs) {
  return programs->whole != NULL || programs->core != NULL;
}

static void release(struct kernel_programs *programs) {
  /* First, because its thread reads the ring. */
  bell_stop(&programs->bell);
  unlink_all(&programs->links);
  ring_unmap(&programs->ring);
  if (programs->counters != NULL)
    munmap(programs->counters, programs->ring.page_bytes);
  programs->counters = NULL;
  cordon_bpf__destroy(programs->whole);
  core_bpf__destroy(programs->core);
  programs->whole = NULL;
  programs->core = NULL;
}

static void finalize(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  release(data);
  free(data);
}

static bool is_power_of_two(uint64_t value) {
  return value != 0 && (value & (value - 1)) == 0;
}

/* bpfProbe(): makes and drops the smallest map, which needs the same privileges as the programs. */
static napi_value probe(napi_env env, napi_callback_info info) {
  (void)info;
  const int map = bpf_create_map(BPF_MAP_TYPE_RINGBUF, 0, 0, (__u32)sysconf(_SC_PAGESIZE));

  if (map < 0)
    return throw_system_error(env, "bpf(BPF_MAP_CREATE)", errno);
  close(map);
  return undefined_value(env);
}

/* One attempt to have the kernel check and load all programs. Returns 0 or an errno. */
static int load_whole(struct kernel_programs *programs, uint32_t ring_bytes) {
  struct cordon_bpf *skeleton = cordon_bpf__open();

  if (skeleton == NULL)
    return ENOMEM;
  skeleton->maps.records.max_entries = ring_bytes;
  const int error = -cordon_bpf__load(skeleton);

  if (error != 0) {
    cordon_bpf__destroy(skeleton);
    return error;
  }
  programs->whole = skeleton;
  programs->records = skeleton->maps.records.map_fd;
  programs->counters_map = skeleton->maps.counters.map_fd;
  programs->excluded = skeleton->maps.excluded.map_fd;
  return 0;
}

/* The same for the few that every kernel takes that takes any. */
static int load_core(struct kernel_programs *programs, uint32_t ring_bytes) {
  struct core_bpf *skeleton = core_bpf__open();

  if (skeleton == NULL)
    return ENOMEM;
  skeleton->maps.records.max_entries = ring_bytes;
  const int error = -core_bpf__load(skeleton);

  if (error != 0) {
    core_bpf__destroy(skeleton);
    return error;
  }
  programs->core = skeleton;
  programs->records = skeleton->maps.records.map_fd;
  programs->counters_map = skeleton->maps.counters.map_fd;
  programs->excluded = skeleton->maps.excluded.map_fd;
  return 0;
}

static int load_patiently(struct kernel_programs *programs, uint32_t ring_bytes,
                          int (*load_once)(struct kernel_programs *, uint32_t)) {
  sigset_t all, before;
  int attempt = 0, error;

  /* A signal, such as that of a child that ends, would break the check off. On Linux this is the thread's own mask. */
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before);
  do {
    error = load_once(programs, ring_bytes);
  } while (error == EAGAIN && ++attempt < LOAD_ATTEMPTS_MAX);
  sigprocmask(SIG_SETMASK, &before, NULL);
  return error;
}

static int first_error(int first, int second) {
  return first != 0 ? first : second;
}

static int attach_packets(struct kernel_programs *programs, const char *cgroup_path) {
  struct kernel_links *links = &programs->links;
  const int cgroup = open(cgroup_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

  if (cgroup < 0)
    return errno;
  /* Sockets that are made from now on first, then those that are there: none falls in between. */
  int error = link_cgroup(links, cgroup, programs->whole->progs.on_socket.prog_fd, BPF_CGROUP_INET_SOCK_CREATE);

  if (error == 0)
    error = run_iterator(programs->whole->progs.name_open_sockets.prog_fd);
  if (error == 0)
    error = link_cgroup(links, cgroup, programs->whole->progs.on_packet_out.prog_fd, BPF_CGROUP_INET_EGRESS);
  if (error == 0)
    error = link_cgroup(links, cgroup, programs->whole->progs.on_packet_in.prog_fd, BPF_CGROUP_INET_INGRESS);
  close(cgroup);
  return error;
}

/* Returns 0 or the errno of a program without which there is no use in the others. */
static int attach(struct kernel_programs *programs, const char *cgroup_path) {
  struct kernel_links *links = &programs->links;
  struct cordon_bpf *whole = programs->whole;
  struct core_bpf *core = programs->core;
  int error = link_tracepoint(links, "sched_process_fork", whole ? whole->progs.on_fork.prog_fd : core->progs.on_fork.prog_fd);

  error = first_error(error, link_tracepoint(links, "sched_process_exec", whole ? whole->progs.on_exec.prog_fd : core->progs.on_exec.prog_fd));
  error = first_error(error, link_tracepoint(links, "sched_process_exit", whole ? whole->progs.on_exit.prog_fd : core->progs.on_exit.prog_fd));
  error = first_error(error, link_tracepoint(links, "inet_sock_set_state", whole ? whole->progs.on_tcp_state.prog_fd : core->progs.on_tcp_state.prog_fd));
  if (error != 0)
    return error;
  if (whole == NULL) {
    /* ECANCELED: nobody asked for them. */
    programs->features.system_calls = programs->features.packets = programs->features.signals = ECANCELED;
    return 0;
  }
  programs->features.system_calls = link_tracepoint(links, NULL, whole->progs.on_system_call.prog_fd);
  programs->features.signals = link_tracepoint(links, "signal_generate", whole->progs.on_signal.prog_fd);
  programs->features.packets = attach_packets(programs, cgroup_path);
  return 0;
}

/* Returns the name of the call that failed, with errno in `error`; NULL when everything is in place. */
static const char *load(struct kernel_programs *programs, uint32_t ring_bytes, const char *cgroup_path,
                        bool core_only, int *error) {
  *error = load_patiently(programs, ring_bytes, core_only ? load_core : load_whole);
  if (*error != 0)
    return "bpf(BPF_PROG_RUN) of the loader";
  *error = ring_map(&programs->ring, programs->records, ring_bytes);
  if (*error != 0)
    return "mmap of the ring buffer";
  void *counters = mmap(NULL, programs->ring.page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, programs->counters_map, 0);

  if (counters == MAP_FAILED) {
    *error = errno;
    return "mmap of the counters";
  }
  programs->counters = counters;
  *error = attach(programs, cgroup_path);
  return *error != 0 ? "bpf(BPF_RAW_TRACEPOINT_OPEN)" : NULL;
}

/* bpfOpen(ringBytes, cgroupPath, coreOnly): handle */
static napi_value open_programs(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  char cgroup_path[PATH_MAX];
  int32_t ring_bytes;
  bool core_only;
  int error;

  if (!read_arguments(env, info, 3, arguments) ||
      !read_int32(env, arguments[0], "ringBytes", 0, &ring_bytes) ||
      !read_path(env, arguments[1], "cgroupPath", cgroup_path, sizeof(cgroup_path)) ||
      !read_boolean(env, arguments[2], "coreOnly", &core_only))
    return NULL;
  if (ring_bytes < sysconf(_SC_PAGESIZE) || !is_power_of_two((uint64_t)ring_bytes))
    return throw_invalid_argument(env, "ringBytes must be a power of two of at least one page");

  struct kernel_programs *programs = calloc(1, sizeof(*programs));

  if (programs == NULL)
    return throw_system_error(env, "calloc", ENOMEM);
  const char *failed = load(programs, (uint32_t)ring_bytes, cgroup_path, core_only, &error);

  if (failed != NULL) {
    release(programs);
    free(programs);
    return throw_system_error(env, failed, error);
  }
  return create_handle(env, programs, finalize, &programs_tag);
}

static struct kernel_programs *read_programs(napi_env env, napi_value value) {
  void *data;

  if (!read_handle(env, value, &programs_tag, &data))
    return NULL;
  struct kernel_programs *programs = data;

  if (!is_open(programs)) {
    throw_system_error(env, "bpf handle", EBADF);
    return NULL;
  }
  return programs;
}

/* bpfDrain(handle, buffer): bytes copied */
static napi_value drain(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  struct bytes target;

  if (!read_arguments(env, info, 2, arguments))
    return NULL;
  struct kernel_programs *programs = read_programs(env, arguments[0]);

  if (programs == NULL || !read_bytes(env, arguments[1], "buffer", &target))
    return NULL;
  if (target.length < DRAIN_BYTES_MIN)
    return throw_invalid_argument(env, "buffer must have at least 32768 bytes");
  return number_value(env, (double)ring_drain(&programs->ring, target.data, target.length));
}

/* bpfBell(handle, callback): see bell.h. Once. */
static napi_value start_bell(napi_env env, napi_callback_info info) {
  napi_value arguments[2];

  if (!read_arguments(env, info, 2, arguments))
    return NULL;
  struct kernel_programs *programs = read_programs(env, arguments[0]);

  if (programs == NULL || !read_function(env, arguments[1], "callback"))
    return NULL;
  _Atomic uint64_t *wish = (_Atomic uint64_t *)&programs->counters[BELL_SLOT];
  const int error = bell_start(&programs->bell, env, arguments[1], programs->records, wish);

  return error != 0 ? throw_system_error(env, "uv_thread_create", error) : undefined_value(env);
}

/* bpfArmBell(handle): the callback is called once, when something waits */
static napi_value arm_bell(napi_env env, napi_callback_info info) {
  napi_value arguments[1];

  if (!read_arguments(env, info, 1, arguments))
    return NULL;
  struct kernel_programs *programs = read_programs(env, arguments[0]);

  if (programs == NULL)
    return NULL;
  bell_arm(&programs->bell);
  return undefined_value(env);
}

/* bpfCounters(handle): number[], by enum counter_slot */
static napi_value counters(napi_env env, napi_callback_info info) {
  napi_value arguments[1], result;

  if (!read_arguments(env, info, 1, arguments))
    return NULL;
  struct kernel_programs *programs = read_programs(env, arguments[0]);

  if (programs == NULL || napi_create_array_with_length(env, COUNTER_SLOTS, &result) != napi_ok)
    return NULL;
  for (uint32_t slot = 0; slot < COUNTER_SLOTS; slot++) {
    const uint64_t count = __atomic_load_n(&programs->counters[slot], __ATOMIC_RELAXED);

    if (napi_set_element(env, result, slot, number_value(env, (double)count)) != napi_ok)
      return NULL;
  }
  return result;
}

/* bpfFeatures(handle): {systemCalls, packets, signals}, each 0 or an errno */
static napi_value features(napi_env env, napi_callback_info info) {
  napi_value arguments[1], result;

  if (!read_arguments(env, info, 1, arguments))
    return NULL;
  const struct kernel_programs *programs = read_programs(env, arguments[0]);

  if (programs == NULL || napi_create_object(env, &result) != napi_ok)
    return NULL;
  const struct features *found = &programs->features;

  return set_property(env, result, "systemCalls", number_value(env, found->system_calls)) &&
                 set_property(env, result, "packets", number_value(env, found->packets)) &&
                 set_property(env, result, "signals", number_value(env, found->signals))
             ? result
             : NULL;
}

/*
 * bpfProbePam(handle, uprobeType, path, functionOffset, function): on entry and on return of one function of a
 * library of PAM; `function` is an enum pam_function.
 */
static napi_value probe_pam(napi_env env, napi_callback_info info) {
  napi_value arguments[5];
  char path[PATH_MAX];
  int32_t type, function;
  uint64_t offset;

  if (!read_arguments(env, info, 5, arguments))
    return NULL;
  struct kernel_programs *programs = read_programs(env, arguments[0]);

  if (programs == NULL || !read_int32(env, arguments[1], "uprobeType", 0, &type) ||
      !read_path(env, arguments[2], "path", path, sizeof(path)) ||
      !read_uint64(env, arguments[3], "functionOffset", &offset) ||
      !read_int32(env, arguments[4], "function", 1, &function))
    return NULL;
  if (programs->whole == NULL)
    return throw_system_error(env, "bpf(BPF_LINK_CREATE)", ECANCELED);
  struct kernel_links *links = &programs->links;
  const int call = programs->whole->progs.on_pam_call.prog_fd;
  const int returned = programs->whole->progs.on_pam_return.prog_fd;
  const uint64_t cookie = (uint64_t)function;
  int error = link_user_function(links, returned, (uint32_t)type, path, offset, 1, cookie);

  error = first_error(error, link_user_function(links, call, (uint32_t)type, path, offset, 0, cookie));
  return error != 0 ? throw_system_error(env, "perf_event_open", error) : undefined_value(env);
}

/* bpfExclude(handle, pid, startTicks) */
static napi_value exclude(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  int32_t pid;
  uint64_t start_ticks;

  if (!read_arguments(env, info, 3, arguments))
    return NULL;
  struct kernel_programs *programs = read_programs(env, arguments[0]);

  if (programs == NULL || !read_int32(env, arguments[1], "pid", 0, &pid) ||
      !read_uint64(env, arguments[2], "startTicks", &start_ticks))
    return NULL;
  if (bpf_update_element(programs->excluded, &pid, &start_ticks) < 0)
    return throw_system_error(env, "bpf(BPF_MAP_UPDATE_ELEM)", errno);
  return undefined_value(env);
}

/* bpfClose(handle): detaches and frees; a second call does nothing. */
static napi_value close_programs(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  void *data;

  if (!read_arguments(env, info, 1, arguments) || !read_handle(env, arguments[0], &programs_tag, &data))
    return NULL;
  if (is_open(data))
    release(data);
  return undefined_value(env);
}

bool export_kernel_programs(napi_env env, napi_value exports) {
  return export_function(env, exports, "bpfProbe", probe) &&
         export_function(env, exports, "bpfOpen", open_programs) &&
         export_function(env, exports, "bpfDrain", drain) &&
         export_function(env, exports, "bpfBell", start_bell) &&
         export_function(env, exports, "bpfArmBell", arm_bell) &&
         export_function(env, exports, "bpfCounters", counters) &&
         export_function(env, exports, "bpfFeatures", features) &&
         export_function(env, exports, "bpfProbePam", probe_pam) &&
         export_function(env, exports, "bpfExclude", exclude) &&
         export_function(env, exports, "bpfClose", close_programs);
}
