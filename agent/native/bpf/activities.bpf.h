/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How an activity is put together: who did it, numbers, and up to two texts. */
#ifndef CORDON_ACTIVITIES_BPF_H
#define CORDON_ACTIVITIES_BPF_H

#define MODE_TYPE_MASK 0170000
#define MODE_BLOCK_DEVICE 0060000
#define MODE_REGULAR 0100000
#define MODE_SOCKET 0140000
#define MAGIC_PROC 0x9fa0
/* fmode_t */
#define OPENED_FOR_READING 1
#define OPENED_FOR_WRITING 2

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct activity_record);
} activity_scratch SEC(".maps");

/* Null when the process is left out. Only for programs that nothing of ours can interrupt on this processor. */
static __always_inline struct activity_record *begin_activity(struct task_struct *task, __u16 operation)
{
	__u32 zero = 0;
	struct activity_record *record = bpf_map_lookup_elem(&activity_scratch, &zero);

	if (!record)
		return NULL;
	__builtin_memset(&record->header, 0, sizeof(record->header));
	name_process(&record->header.header, task);
	if (is_excluded(&record->header.header))
		return NULL;
	record->header.header.kind = RECORD_ACTIVITY;
	record->header.header.observed_ns = bpf_ktime_get_ns();
	record->header.operation = operation;
	return record;
}

static __always_inline void tell_activity(struct activity_record *record)
{
	__u32 total = sizeof(record->header) + record->header.first_bytes + record->header.second_bytes;

	barrier_var(total);
	total &= RECORD_TOTAL_MASK;
	if (total > sizeof(*record))
		return;
	record->header.header.length = total;
	if (bpf_ringbuf_output(&records, record, total, wakeup()))
		count(COUNTER_ACTIVITY_DROPPED + (record->header.operation & 31));
}

static __always_inline void add_path(struct activity_record *record, const struct path *path)
{
	record->header.first_bytes = copy_path(&record->text, 0, path, &record->header.header.flags, FLAG_EXECUTABLE_TRUNCATED);
}

static __always_inline void add_path_of(struct activity_record *record, struct file *file)
{
	struct path path;

	BPF_CORE_READ_INTO(&path, file, f_path);
	add_path(record, &path);
}

/* Appends a text of the caller's memory, with its zero, to the second text; returns its bytes. */
static __always_inline __u32 add_callers_text(struct activity_record *record, __u64 address, __u32 bytes_max)
{
	__u32 used = record->header.second_bytes;
	__u32 place = record->header.first_bytes + used;

	barrier_var(place);
	place &= TEXT_OFFSET_MASK;
	barrier_var(bytes_max);
	bytes_max &= TEXT_LENGTH_MASK;
	long length = bpf_probe_read_user_str(&record->text.bytes[place], bytes_max, (void *)address);

	if (length < 0)
		return 0;
	record->header.second_bytes = used + length;
	return length;
}

/* Appends a name that the kernel holds, without its zero, as the second text. */
static __always_inline void add_kernel_text(struct activity_record *record, const void *address, __u32 bytes_max)
{
	__u32 place = record->header.first_bytes;

	barrier_var(place);
	place &= TEXT_OFFSET_MASK;
	barrier_var(bytes_max);
	bytes_max &= 255;
	long length = bpf_probe_read_kernel_str(&record->text.bytes[place], bytes_max, address);

	record->header.second_bytes = length > 0 ? length - 1 : 0;
}

/* The open file behind a descriptor of the current process, or null. */
static __always_inline struct file *file_of(struct task_struct *task, __u32 descriptor)
{
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file *file = NULL;

	if (descriptor >= BPF_CORE_READ(table, max_fds))
		return NULL;
	struct file **slots = BPF_CORE_READ(table, fd);

	bpf_probe_read_kernel(&file, sizeof(file), slots + descriptor);
	return file;
}

static __always_inline struct sock *socket_of(struct task_struct *task, __u32 descriptor)
{
	struct file *file = file_of(task, descriptor);

	if (!file || (BPF_CORE_READ(file, f_inode, i_mode) & MODE_TYPE_MASK) != MODE_SOCKET)
		return NULL;
	struct socket *socket = BPF_CORE_READ(file, private_data);

	return BPF_CORE_READ(socket, sk);
}

#endif
