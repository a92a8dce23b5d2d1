// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Cordon's kernel programs: processes that start, run a program and end, and outbound TCP connections. They
 * only observe. Raw tracepoints, because they need neither tracefs nor a trampoline; the arguments are copied
 * in the exec tracepoint itself, where the new stack has just been written, so no process is too short-lived.
 *
 * `scripts/build-native.ts --regenerate` compiles this into cordon.lskel.h.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

/* Hides a value from the compiler, so that the bound written after it stays where the verifier looks. */
#ifndef barrier_var
#define barrier_var(value) asm volatile("" : "+r"(value))
#endif

#include "records.h"
#include "kernel.bpf.h"
#include "paths.bpf.h"

#define ADDRESS_FAMILY_IPV4 2
#define ADDRESS_FAMILY_IPV6 10

/* The data area is twice what is used: an offset and a length are each bounded by a mask. */
#define EXEC_OFFSET_MASK 0x3fff
#define EXEC_LENGTH_MASK 0x1fff
#define EXEC_TOTAL_MASK 0x7fff

struct exec_record {
	struct exec_header header;
	__u8 data[EXEC_OFFSET_MASK + EXEC_LENGTH_MASK + 2];
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

/* Mapped into the agent, which reads it without a system call. Added to atomically, and only on loss. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, COUNTER_SLOTS);
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

struct pending_connection {
	__u32 pid;
	__u32 parent_pid;
	__u64 start_ticks;
	__u64 parent_start_ticks;
	__u64 attempted_ns;
	__u32 attempt_told;
	__u32 reserved;
};

/* Socket to the process that connects it: the outcome arrives in whatever context the network runs. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, CONNECTIONS_MAX);
	__type(key, __u64);
	__type(value, struct pending_connection);
} connections SEC(".maps");

struct ended_process {
	__u64 pid;
	__u64 start_ticks;
};

/* Only for kernels that do not tell the last thread's exit from the others. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct ended_process);
	__type(value, __u8);
} ended SEC(".maps");

static __always_inline void count(__u32 slot)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &slot);

	if (counter)
		__sync_fetch_and_add(counter, 1);
}

static __always_inline bool is_excluded(const struct record_header *header)
{
	__u32 pid = header->pid;
	__u64 *start = bpf_map_lookup_elem(&excluded, &pid);

	return start && *start == header->start_ticks;
}

/* Returns how many bytes of the command line are at the start of the data. */
static __always_inline __u32 copy_arguments(struct exec_record *record, struct task_struct *task)
{
	unsigned long start = BPF_CORE_READ(task, mm, arg_start);
	__u64 length = BPF_CORE_READ(task, mm, arg_end) - start;

	if (length > ARGUMENT_BYTES_MAX) {
		length = ARGUMENT_BYTES_MAX;
		record->header.header.flags |= FLAG_ARGUMENTS_TRUNCATED;
	}
	barrier_var(length);
	length &= ARGUMENT_BYTES_MAX | (ARGUMENT_BYTES_MAX - 1);
	if (bpf_probe_read_user(record->data, length, (void *)start) == 0)
		return length;
	/* A page has been taken away already: the beginning is worth more than nothing. */
	record->header.header.flags |= FLAG_ARGUMENTS_TRUNCATED;
	__u64 in_page = 4096 - (start & 4095);

	if (in_page > length)
		in_page = length;
	barrier_var(in_page);
	in_page &= EXEC_LENGTH_MASK;
	return bpf_probe_read_user(record->data, in_page, (void *)start) == 0 ? in_page : 0;
}

/* Appends the path at `offset` of the data; returns its length and sets `flag` when it is not whole. */
static __always_inline __u32 copy_path(struct exec_record *record, __u32 offset, const struct path *path,
				       __u8 flag)
{
	__u32 zero = 0;
	__u32 start;
	struct path_buffer *buffer = bpf_map_lookup_elem(&path_scratch, &zero);

	if (!buffer)
		return 0;
	if (!walk_path(buffer, path, &start))
		record->header.header.flags |= flag;
	__u32 length = PATH_BYTES_MAX - start;

	barrier_var(length);
	length &= EXEC_LENGTH_MASK;
	barrier_var(offset);
	offset &= EXEC_OFFSET_MASK;
	start &= PATH_BYTES_MAX - 1;
	if (length > PATH_BYTES_MAX || bpf_probe_read_kernel(&record->data[offset], length, &buffer->bytes[start]))
		return 0;
	return length;
}

static __always_inline void describe_file(struct exec_header *header, struct file *file)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);

	if (!inode)
		return;
	header->device = device_as_stat(inode);
	header->inode = BPF_CORE_READ(inode, i_ino);
	header->size_bytes = BPF_CORE_READ(inode, i_size);
	header->changed_ns = change_time_ns(inode);
	header->header.flags |= FLAG_FILE_KNOWN;
}

/* TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm) */
SEC("raw_tp/sched_process_exec")
int on_exec(struct bpf_raw_tracepoint_args *context)
{
	struct task_struct *task = (void *)context->args[0];
	struct linux_binprm *binprm = (void *)context->args[2];
	__u32 zero = 0;
	struct exec_record *record = bpf_map_lookup_elem(&exec_scratch, &zero);

	if (!record)
		return 0;
	struct exec_header *header = &record->header;

	__builtin_memset(header, 0, sizeof(*header));
	name_process(&header->header, task);
	if (is_excluded(&header->header))
		return 0;
	header->header.kind = RECORD_EXEC;
	header->header.observed_ns = bpf_ktime_get_ns();
	__u64 owner = bpf_get_current_uid_gid();

	header->user_id = owner;
	header->group_id = owner >> 32;
	header->session_id = session_id(task);

	struct file *file = BPF_CORE_READ(binprm, file);
	struct fs_struct *directories = BPF_CORE_READ(task, fs);
	struct path path;

	describe_file(header, file);
	header->argument_bytes = copy_arguments(record, task);
	__u32 total = header->argument_bytes;

	BPF_CORE_READ_INTO(&path, file, f_path);
	header->executable_bytes = copy_path(record, total, &path, FLAG_EXECUTABLE_TRUNCATED);
	total += header->executable_bytes;
	BPF_CORE_READ_INTO(&path, directories, pwd);
	header->working_directory_bytes = copy_path(record, total, &path, FLAG_WORKING_DIRECTORY_TRUNCATED);
	total += header->working_directory_bytes + sizeof(*header);

	barrier_var(total);
	total &= EXEC_TOTAL_MASK;
	if (total > sizeof(*record))
		return 0;
	header->header.length = total;
	if (bpf_ringbuf_output(&records, record, total, BPF_RB_NO_WAKEUP))
		count(COUNTER_EXEC_DROPPED);
	return 0;
}

/* TP_PROTO(struct task_struct *p[, bool group_dead]) */
SEC("raw_tp/sched_process_exit")
int on_exit(struct bpf_raw_tracepoint_args *context)
{
	struct task_struct *task = (void *)context->args[0];
	struct record_header named = {};

	if (exit_tells_group_dead()) {
		if (!(context->args[1] & 1))
			return 0;
		name_process(&named, task);
	} else {
		if (BPF_CORE_READ(task, signal, live.counter) != 0)
			return 0;
		name_process(&named, task);
		/* Two threads that leave together both see nobody alive: only the first tells it. */
		struct ended_process key = { .pid = named.pid, .start_ticks = named.start_ticks };
		__u8 one = 1;

		if (bpf_map_update_elem(&ended, &key, &one, BPF_NOEXIST))
			return 0;
	}
	if (is_excluded(&named)) {
		bpf_map_delete_elem(&excluded, &named.pid);
		return 0;
	}

	struct exit_record *record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);

	if (!record) {
		count(COUNTER_EXIT_DROPPED);
		return 0;
	}
	__u32 group_status = BPF_CORE_READ(task, signal, group_exit_code);

	record->header = named;
	record->header.length = sizeof(*record);
	record->header.kind = RECORD_EXIT;
	record->header.observed_ns = bpf_ktime_get_ns();
	record->wait_status = group_status ? group_status : (__u32)BPF_CORE_READ(task, exit_code);
	record->reserved = 0;
	bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	return 0;
}

