// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "kernel_links.h"

#include "skeleton_runtime.h"

#include <linux/perf_event.h>

static int keep(struct kernel_links *links, int descriptor) {
  if (descriptor < 0)
    return errno;
  if (links->count == KERNEL_LINKS_MAX) {
    close(descriptor);
    return ENOSPC;
  }
  links->descriptors[links->count++] = descriptor;
  return 0;
}

int link_tracepoint(struct kernel_links *links, const char *name, int program) {
  return keep(links, skel_raw_tracepoint_open(name, program));
}

int link_cgroup(struct kernel_links *links, int cgroup, int program, int kind) {
  return keep(links, skel_link_create(program, cgroup, kind));
}

int link_user_function(struct kernel_links *links, int program, uint32_t type, const char *path, uint64_t offset,
                       int on_return, uint64_t cookie) {
  struct perf_event_attr event;
  union bpf_attr attributes;

  memset(&event, 0, sizeof(event));
  event.type = type;
  event.size = sizeof(event);
  /* The format of uprobe in sysfs: bit 0 says return. */
  event.config = on_return ? 1 : 0;
  event.uprobe_path = (uintptr_t)path;
  event.probe_offset = offset;
  const int probe = (int)syscall(__NR_perf_event_open, &event, -1, 0, -1, PERF_FLAG_FD_CLOEXEC);

  if (probe < 0)
    return errno;
  memset(&attributes, 0, sizeof(attributes));
  attributes.link_create.prog_fd = (__u32)program;
  attributes.link_create.target_fd = (__u32)probe;
  attributes.link_create.attach_type = BPF_PERF_EVENT;
  attributes.link_create.perf_event.bpf_cookie = cookie;
  const int error = keep(links, bpf_call(BPF_LINK_CREATE, &attributes));

  /* The link holds the probe. */
  close(probe);
  return error;
}

int run_iterator(int program) {
  char nothing[64];
  union bpf_attr attributes;
  const int link = skel_link_create(program, 0, BPF_TRACE_ITER);

  if (link < 0)
    return errno;
  memset(&attributes, 0, sizeof(attributes));
  attributes.iter_create.link_fd = (__u32)link;
  const int iterator = bpf_call(BPF_ITER_CREATE, &attributes);
  int error = iterator < 0 ? errno : 0;

  if (iterator >= 0) {
    ssize_t length;

    do {
      length = read(iterator, nothing, sizeof(nothing));
    } while (length > 0 || (length < 0 && errno == EINTR));
    error = length < 0 ? errno : 0;
    close(iterator);
  }
  close(link);
  return error;
}

void unlink_all(struct kernel_links *links) {
  while (links->count > 0)
    close(links->descriptors[--links->count]);
}
