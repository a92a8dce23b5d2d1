// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Cordon's kernel programs. They only observe. `scripts/build-native.ts --regenerate` compiles them twice: whole
 * into cordon.lskel.h, and with CORDON_CORE_ONLY into core.lskel.h, for kernels that refuse the whole: processes and
 * outbound connections, by raw tracepoints alone, which need neither tracefs nor a trampoline.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

/* Hides a value from the compiler, so that the bound written after it stays where the verifier looks. */
#ifndef barrier_var
#define barrier_var(value) asm volatile("" : "+r"(value))
#endif

/* Four characters as the number that they are in memory: the kernel side compares without strings. */
#define FOUR(a, b, c, d) ((__u32)(a) | (__u32)(b) << 8 | (__u32)(c) << 16 | (__u32)(d) << 24)

#include "records.h"
#include "kernel.bpf.h"
#include "paths.bpf.h"
#include "maps.bpf.h"
#include "connections.bpf.h"
#ifndef CORDON_CORE_ONLY
#include "activities.bpf.h"
#include "calls.bpf.h"
#include "memory.bpf.h"
#include "scripts.bpf.h"
#include "process_calls.bpf.h"
#include "socket_calls.bpf.h"
#include "kernel_calls.bpf.h"
#include "file_calls.bpf.h"
#include "system_calls.bpf.h"
#include "packets.bpf.h"
#include "logons.bpf.h"
#include "signals.bpf.h"
#endif
#include "processes.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";
