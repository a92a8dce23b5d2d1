// SPDX-License-Identifier: Apache-2.0
/*
 * What a generated light skeleton calls: bpf(2) and nothing else. It stands in for libbpf's header of the same
 * purpose, so that building the addon needs a C compiler and the kernel's headers alone. The two descriptor
 * structures and the loader's context are a layout that the generated loader program reads and writes.
 */
#ifndef CORDON_SKELETON_RUNTIME_H
#define CORDON_SKELETON_RUNTIME_H

#include <errno.h>
#include <linux/bpf.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct bpf_map_desc {
  int map_fd;
  __u32 max_entries;
  __aligned_u64 initial_value;
};

struct bpf_prog_desc {
  int prog_fd;
};

struct bpf_loader_ctx {
  __u32 sz;
  __u32 flags;
  __u32 log_level;
  __u32 log_size;
  __u64 log_buf;
};

struct bpf_load_and_run_opts {
  struct bpf_loader_ctx *ctx;
  const void *data;
  const void *insns;
  __u32 data_sz;
  __u32 insns_sz;
  const char *errstr;
};

static inline int bpf_call(enum bpf_cmd command, union bpf_attr *attributes) {
  return (int)syscall(__NR_bpf, command, attributes, sizeof(*attributes));
}

static inline void *skel_alloc(size_t size) {
  return calloc(1, size);
}

static inline void skel_free(void *skeleton) {
  free(skeleton);
}

/* Descriptor 0 means "none" here: the loader never makes it, because standard input holds it. */
static inline int skel_closenz(int descriptor) {
  return descriptor > 0 ? close(descriptor) : -EINVAL;
}

static inline int skel_raw_tracepoint_open(const char *name, int program) {
  union bpf_attr attributes;

  memset(&attributes, 0, sizeof(attributes));
  attributes.raw_tracepoint.name = (uintptr_t)name;
  attributes.raw_tracepoint.prog_fd = (__u32)program;
  return bpf_call(BPF_RAW_TRACEPOINT_OPEN, &attributes);
}

/* `target` and `kind` as BPF_LINK_CREATE takes them. */
static inline int skel_link_create(int program, int target, enum bpf_attach_type kind) {
  union bpf_attr attributes;

  memset(&attributes, 0, sizeof(attributes));
  attributes.link_create.prog_fd = (__u32)program;
  attributes.link_create.target_fd = (__u32)target;
  attributes.link_create.attach_type = kind;
  return bpf_call(BPF_LINK_CREATE, &attributes);
}

static inline int bpf_create_map(enum bpf_map_type type, __u32 key_bytes, __u32 value_bytes, __u32 entries) {
  union bpf_attr attributes;

  memset(&attributes, 0, sizeof(attributes));
  attributes.map_type = type;
  attributes.key_size = key_bytes;
  attributes.value_size = value_bytes;
  attributes.max_entries = entries;
  return bpf_call(BPF_MAP_CREATE, &attributes);
}

static inline int bpf_update_element(int map, const void *key, const void *value) {
  union bpf_attr attributes;

  memset(&attributes, 0, sizeof(attributes));
  attributes.map_fd = (__u32)map;
  attributes.key = (uintptr_t)key;
  attributes.value = (uintptr_t)value;
  attributes.flags = BPF_ANY;
  return bpf_call(BPF_MAP_UPDATE_ELEM, &attributes);
}

/* Runs the generated loader inside the kernel: it creates the maps and loads the programs. 0, or -errno. */
static inline int bpf_load_and_run(struct bpf_load_and_run_opts *options) {
  union bpf_attr attributes;
  const __u32 key = 0;
  int program = -1;
  int result = 0;
  const int map = bpf_create_map(BPF_MAP_TYPE_ARRAY, sizeof(key), options->data_sz, 1);

  if (map < 0) {
    options->errstr = "bpf(BPF_MAP_CREATE)";
    return -errno;
  }
  if (bpf_update_element(map, &key, options->data) < 0) {
    options->errstr = "bpf(BPF_MAP_UPDATE_ELEM)";
    result = -errno;
    goto close_map;
  }

  memset(&attributes, 0, sizeof(attributes));
  attributes.prog_type = BPF_PROG_TYPE_SYSCALL;
  attributes.insns = (uintptr_t)options->insns;
  attributes.insn_cnt = options->insns_sz / sizeof(struct bpf_insn);
  attributes.license = (uintptr_t) "Dual BSD/GPL";
  attributes.fd_array = (uintptr_t)&map;
  attributes.prog_flags = BPF_F_SLEEPABLE;
  program = bpf_call(BPF_PROG_LOAD, &attributes);
  if (program < 0) {
    options->errstr = "bpf(BPF_PROG_LOAD)";
    result = -errno;
    goto close_map;
  }

  memset(&attributes, 0, sizeof(attributes));
  attributes.test.prog_fd = (__u32)program;
  attributes.test.ctx_in = (uintptr_t)options->ctx;
  attributes.test.ctx_size_in = options->ctx->sz;
  options->errstr = "bpf(BPF_PROG_RUN)";
  if (bpf_call(BPF_PROG_RUN, &attributes) < 0)
    result = -errno;
  else if ((int)attributes.test.retval < 0)
    result = (int)attributes.test.retval;
  close(program);
close_map:
  close(map);
  return result;
}

#endif
