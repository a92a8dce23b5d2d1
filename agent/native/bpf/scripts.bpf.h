/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What interpreters read: they are known from their exec on, and only they are looked at. */
#ifndef CORDON_SCRIPTS_BPF_H
#define CORDON_SCRIPTS_BPF_H

struct interpreter {
	__u64 start_ticks;
	/* Bytes that may still be told. */
	__u32 bytes_left;
	/* Of `pending`. */
	__u32 pending_bytes;
	/* Shells read pipes a byte at a time: a line is told at once. */
	__u8 pending[256];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, INTERPRETERS_MAX);
	__type(key, __u32);
	__type(value, struct interpreter);
} interpreters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct interpreter);
} interpreter_scratch SEC(".maps");

/* By the beginning of the program's own name, as the kernel holds it. */
static __always_inline bool is_interpreter(struct file *file)
{
	__u8 name[8] = {};
	__u32 four;

	bpf_probe_read_kernel_str(name, sizeof(name), BPF_CORE_READ(file, f_path.dentry, d_name.name));
	__builtin_memcpy(&four, name, sizeof(four));
	switch (four) {
	case FOUR('s', 'h', 0, 0):
	case FOUR('k', 's', 'h', 0):
	case FOUR('z', 's', 'h', 0):
	case FOUR('a', 's', 'h', 0):
	case FOUR('l', 'u', 'a', 0):
	case FOUR('l', 'u', 'a', '5'):
	case FOUR('p', 'h', 'p', 0):
	case FOUR('p', 'h', 'p', '7'):
	case FOUR('p', 'h', 'p', '8'):
	case FOUR('b', 'a', 's', 'h'):
	case FOUR('d', 'a', 's', 'h'):
	case FOUR('m', 'k', 's', 'h'):
	case FOUR('f', 'i', 's', 'h'):
	case FOUR('t', 'c', 's', 'h'):
	case FOUR('b', 'u', 's', 'y'):
	case FOUR('p', 'y', 't', 'h'):
	case FOUR('p', 'e', 'r', 'l'):
	case FOUR('r', 'u', 'b', 'y'):
	case FOUR('n', 'o', 'd', 'e'):
	case FOUR('t', 'c', 'l', 's'):
	case FOUR('g', 'a', 'w', 'k'):
	case FOUR('m', 'a', 'w', 'k'):
	case FOUR('a', 'w', 'k', 0):
		return true;
	}
	return false;
}

static __always_inline void start_interpreter(__u32 pid, __u64 start, __u32 bytes_left)
{
	__u32 zero = 0;
	struct interpreter *fresh = bpf_map_lookup_elem(&interpreter_scratch, &zero);

	if (!fresh)
		return;
	fresh->start_ticks = start;
	fresh->bytes_left = bytes_left;
	fresh->pending_bytes = 0;
	bpf_map_update_elem(&interpreters, &pid, fresh, BPF_ANY);
}

static __always_inline void watch_interpreter(struct task_struct *task, const struct record_header *header,
					      struct file *file)
{
	__u32 pid = header->pid;

	if (is_interpreter(file))
		start_interpreter(pid, header->start_ticks, SCRIPT_BYTES_MAX);
	else
		bpf_map_delete_elem(&interpreters, &pid);
}

static __always_inline void forget_interpreter(__u32 pid)
{
	bpf_map_delete_elem(&interpreters, &pid);
}

/* A shell that forked is an interpreter still. */
static __always_inline void inherit_interpreter(struct task_struct *parent, struct task_struct *child)
{
	__u32 pid = BPF_CORE_READ(parent, tgid);
	struct interpreter *found = bpf_map_lookup_elem(&interpreters, &pid);

	if (found)
		start_interpreter(BPF_CORE_READ(child, tgid), start_ticks(child), found->bytes_left);
}

static __always_inline int tell_chunk(struct task_struct *task, __u32 descriptor, struct file *file,
				      const void *content, __u32 bytes, __u64 whole_bytes, bool from_caller)
{
	struct activity_record *record = begin_activity(task, OPERATION_SCRIPT);

	if (!record)
		return 0;
	struct inode *inode = BPF_CORE_READ(file, f_inode);

	record->header.values[0] = descriptor;
	record->header.values[1] = BPF_CORE_READ(file, f_pos);
	record->header.values[2] = whole_bytes;
	record->header.values[3] = BPF_CORE_READ(inode, i_mode) & MODE_TYPE_MASK;
	record->header.values[4] = BPF_CORE_READ(inode, i_ino);
	if (record->header.values[3] == MODE_REGULAR)
		add_path_of(record, file);
	__u32 place = record->header.first_bytes;

	barrier_var(place);
	place &= TEXT_OFFSET_MASK;
	barrier_var(bytes);
	bytes &= TEXT_LENGTH_MASK;
	long failed = from_caller ? bpf_probe_read_user(&record->text.bytes[place], bytes, content)
				  : bpf_probe_read_kernel(&record->text.bytes[place], bytes, content);

	record->header.second_bytes = failed ? 0 : bytes;
	tell_activity(record);
	return 0;
}

/* Compiled programs and packed bytecode are no scripts. */
static __always_inline bool is_no_text(const void *content)
{
	__u32 beginning = 0;

	bpf_probe_read_user(&beginning, sizeof(beginning), content);
	return beginning == FOUR(0x7f, 'E', 'L', 'F') || beginning >> 16 == ('\r' | '\n' << 8) || beginning == 0;
}

static __noinline int tell_script(struct task_struct *task, __u32 descriptor, __u64 content, __s64 bytes_read)
{
	__u32 pid = task->tgid;
	struct interpreter *reader = bpf_map_lookup_elem(&interpreters, &pid);

	if (!reader)
		return 0;
	/* What is not looked at any more costs nothing from here on. */
	if (reader->bytes_left == 0) {
		bpf_map_delete_elem(&interpreters, &pid);
		return 0;
	}
	struct file *file = file_of(task, descriptor);

	if (!file)
		return 0;
	if (bytes_read < 4) {
		__u32 used = reader->pending_bytes & 255;
		__u8 last = 0;

		bpf_probe_read_user(&last, 1, (void *)content);
		reader->pending[used] = last;
		reader->pending_bytes = used + 1;
		if (last != '\n' && used < 254)
			return 0;
		reader->pending_bytes = 0;
		reader->bytes_left = reader->bytes_left > used ? reader->bytes_left - used - 1 : 0;
		return tell_chunk(task, descriptor, file, reader->pending, used + 1, used + 1, false);
	}
	if (is_no_text((void *)content))
		return 0;
	__u32 bytes = bytes_read > SCRIPT_CHUNK_BYTES_MAX ? SCRIPT_CHUNK_BYTES_MAX : bytes_read;

	reader->bytes_left = reader->bytes_left > bytes ? reader->bytes_left - bytes : 0;
	return tell_chunk(task, descriptor, file, (void *)content, bytes, bytes_read, true);
}

#endif
