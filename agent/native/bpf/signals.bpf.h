/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Signals to the agent's own processes, and processes that are born into namespaces of their own. */
#ifndef CORDON_SIGNALS_BPF_H
#define CORDON_SIGNALS_BPF_H

#define SIGNAL_CHILD 17
#define SIGNAL_FROM_KERNEL 1

/* TP_PROTO(int sig, struct kernel_siginfo *info, struct task_struct *task, int group, int result) */
SEC("raw_tp/signal_generate")
int on_signal(struct bpf_raw_tracepoint_args *context)
{
	int signal = context->args[0];
	struct task_struct *target = (void *)context->args[2];
	struct record_header named = {};

	/* SEND_SIG_PRIV: a timer, the terminal or a fault. */
	if (signal == SIGNAL_CHILD || context->args[1] == SIGNAL_FROM_KERNEL)
		return 0;
	__u32 pid = BPF_CORE_READ(target, tgid);
	__u64 *start = bpf_map_lookup_elem(&excluded, &pid);

	if (!start)
		return 0;
	name_process(&named, (struct task_struct *)bpf_get_current_task());
	if (is_excluded(&named))
		return 0;
	struct activity_header *record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);

	if (!record) {
		count(COUNTER_ACTIVITY_DROPPED + OPERATION_SIGNAL);
		return 0;
	}
	__builtin_memset(record, 0, sizeof(*record));
	record->header = named;
	record->header.kind = RECORD_ACTIVITY;
	record->header.length = sizeof(*record);
	record->header.observed_ns = bpf_ktime_get_ns();
	record->operation = OPERATION_SIGNAL;
	record->values[0] = signal;
	record->values[1] = pid;
	bpf_ringbuf_submit(record, wakeup());
	return 0;
}

#define NAMESPACES_NEW_MOUNT 0x00020000
#define NAMESPACES_NEW_CGROUP 0x02000000
#define NAMESPACES_NEW_UTS 0x04000000
#define NAMESPACES_NEW_IPC 0x08000000
#define NAMESPACES_NEW_USER 0x10000000
#define NAMESPACES_NEW_PID 0x20000000
#define NAMESPACES_NEW_NETWORK 0x40000000

/* clone(2) with CLONE_NEW*: told by what became of it, as the arguments may lie in the caller's memory. */
static __always_inline void after_fork(struct task_struct *parent, struct task_struct *child)
{
	struct nsproxy *before = BPF_CORE_READ(parent, nsproxy);
	struct nsproxy *after = BPF_CORE_READ(child, nsproxy);
	bool has_own_users = BPF_CORE_READ(parent, cred, user_ns) != BPF_CORE_READ(child, cred, user_ns);

	inherit_interpreter(parent, child);
	if (before == after && !has_own_users)
		return;
	__u64 flags = has_own_users ? NAMESPACES_NEW_USER : 0;

	if (BPF_CORE_READ(before, mnt_ns) != BPF_CORE_READ(after, mnt_ns))
		flags |= NAMESPACES_NEW_MOUNT;
	if (BPF_CORE_READ(before, uts_ns) != BPF_CORE_READ(after, uts_ns))
		flags |= NAMESPACES_NEW_UTS;
	if (BPF_CORE_READ(before, ipc_ns) != BPF_CORE_READ(after, ipc_ns))
		flags |= NAMESPACES_NEW_IPC;
	if (BPF_CORE_READ(before, net_ns) != BPF_CORE_READ(after, net_ns))
		flags |= NAMESPACES_NEW_NETWORK;
	if (BPF_CORE_READ(before, cgroup_ns) != BPF_CORE_READ(after, cgroup_ns))
		flags |= NAMESPACES_NEW_CGROUP;
	if (BPF_CORE_READ(before, pid_ns_for_children) != BPF_CORE_READ(after, pid_ns_for_children))
		flags |= NAMESPACES_NEW_PID;
	struct activity_header *record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);

	if (!record) {
		count(COUNTER_ACTIVITY_DROPPED + OPERATION_CLONE);
		return;
	}
	__builtin_memset(record, 0, sizeof(*record));
	name_process(&record->header, parent);
	record->header.kind = RECORD_ACTIVITY;
	record->header.length = sizeof(*record);
	record->header.observed_ns = bpf_ktime_get_ns();
	record->operation = OPERATION_CLONE;
	record->result = BPF_CORE_READ(child, tgid);
	record->values[0] = flags;
	bpf_ringbuf_submit(record, wakeup());
}

#endif