/* TP_PROTO(struct task_struct *parent, struct task_struct *child) */
SEC("raw_tp/sched_process_fork")
int on_fork(struct bpf_raw_tracepoint_args *context)
{
	struct task_struct *child = (void *)context->args[1];

	/* A thread shares its leader's thread group. */
	if (BPF_CORE_READ(child, pid) != BPF_CORE_READ(child, tgid))
		return 0;
	struct fork_record *record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);

	if (!record) {
		count(COUNTER_FORK_DROPPED);
		return 0;
	}
	__builtin_memset(record, 0, sizeof(*record));
	name_process(&record->header, child);
	record->header.length = sizeof(*record);
	record->header.kind = RECORD_FORK;
	record->header.observed_ns = bpf_ktime_get_ns();
	bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	return 0;
}

static __always_inline void describe_socket(struct connect_record *record, struct sock *socket)
{
	record->socket = (__u64)socket;
	record->family = BPF_CORE_READ(socket, __sk_common.skc_family);
	record->source_port = BPF_CORE_READ(socket, __sk_common.skc_num);
	record->destination_port = bpf_ntohs(BPF_CORE_READ(socket, __sk_common.skc_dport));
	if (record->family == ADDRESS_FAMILY_IPV4) {
		BPF_CORE_READ_INTO((__u32 *)record->source_address, socket, __sk_common.skc_rcv_saddr);
		BPF_CORE_READ_INTO((__u32 *)record->destination_address, socket, __sk_common.skc_daddr);
	} else if (record->family == ADDRESS_FAMILY_IPV6) {
		BPF_CORE_READ_INTO((struct in6_addr *)record->source_address, socket, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO((struct in6_addr *)record->destination_address, socket, __sk_common.skc_v6_daddr);
	}
}

static __always_inline bool tell_connection(struct sock *socket, const struct pending_connection *pending,
					    __u8 kind, __u8 flags)
{
	struct connect_record *record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);

	if (!record) {
		count(COUNTER_CONNECT_DROPPED);
		return false;
	}
	__builtin_memset(record, 0, sizeof(*record));
	record->header.length = sizeof(*record);
	record->header.kind = kind;
	record->header.flags = flags;
	record->header.observed_ns = pending->attempted_ns;
	record->header.pid = pending->pid;
	record->header.start_ticks = pending->start_ticks;
	record->header.parent_pid = pending->parent_pid;
	record->header.parent_start_ticks = pending->parent_start_ticks;
	describe_socket(record, socket);
	bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	return true;
}

/* In the context of the process that connects: the only moment at which it is known for certain. */
static __always_inline void begin_connection(struct sock *socket)
{
	struct record_header named = {};
	struct pending_connection pending = {};
	__u64 key = (__u64)socket;

	name_process(&named, (struct task_struct *)bpf_get_current_task());
	if (is_excluded(&named))
		return;
	pending.pid = named.pid;
	pending.parent_pid = named.parent_pid;
	pending.start_ticks = named.start_ticks;
	pending.parent_start_ticks = named.parent_start_ticks;
	pending.attempted_ns = bpf_ktime_get_ns();
	pending.attempt_told = tell_connection(socket, &pending, RECORD_CONNECT_ATTEMPT, 0);
	bpf_map_update_elem(&connections, &key, &pending, BPF_ANY);
}

/* TP_PROTO(const struct sock *sk, const int oldstate, const int newstate) */
SEC("raw_tp/inet_sock_set_state")
int on_tcp_state(struct bpf_raw_tracepoint_args *context)
{
	struct sock *socket = (void *)context->args[0];
	int old_state = context->args[1];
	int new_state = context->args[2];
	__u64 key = (__u64)socket;

	if (BPF_CORE_READ(socket, sk_protocol) != IPPROTO_TCP)
		return 0;
	if (new_state == BPF_TCP_SYN_SENT) {
		begin_connection(socket);
		return 0;
	}
	/* From SYN_RECV as well: both ends of a connection may open it at once. */
	if (old_state != BPF_TCP_SYN_SENT && old_state != BPF_TCP_SYN_RECV)
		return 0;
	if (new_state == BPF_TCP_SYN_RECV)
		return 0;
	struct pending_connection *found = bpf_map_lookup_elem(&connections, &key);

	if (!found)
		return 0;
	struct pending_connection pending = *found;
	__u8 flags = (new_state == BPF_TCP_ESTABLISHED ? FLAG_CONNECTED : 0) |
		     (pending.attempt_told ? FLAG_ATTEMPT_TOLD : 0);

	bpf_map_delete_elem(&connections, &key);
	tell_connection(socket, &pending, RECORD_CONNECT_OUTCOME, flags);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
