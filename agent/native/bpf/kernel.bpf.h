/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is read from the kernel's own structures, whose fields moved between versions. */
#ifndef CORDON_KERNEL_BPF_H
#define CORDON_KERNEL_BPF_H

#define NANOSECONDS_PER_TICK 10000000ull
#define NANOSECONDS_PER_SECOND 1000000000ull

/* Shapes of other kernel versions. CO-RE ignores what follows the three underscores. */
struct inode___before_6_6 {
	struct timespec64 i_ctime;
} __attribute__((preserve_access_index));

struct inode___from_6_6 {
	struct timespec64 __i_ctime;
} __attribute__((preserve_access_index));

/* From 6.11. The highest bit of the nanoseconds is a flag of the kernel (I_CTIME_QUERIED, 6.13). */
struct inode___from_6_11 {
	time64_t i_ctime_sec;
	__u32 i_ctime_nsec;
} __attribute__((preserve_access_index));

#define CHANGE_TIME_NANOSECONDS_MASK 0x7fffffffu

static __always_inline __u64 change_time_ns(struct inode *inode)
{
	struct inode___from_6_11 *split = (void *)inode;
	struct inode___from_6_6 *underscored = (void *)inode;
	struct inode___before_6_6 *plain = (void *)inode;

	if (bpf_core_field_exists(split->i_ctime_sec))
		return (__u64)BPF_CORE_READ(split, i_ctime_sec) * NANOSECONDS_PER_SECOND +
		       (BPF_CORE_READ(split, i_ctime_nsec) & CHANGE_TIME_NANOSECONDS_MASK);
	if (bpf_core_field_exists(underscored->__i_ctime))
		return (__u64)BPF_CORE_READ(underscored, __i_ctime.tv_sec) * NANOSECONDS_PER_SECOND +
		       BPF_CORE_READ(underscored, __i_ctime.tv_nsec);
	return (__u64)BPF_CORE_READ(plain, i_ctime.tv_sec) * NANOSECONDS_PER_SECOND +
	       BPF_CORE_READ(plain, i_ctime.tv_nsec);
}

/* The kernel keeps 12 bits of major above 20 of minor; stat(2) has the minor's upper bits above the major. */
static __always_inline __u64 device_as_stat(struct inode *inode)
{
	__u32 device = BPF_CORE_READ(inode, i_sb, s_dev);
	__u32 major = device >> 20;
	__u32 minor = device & 0xfffff;

	return (minor & 0xff) | (major << 8) | ((__u64)(minor & ~0xffu) << 12);
}

static __always_inline __u64 start_ticks(struct task_struct *task)
{
	return BPF_CORE_READ(task, group_leader, start_boottime) / NANOSECONDS_PER_TICK;
}

/* Names the task's process and its parent by what cannot be reused. Pids are those of the first namespace. */
static __always_inline void name_process(struct record_header *header, struct task_struct *task)
{
	struct task_struct *parent = BPF_CORE_READ(task, group_leader, real_parent);

	header->pid = BPF_CORE_READ(task, tgid);
	header->start_ticks = start_ticks(task);
	header->parent_pid = BPF_CORE_READ(parent, tgid);
	header->parent_start_ticks = start_ticks(parent);
}

/* The session leader's pid, as getsid(2). */
static __always_inline __u32 session_id(struct task_struct *task)
{
	return BPF_CORE_READ(task, signal, pids[PIDTYPE_SID], numbers[0].nr);
}

/* Whether the exit tracepoint itself says that the last thread is leaving. */
static __always_inline bool exit_tells_group_dead(void)
{
	return bpf_core_field_exists(((struct trace_event_raw_sched_process_exit *)0)->group_dead);
}

#endif
