/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What processes do by system calls. One program at their exit, where the registers still hold the arguments
 * beside the result: it looks at the kernel's own objects wherever a descriptor leads to one, because the
 * caller's memory can be changed by another thread by then. Calls of 32-bit programs are told under the
 * numbers of x86-64. What io_uring does passes by.
 */
#ifndef CORDON_SYSTEM_CALLS_BPF_H
#define CORDON_SYSTEM_CALLS_BPF_H

static __always_inline void dispatch(struct task_struct *task, const struct call *call)
{
	switch (call->number) {
	case CALL_READ:
	case CALL_PREAD64:
		if (call->result > 0)
			tell_script(task, call->first, call->second, call->result);
		return;
	case CALL_OPEN:
	case CALL_OPENAT:
	case CALL_OPENAT2:
	case CALL_CREAT:
	case CALL_OPEN_BY_HANDLE_AT:
		if (call->result >= 0)
			tell_opened(task, call);
		return;
	case CALL_MMAP:
	case CALL_MPROTECT:
		if (call->third & PROTECTION_EXECUTE)
			tell_executable_memory(task, call);
		return;
	case CALL_SOCKET:
		if (call->result >= 0)
			tell_raw_socket(task, call);
		return;
	case CALL_ACCEPT:
	case CALL_ACCEPT4:
		if (call->result >= 0)
			tell_accepted(task, call);
		return;
	case CALL_BIND:
	case CALL_LISTEN:
		tell_listening(task, call);
		return;
	case CALL_PTRACE:
		if (is_told_request(call->first))
			tell_process_access(task, call, OPERATION_PTRACE);
		return;
	case CALL_PROCESS_VM_READV:
		tell_process_access(task, call, OPERATION_VM_READ);
		return;
	case CALL_PROCESS_VM_WRITEV:
		tell_process_access(task, call, OPERATION_VM_WRITE);
		return;
	case CALL_MEMFD_CREATE:
		if (call->result >= 0)
			tell_memory_file(task, call);
		return;
	case CALL_INIT_MODULE:
	case CALL_FINIT_MODULE:
	case CALL_DELETE_MODULE:
		tell_module(task, call);
		return;
	case CALL_BPF:
		tell_bpf(task, call);
		return;
	case CALL_UNSHARE:
	case CALL_SETNS:
		if (call->result == 0)
			tell_namespace(task, call);
		return;
	case CALL_MOUNT:
	case CALL_UMOUNT2:
	case CALL_MOVE_MOUNT:
	case CALL_PIVOT_ROOT:
		tell_mount(task, call);
		return;
	case CALL_SETUID:
	case CALL_SETGID:
	case CALL_SETREUID:
	case CALL_SETREGID:
	case CALL_SETGROUPS:
	case CALL_SETRESUID:
	case CALL_SETRESGID:
	case CALL_SETFSUID:
	case CALL_SETFSGID:
	case CALL_CAPSET:
		if (call->result >= 0)
			tell_credentials(task, call);
		return;
	case CALL_CHMOD:
	case CALL_FCHMOD:
	case CALL_FCHMODAT:
	case CALL_FCHMODAT2:
	case CALL_CHOWN:
	case CALL_FCHOWN:
	case CALL_LCHOWN:
	case CALL_FCHOWNAT:
	case CALL_SETXATTR:
	case CALL_LSETXATTR:
	case CALL_FSETXATTR:
	case CALL_REMOVEXATTR:
	case CALL_LREMOVEXATTR:
	case CALL_FREMOVEXATTR:
		if (call->result == 0)
			tell_attributes(task, call);
		return;
	}
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_system_call, struct pt_regs *registers, long result)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct call call = { .number = registers->orig_ax, .result = result };

	if (task->thread_info.status & STATUS_COMPAT) {
		call.number = number_of_compat(call.number);
		/* The last page of numbers are errors; below it a mapping may lie in the upper half of 4 GB. */
		call.result = (__u32)result >= 0xfffff001 ? (__s64)(__s32)result : (__s64)(__u32)result;
		call.first = (__u32)registers->bx;
		call.second = (__u32)registers->cx;
		call.third = (__u32)registers->dx;
		call.fourth = (__u32)registers->si;
		call.fifth = (__u32)registers->di;
	} else {
		call.first = registers->di;
		call.second = registers->si;
		call.third = registers->dx;
		call.fourth = registers->r10;
		call.fifth = registers->r8;
	}
	dispatch(task, &call);
	return 0;
}

#endif
