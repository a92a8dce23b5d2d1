/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Processes that start, run a program and end. */
#ifndef CORDON_PROCESSES_BPF_H
#define CORDON_PROCESSES_BPF_H

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

/* Appends the command line at `offset` of the text; returns how many bytes of it are there. */
static __always_inline __u32 copy_arguments(struct exec_record *record, __u32 offset, struct task_struct *task)
{
	unsigned long start = BPF_CORE_READ(task, mm, arg_start);
	__u64 length = BPF_CORE_READ(task, mm, arg_end) - start;

	if (length > ARGUMENT_BYTES_MAX) {
		length = ARGUMENT_BYTES_MAX;
		record->header.header.flags |= FLAG_ARGUMENTS_TRUNCATED;
	}
	barrier_var(offset);
	offset &= TEXT_OFFSET_MASK;
	barrier_var(length);
	length &= ARGUMENT_BYTES_MAX | (ARGUMENT_BYTES_MAX - 1);
	if (length > ARGUMENT_BYTES_MAX)
		return 0;
	if (bpf_probe_read_user(&record->text.bytes[offset], length, (void *)start) == 0)
		return length;
	/* A page has been taken away already: the beginning is worth more than nothing. */
	record->header.header.flags |= FLAG_ARGUMENTS_TRUNCATED;
	__u64 in_page = 4096 - (start & 4095);

	if (in_page > length)
		in_page = length;
	barrier_var(in_page);
	in_page &= TEXT_LENGTH_MASK;
	return bpf_probe_read_user(&record->text.bytes[offset], in_page, (void *)start) == 0 ? in_page : 0;
}

/* Whether a variable may be one that is told, by its first four bytes: the agent knows the whole names. */
static __always_inline bool may_be_told(__u32 beginning)
{
	if ((beginning & 0xffffff) == FOUR('L', 'D', '_', 0))
		return true;
	switch (beginning) {
	case FOUR('B', 'A', 'S', 'H'):
	case FOUR('E', 'N', 'V', '='):
	case FOUR('P', 'R', 'O', 'M'):
	case FOUR('P', 'Y', 'T', 'H'):
	case FOUR('P', 'E', 'R', 'L'):
	case FOUR('R', 'U', 'B', 'Y'):
	case FOUR('N', 'O', 'D', 'E'):
	case FOUR('J', 'A', 'V', 'A'):
	case FOUR('G', 'C', 'O', 'N'):
	case FOUR('G', 'L', 'I', 'B'):
	case FOUR('H', 'I', 'S', 'T'):
	case FOUR('S', 'S', 'H', '_'):
	case FOUR('S', 'U', 'D', 'O'):
		return true;
	}
	return false;
}

struct environment_walk {
	struct exec_record *record;
	unsigned long position;
	unsigned long end;
	__u32 used;
	/* The last piece was the beginning of a longer variable, which goes on here. */
	bool inside;
};

static long copy_variable(__u32 index, void *context)
{
	struct environment_walk *walk = context;
	__u32 used = walk->used;
	__u32 beginning = 0;

	if (walk->position >= walk->end || used > ENVIRONMENT_BYTES_MAX - VARIABLE_BYTES_MAX)
		return 1;
	/* Into its place at once: what is not told is overwritten by the next. */
	barrier_var(used);
	used &= ENVIRONMENT_BYTES_MAX - 1;
	__u8 *place = &walk->record->text.bytes[used];
	long length = bpf_probe_read_user_str(place, VARIABLE_BYTES_MAX, (void *)walk->position);

	if (length <= 0)
		return 1;
	__builtin_memcpy(&beginning, place, sizeof(beginning));
	if (!walk->inside && may_be_told(beginning))
		walk->used = used + length;
	/* Without the zero that ends a piece which was cut. */
	walk->inside = length == VARIABLE_BYTES_MAX;
	walk->position += walk->inside ? length - 1 : length;
	return 0;
}

/* Puts the variables that may be told at the start of the text; returns their bytes. */
static __always_inline __u32 copy_environment(struct exec_record *record, struct task_struct *task)
{
	struct environment_walk walk = {
		.record = record,
		.position = BPF_CORE_READ(task, mm, env_start),
		.end = BPF_CORE_READ(task, mm, env_end),
	};

	bpf_loop(ENVIRONMENT_VARIABLES_MAX, copy_variable, &walk, 0);
	return walk.used;
}

struct kernfs_node___before_6_14 {
	struct kernfs_node *parent;
} __attribute__((preserve_access_index));

struct kernfs_node___from_6_14 {
	struct kernfs_node *__parent;
} __attribute__((preserve_access_index));

static __always_inline struct kernfs_node *folder_above(struct kernfs_node *node)
{
	struct kernfs_node___from_6_14 *underscored = (void *)node;
	struct kernfs_node___before_6_14 *plain = (void *)node;

	if (bpf_core_field_exists(underscored->__parent))
		return BPF_CORE_READ(underscored, __parent);
	return BPF_CORE_READ(plain, parent);
}

/*
 * The folder that tells containers apart: that of cgroup v2, or where everything is at its root (a host that uses
 * v1) that of the controller of process numbers, which runtimes always set.
 */
