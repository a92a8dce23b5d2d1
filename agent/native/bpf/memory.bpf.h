/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Code that a process maps, and memory that it makes executable: from the mapping itself, not from the arguments. */
#ifndef CORDON_MEMORY_BPF_H
#define CORDON_MEMORY_BPF_H

#define PROTECTION_EXECUTE 4
#define VM_WRITE 2
#define VM_EXECUTE 4

struct library_key {
	__u32 pid;
	__u32 device;
	__u64 start_ticks;
	__u64 inode;
};

/* What was told: a process loads a library once, however many pieces of it are mapped. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, LIBRARIES_MAX);
	__type(key, struct library_key);
	__type(value, __u8);
} libraries SEC(".maps");

struct process_name {
	__u64 pid;
	__u64 start_ticks;
};

/* How often each process was told: those that compile their code at run time would tell nothing else. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct process_name);
	__type(value, __u32);
} executable_memory_told SEC(".maps");

struct mapping {
	__u64 flags;
	struct file *file;
	/* The process wrote to it: it holds pages of the process's own. */
	bool is_own;
};

static long read_mapping(struct task_struct *task, struct vm_area_struct *area, void *context)
{
	struct mapping *mapping = context;

	mapping->flags = BPF_CORE_READ(area, vm_flags);
	mapping->file = BPF_CORE_READ(area, vm_file);
	mapping->is_own = BPF_CORE_READ(area, anon_vma) != NULL;
	return 0;
}

static __always_inline int tell_library(struct task_struct *task, struct file *file)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	struct library_key key = {};
	__u8 one = 1;

	key.pid = BPF_CORE_READ(task, tgid);
	key.start_ticks = start_ticks(task);
	key.device = BPF_CORE_READ(inode, i_sb, s_dev);
	key.inode = BPF_CORE_READ(inode, i_ino);
	if (bpf_map_update_elem(&libraries, &key, &one, BPF_NOEXIST))
		return 0;
	struct activity_record *record = begin_activity(task, OPERATION_LIBRARY);

	if (!record)
		return 0;
	record->header.values[0] = device_as_stat(inode);
	record->header.values[1] = key.inode;
	add_path_of(record, file);
	tell_activity(record);
	return 0;
}

/* Whether this process may be told once more; counts it when not. */
static __always_inline bool may_tell_executable_memory(struct task_struct *task)
{
	struct process_name name = { .pid = BPF_CORE_READ(task, tgid), .start_ticks = start_ticks(task) };
	__u32 *told = bpf_map_lookup_elem(&executable_memory_told, &name);
	__u32 first = 1;

	if (!told) {
		bpf_map_update_elem(&executable_memory_told, &name, &first, BPF_ANY);
		return true;
	}
	if (*told >= EXECUTABLE_MEMORY_TOLD_MAX)
		return false;
	__sync_fetch_and_add(told, 1);
	return true;
}

/* After mmap(2) and mprotect(2) that asked for execution. */
static __noinline int tell_executable_memory(struct task_struct *task, const struct call *call)
{
	const bool is_mmap = call->number == CALL_MMAP;
	const __u64 address = is_mmap ? (__u64)call->result : call->first;
	struct mapping mapping = {};

	if (is_mmap ? call->result < 0 && call->result > -4096 : call->result != 0)
		return 0;
	if (bpf_find_vma(task, address, read_mapping, &mapping, 0) || !(mapping.flags & VM_EXECUTE))
		return 0;
	const bool is_writable = mapping.flags & VM_WRITE;

	if (is_mmap && mapping.file && !is_writable)
		return tell_library(task, mapping.file);
	/* Of memory that was never written there is nothing to fear, nor of a program's own code. */
	if (!is_writable && mapping.file && !mapping.is_own)
		return 0;
	struct activity_record *record = begin_activity(task, OPERATION_EXECUTABLE_MEMORY);

	if (!record)
		return 0;
	if (!may_tell_executable_memory(task)) {
		count(COUNTER_MEMORY_LEFT_OUT);
		return 0;
	}
	record->header.values[0] = is_mmap ? 1 : 2;
	record->header.values[1] = address;
	record->header.values[2] = call->second;
	record->header.values[3] = is_writable;
	if (mapping.file)
		add_path_of(record, mapping.file);
	tell_activity(record);
	return 0;
}

#endif
