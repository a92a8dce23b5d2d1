// SPDX-License-Identifier: Apache-2.0
/* Where kernel programs are attached, and that they stay so: one descriptor for each. */
#ifndef CORDON_KERNEL_LINKS_H
#define CORDON_KERNEL_LINKS_H

#include <stdint.h>

/* What a host's programs take, and the functions of PAM in as many libraries as containers may bring. */
#define KERNEL_LINKS_MAX 512

struct kernel_links {
  int descriptors[KERNEL_LINKS_MAX];
  int count;
};

/* Each returns 0 or an errno. `name` null: the program itself says to what it belongs. */
int link_tracepoint(struct kernel_links *links, const char *name, int program);
/* `kind` is an enum bpf_attach_type. */
int link_cgroup(struct kernel_links *links, int cgroup, int program, int kind);
/* At `offset` bytes of the file, on entry or on return; the program reads `cookie`. `type` of sysfs's uprobe. */
int link_user_function(struct kernel_links *links, int program, uint32_t type, const char *path, uint64_t offset,
                       int on_return, uint64_t cookie);
/* Runs an iterator over all its objects, once. */
int run_iterator(int program);
void unlink_all(struct kernel_links *links);

#endif