static __always_inline struct kernfs_node *cgroup_folder(struct task_struct *task)
{
	struct kernfs_node *folder = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn);

	if (folder_above(folder) || !bpf_core_enum_value_exists(enum cgroup_subsys_id, pids_cgrp_id))
		return folder;
	__u32 pids = bpf_core_enum_value(enum cgroup_subsys_id, pids_cgrp_id);
	struct css_set *set = BPF_CORE_READ(task, cgroups);
	struct cgroup_subsys_state *state;

	/* The index is of the running kernel, so the field's own offset cannot carry it. */
	if (bpf_core_read(&state, sizeof(state), (void *)&set->subsys[0] + pids * sizeof(state)))
		return folder;
	return BPF_CORE_READ(state, cgroup, kn);
}

/* Appends the names of the cgroup's folders, from the leaf up, at `offset`; returns their bytes. */
static __always_inline __u32 copy_cgroup(struct exec_record *record, __u32 offset, struct task_struct *task)
{
	struct kernfs_node *folder = cgroup_folder(task);
	__u32 used = 0;

#pragma unroll
	for (int level = 0; level < CGROUP_LEVELS_MAX; level++) {
		struct kernfs_node *above = folder_above(folder);

		if (!above || used > CGROUP_BYTES_MAX - 128)
			break;
		__u32 place = offset + used;

		barrier_var(place);
		place &= TEXT_OFFSET_MASK;
		long length = bpf_probe_read_kernel_str(&record->text.bytes[place], 128, BPF_CORE_READ(folder, name));

		if (length <= 0)
			break;
		used += length;
		folder = above;
	}
	return used;
}

static __always_inline void name_namespaces(struct exec_header *header, struct task_struct *task)
{
	struct nsproxy *proxy = BPF_CORE_READ(task, nsproxy);

	header->namespaces[NAMESPACE_MOUNT] = BPF_CORE_READ(proxy, mnt_ns, ns.inum);
	header->namespaces[NAMESPACE_PID] = BPF_CORE_READ(proxy, pid_ns_for_children, ns.inum);
	header->namespaces[NAMESPACE_NETWORK] = BPF_CORE_READ(proxy, net_ns, ns.inum);
	header->namespaces[NAMESPACE_UTS] = BPF_CORE_READ(proxy, uts_ns, ns.inum);
	header->namespaces[NAMESPACE_IPC] = BPF_CORE_READ(proxy, ipc_ns, ns.inum);
	header->namespaces[NAMESPACE_CGROUP] = BPF_CORE_READ(proxy, cgroup_ns, ns.inum);
	header->namespaces[NAMESPACE_TIME] = BPF_CORE_READ(proxy, time_ns, ns.inum);
	header->namespaces[NAMESPACE_USER] = BPF_CORE_READ(task, cred, user_ns, ns.inum);
}

/* The controlling terminal, as stat(2) numbers devices inside the kernel; 0: none. */
static __always_inline __u32 terminal_of(struct task_struct *task)
{
	struct tty_struct *terminal = BPF_CORE_READ(task, signal, tty);

	if (!terminal)
		return 0;
	struct tty_driver *driver = BPF_CORE_READ(terminal, driver);

	return BPF_CORE_READ(driver, major) << 20 |
	       (BPF_CORE_READ(driver, minor_start) + BPF_CORE_READ(terminal, index));
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
	if (BPF_CORE_READ(inode, i_nlink) == 0)
		header->header.flags |= FLAG_UNLINKED;
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
	header->effective_user_id = BPF_CORE_READ(task, cred, euid.val);
	header->effective_group_id = BPF_CORE_READ(task, cred, egid.val);
	header->login_user_id = bpf_core_field_exists(task->loginuid) ? BPF_CORE_READ(task, loginuid.val) : ~0u;
	header->session_id = session_id(task);
	header->terminal = terminal_of(task);
	name_namespaces(header, task);
	bpf_probe_read_kernel_str(header->invoked_as, sizeof(header->invoked_as), BPF_CORE_READ(binprm, filename));

	struct file *file = BPF_CORE_READ(binprm, file);
	struct fs_struct *directories = BPF_CORE_READ(task, fs);
	struct path path;

	describe_file(header, file);
	header->environment_bytes = copy_environment(record, task);
	__u32 total = header->environment_bytes;

	header->cgroup_bytes = copy_cgroup(record, total, task);
	total += header->cgroup_bytes;
	header->argument_bytes = copy_arguments(record, total, task);
	total += header->argument_bytes;
	BPF_CORE_READ_INTO(&path, file, f_path);
	header->executable_bytes =
		copy_path(&record->text, total, &path, &header->header.flags, FLAG_EXECUTABLE_TRUNCATED);
	total += header->executable_bytes;
	BPF_CORE_READ_INTO(&path, directories, pwd);
	header->working_directory_bytes =
		copy_path(&record->text, total, &path, &header->header.flags, FLAG_WORKING_DIRECTORY_TRUNCATED);
	total += header->working_directory_bytes + sizeof(*header);

	barrier_var(total);
	total &= RECORD_TOTAL_MASK;
	if (total > sizeof(*record))
		return 0;
	header->header.length = total;
	if (bpf_ringbuf_output(&records, record, total, wakeup()))
		count(COUNTER_EXEC_DROPPED);
#ifndef CORDON_CORE_ONLY
	watch_interpreter(task, &header->header, file);
#endif
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
	bpf_ringbuf_submit(record, wakeup());
#ifndef CORDON_CORE_ONLY
	forget_interpreter(named.pid);
#endif
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
	bpf_ringbuf_submit(record, wakeup());
#ifndef CORDON_CORE_ONLY
	after_fork((void *)context->args[0], child);
#endif
	return 0;
}

#endif
