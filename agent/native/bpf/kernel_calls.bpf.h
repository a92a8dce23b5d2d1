/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Code that is given to the kernel, and namespaces that are made and entered. */
#ifndef CORDON_KERNEL_CALLS_BPF_H
#define CORDON_KERNEL_CALLS_BPF_H

static __noinline int tell_module(struct task_struct *task, const struct call *call)
{
	const bool unload = call->number == CALL_DELETE_MODULE;
	struct activity_record *record =
		begin_activity(task, unload ? OPERATION_MODULE_UNLOAD : OPERATION_MODULE_LOAD);

	if (!record)
		return 0;
	record->header.result = call->result;
	if (unload) {
		record->header.path_form = PATH_OF_CALLER;
		add_callers_text(record, call->first, 64);
	} else if (call->number == CALL_FINIT_MODULE) {
		struct file *file = file_of(task, call->first);

		if (file)
			add_path_of(record, file);
	}
	tell_activity(record);
	return 0;
}

#define BPF_COMMAND_PROG_LOAD 5
#define BPF_COMMAND_PROG_ATTACH 8
#define BPF_COMMAND_RAW_TRACEPOINT_OPEN 17
#define BPF_COMMAND_LINK_CREATE 28

/* The program that a command is about, from the descriptor that the kernel gave for it, or null. */
static __always_inline struct bpf_prog *program_of(struct task_struct *task, const struct call *call)
{
	__u32 descriptor = call->result;

	if (call->result < 0)
		return NULL;
	/* union bpf_attr: attach_bpf_fd. */
	if (call->first == BPF_COMMAND_PROG_ATTACH &&
	    bpf_probe_read_user(&descriptor, sizeof(descriptor), (void *)call->second + 4))
		return NULL;
	struct file *file = file_of(task, descriptor);

	if (!file)
		return NULL;
	if (call->first == BPF_COMMAND_PROG_LOAD || call->first == BPF_COMMAND_PROG_ATTACH)
		return BPF_CORE_READ(file, private_data);
	struct bpf_link *link = BPF_CORE_READ(file, private_data);

	return BPF_CORE_READ(link, prog);
}

static __noinline int tell_bpf(struct task_struct *task, const struct call *call)
{
	if (call->first != BPF_COMMAND_PROG_LOAD && call->first != BPF_COMMAND_PROG_ATTACH &&
	    call->first != BPF_COMMAND_RAW_TRACEPOINT_OPEN && call->first != BPF_COMMAND_LINK_CREATE)
		return 0;
	struct activity_record *record = begin_activity(task, OPERATION_BPF);

	if (!record)
		return 0;
	struct bpf_prog *program = program_of(task, call);

	record->header.result = call->result;
	record->header.values[0] = call->first;
	if (program) {
		/* One more than the type, so that 0 says that there is none. */
		record->header.values[1] = BPF_CORE_READ(program, type) + 1;
		add_kernel_text(record, &BPF_CORE_READ(program, aux)->name[0], 16);
	}
	tell_activity(record);
	return 0;
}

/* Before 6.18 the kind stands with the operations. */
struct proc_ns_operations___with_type {
	int type;
} __attribute__((preserve_access_index));

struct ns_common___with_operations {
	struct proc_ns_operations___with_type *ops;
} __attribute__((preserve_access_index));

struct ns_common___with_type {
	__u32 ns_type;
} __attribute__((preserve_access_index));

/* Of which kind a namespace is that setns(2) was given without saying. */
static __always_inline __u64 namespace_type_of(struct task_struct *task, __u32 descriptor)
{
	struct file *file = file_of(task, descriptor);
	void *namespace = file ? BPF_CORE_READ(file, f_inode, i_private) : NULL;
	struct ns_common___with_type *typed = namespace;
	struct ns_common___with_operations *operated = namespace;
	struct proc_ns_operations___with_type *operations;

	if (!namespace)
		return 0;
	if (bpf_core_field_exists(typed->ns_type))
		return BPF_CORE_READ(typed, ns_type);
	operations = BPF_CORE_READ(operated, ops);
	if (!bpf_core_field_exists(operations->type))
		return 0;
	return (__u32)BPF_CORE_READ(operations, type);
}

static __noinline int tell_namespace(struct task_struct *task, const struct call *call)
{
	const bool enters = call->number == CALL_SETNS;
	struct activity_record *record = begin_activity(task, enters ? OPERATION_SETNS : OPERATION_UNSHARE);

	if (!record)
		return 0;
	record->header.values[0] = enters ? call->second : call->first;
	if (enters && call->second == 0)
		record->header.values[0] = namespace_type_of(task, call->first);
	tell_activity(record);
	return 0;
}

#endif
