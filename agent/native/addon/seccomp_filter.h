// SPDX-License-Identifier: Apache-2.0
#ifndef CORDON_SECCOMP_FILTER_H
#define CORDON_SECCOMP_FILTER_H

#include <stdbool.h>

/*
 * Refuses, on every thread of the process and for good: new programs, new processes, new sockets, and the calls
 * that reach into other processes or the kernel; with `refuse_paths` also every call that opens a file or changes
 * the file system by a path. Sets no_new_privs on every thread too. Returns 0 or an errno.
 */
int install_seccomp_filter(bool refuse_paths);

#endif
