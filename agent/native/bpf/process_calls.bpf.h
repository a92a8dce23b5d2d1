/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What processes do to each other, to themselves and to what lies below the file systems. */
#ifndef CORDON_PROCESS_CALLS_BPF_H
#define CORDON_PROCESS_CALLS_BPF_H

/* Pids are those that the caller sees: deeper than 0 they are of its own namespace. */
static __always_inline __u32 pid_namespace_depth(struct task_struct *task)
{
	return BPF_CORE_READ(task, thread_pid, level);
}

static __noinline int tell_process_access(struct task_struct *task, const struct call *call, __u16 operation)
{
	struct activity_record *record = begin_activity(task, operation);

	if (!record)
		return 0;
	const bool is_trace = operation == OPERATION_PTRACE;

	record->header.result = call->result;
	record->header.values[0] = is_trace ? call->first : 0;
	record->header.values[1] = is_trace ? call->second : call->first;
	record->header.values[2] = pid_namespace_depth(task);
	tell_activity(record);
	return 0;
}

/* PTRACE_*: only what looks into the other process, or changes it. */
static __always_inline bool is_told_request(__u64 request)
{
	return (request >= 1 && request <= 6) || (request >= 12 && request <= 16) || (request >= 18 && request <= 19) ||
	       (request >= 0x4204 && request <= 0x4206);
}

static __noinline int tell_opened(struct task_struct *task, const struct call *call)
{
	struct file *file = file_of(task, call->result);

	if (!file)
		return 0;
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	__u32 mode = BPF_CORE_READ(inode, i_mode) & MODE_TYPE_MASK;
	__u32 opened = BPF_CORE_READ(file, f_mode) & (OPENED_FOR_READING | OPENED_FOR_WRITING);
	__u16 operation = 0;

	if (mode == MODE_BLOCK_DEVICE) {
		operation = OPERATION_DEVICE_OPENED;
	} else if (mode == MODE_REGULAR && BPF_CORE_READ(inode, i_sb, s_magic) == MAGIC_PROC) {
		__u32 name = 0;

		/* Only `mem` is worth knowing of when it is read, and everything that can be written. */
		bpf_probe_read_kernel(&name, sizeof(name), BPF_CORE_READ(file, f_path.dentry, d_name.name));
		if (opened & OPENED_FOR_WRITING || name == FOUR('m', 'e', 'm', 0))
			operation = OPERATION_PROC_OPENED;
	}
	if (operation == 0 || opened == 0)
		return 0;
	struct activity_record *record = begin_activity(task, operation);

	if (!record)
		return 0;
	record->header.values[0] = opened;
	__u32 device = BPF_CORE_READ(inode, i_rdev);

	record->header.values[1] = device >> 20;
	record->header.values[2] = device & 0xfffff;
	add_path_of(record, file);
	tell_activity(record);
	return 0;
}

static __noinline int tell_memory_file(struct task_struct *task, const struct call *call)
{
	struct file *file = file_of(task, call->result);
	struct activity_record *record = file ? begin_activity(task, OPERATION_MEMORY_FILE) : NULL;

	if (!record)
		return 0;
	record->header.result = call->result;
	record->header.values[0] = call->second;
	add_kernel_text(record, BPF_CORE_READ(file, f_path.dentry, d_name.name), 255);
	tell_activity(record);
	return 0;
}

static __noinline int tell_credentials(struct task_struct *task, const struct call *call)
{
	struct activity_record *record = begin_activity(task, OPERATION_CREDENTIALS);
	const struct cred *credentials = BPF_CORE_READ(task, cred);

	if (!record)
		return 0;
	record->header.result = call->result;
	record->header.values[0] = call->number;
	record->header.values[1] = call->first;
	record->header.values[2] = call->second;
	record->header.values[3] = call->third;
	record->header.values[4] = BPF_CORE_READ(credentials, euid.val);
	bpf_core_read(&record->header.values[5], sizeof(__u64), &credentials->cap_effective);
	tell_activity(record);
	return 0;
}

#endif
