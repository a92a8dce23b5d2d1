/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the kernel programs share: the ring, the counters, scratch memory, and who is left out. */
#ifndef CORDON_MAPS_BPF_H
#define CORDON_MAPS_BPF_H

/* The data area is twice what is used: an offset and a length are each bounded by a mask. */
#define TEXT_OFFSET_MASK 0x3fff
#define TEXT_LENGTH_MASK 0x1fff
#define RECORD_TOTAL_MASK 0x7fff

struct text_area {
	__u8 bytes[TEXT_OFFSET_MASK + TEXT_LENGTH_MASK + 2];
};

struct exec_record {
	struct exec_header header;
	struct text_area text;
};

struct activity_record {
	struct activity_header header;
	struct text_area text;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	/* The loader sets the size that the agent asks for. */
	__uint(max_entries, 4 * 1024 * 1024);
} records SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct exec_record);
} exec_scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct path_buffer);
} path_scratch SEC(".maps");

/*
 * Mapped into the agent, which reads it without a system call. Counts are added to atomically, and only on loss. The
 * last, BELL_SLOT, is not 0 while the agent sleeps and wants to be woken.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, COUNTER_SLOTS + 1);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* Pid to start ticks of the processes that are left out. The start keeps a reused pid visible. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, EXCLUDED_PROCESSES_MAX);
	__type(key, __u32);
	__type(value, __u64);
} excluded SEC(".maps");

static __always_inline void count(__u32 slot)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &slot);

	if (counter)
		__sync_fetch_and_add(counter, 1);
}

/* How to hand a record over: the first one wakes an agent that sleeps, and no other does. */
static __always_inline __u64 wakeup(void)
{
	__u32 slot = BELL_SLOT;
	__u64 *armed = bpf_map_lookup_elem(&counters, &slot);

	if (!armed || !*armed)
		return BPF_RB_NO_WAKEUP;
	*armed = 0;
	return BPF_RB_FORCE_WAKEUP;
}

static __always_inline bool is_excluded(const struct record_header *header)
{
	__u32 pid = header->pid;
	__u64 *start = bpf_map_lookup_elem(&excluded, &pid);

	return start && *start == header->start_ticks;
}

/* Appends the path at `offset`; returns its length and sets `flag` in `flags` when it is not whole. */
static __always_inline __u32 copy_path(struct text_area *text, __u32 offset, const struct path *path, __u8 *flags,
				       __u8 flag)
{
	__u32 zero = 0;
	__u32 start;
	struct path_buffer *buffer = bpf_map_lookup_elem(&path_scratch, &zero);

	if (!buffer)
		return 0;
	if (!walk_path(buffer, path, &start))
		*flags |= flag;
	__u32 length = PATH_BYTES_MAX - start;

	barrier_var(length);
	length &= TEXT_LENGTH_MASK;
	barrier_var(offset);
	offset &= TEXT_OFFSET_MASK;
	start &= PATH_BYTES_MAX - 1;
	if (length > PATH_BYTES_MAX || bpf_probe_read_kernel(&text->bytes[offset], length, &buffer->bytes[start]))
		return 0;
	return length;
}

#endif
