// SPDX-License-Identifier: Apache-2.0
/* Loads Cordon's kernel programs, and hands out what they write. */
#include "node.h"

#include "ring.h"
#include "skeleton_runtime.h"

#include "../bpf/cordon.lskel.h"
#include "../bpf/records.h"

#include <signal.h>
#include <sys/mman.h>

/* The kernel gives up with EAGAIN when something else wants the thread while it checks the programs. */
#define LOAD_ATTEMPTS_MAX 10
/* A record that cannot fit the buffer would never leave the ring. */
#define DRAIN_BYTES_MIN 32768

static const napi_type_tag programs_tag = {0x9d6d1c3f1a5b4e07, 0x8a5be2f06d774c11};

struct kernel_programs {
  struct cordon_bpf *skeleton;
  struct ring ring;
  const uint64_t *counters;
};

static void release(struct kernel_programs *programs) {
  ring_unmap(&programs->ring);
  if (programs->counters != NULL)
    munmap((void *)(uintptr_t)programs->counters, programs->ring.page_bytes);
  programs->counters = NULL;
  cordon_bpf__destroy(programs->skeleton);
  programs->skeleton = NULL;
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

/* One attempt to have the kernel check and load the programs. Returns 0 or an errno. */
static int load_once(struct kernel_programs *programs, uint32_t ring_bytes) {
  sigset_t all, before;

  programs->skeleton = cordon_bpf__open();
  if (programs->skeleton == NULL)
    return ENOMEM;
  programs->skeleton->maps.records.max_entries = ring_bytes;
  /* A signal, such as that of a child that ends, would break the check off. On Linux this is the thread's own mask. */
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before);
  const int error = -cordon_bpf__load(programs->skeleton);

  sigprocmask(SIG_SETMASK, &before, NULL);
  if (error != 0) {
    cordon_bpf__destroy(programs->skeleton);
    programs->skeleton = NULL;
  }
  return error;
}

/* Returns the name of the call that failed, with errno in `error`; NULL when everything is in place. */
static const char *load(struct kernel_programs *programs, uint32_t ring_bytes, int *error) {
  int attempt = 0;

  do {
    *error = load_once(programs, ring_bytes);
  } while (*error == EAGAIN && ++attempt < LOAD_ATTEMPTS_MAX);
  if (*error != 0)
    return "bpf(BPF_PROG_RUN) of the loader";
  *error = ring_map(&programs->ring, programs->skeleton->maps.records.map_fd, ring_bytes);
  if (*error != 0)
    return "mmap of the ring buffer";
  void *counters = mmap(NULL, programs->ring.page_bytes, PROT_READ, MAP_SHARED,
                        programs->skeleton->maps.counters.map_fd, 0);

  if (counters == MAP_FAILED) {
    *error = errno;
    return "mmap of the counters";
  }
  programs->counters = counters;
  if (cordon_bpf__attach(programs->skeleton) < 0) {
    *error = errno;
    return "bpf(BPF_RAW_TRACEPOINT_OPEN)";
  }
  return NULL;
}

/* bpfOpen(ringBytes): handle */
static napi_value open_programs(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  int32_t ring_bytes;
  int error;

  if (!read_arguments(env, info, 1, arguments) || !read_int32(env, arguments[0], "ringBytes", 0, &ring_bytes))
    return NULL;
  if (ring_bytes < sysconf(_SC_PAGESIZE) || !is_power_of_two((uint64_t)ring_bytes))
    return throw_invalid_argument(env, "ringBytes must be a power of two of at least one page");

  struct kernel_programs *programs = calloc(1, sizeof(*programs));

  if (programs == NULL)
    return throw_system_error(env, "calloc", ENOMEM);
  const char *failed = load(programs, (uint32_t)ring_bytes, &error);

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

  if (programs->skeleton == NULL) {
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
  if (bpf_update_element(programs->skeleton->maps.excluded.map_fd, &pid, &start_ticks) < 0)
    return throw_system_error(env, "bpf(BPF_MAP_UPDATE_ELEM)", errno);
  return undefined_value(env);
}

/* bpfClose(handle): detaches and frees; a second call does nothing. */
static napi_value close_programs(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  void *data;

  if (!read_arguments(env, info, 1, arguments) || !read_handle(env, arguments[0], &programs_tag, &data))
    return NULL;
  if (((struct kernel_programs *)data)->skeleton != NULL)
    release(data);
  return undefined_value(env);
}

bool export_kernel_programs(napi_env env, napi_value exports) {
  return export_function(env, exports, "bpfProbe", probe) &&
         export_function(env, exports, "bpfOpen", open_programs) &&
         export_function(env, exports, "bpfDrain", drain) &&
         export_function(env, exports, "bpfCounters", counters) &&
         export_function(env, exports, "bpfExclude", exclude) &&
         export_function(env, exports, "bpfClose", close_programs);
}
