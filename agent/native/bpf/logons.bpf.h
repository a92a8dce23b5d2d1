/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Logons as PAM sees them: probes in the library's own functions, wherever a program loads it. */
#ifndef CORDON_LOGONS_BPF_H
#define CORDON_LOGONS_BPF_H

#define LOGON_TEXT_BYTES 64
#define LOGON_TEXTS 4
/* Of struct pam_handle (libpam/pam_private.h), the same since Linux-PAM 0.99: after five pointers. */
#define HANDLE_SERVICE 40
#define HANDLE_USER 48
#define HANDLE_PEER 56
#define HANDLE_TERMINAL 72

struct pam_call {
	__u64 thread;
	__u64 function;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct pam_call);
	__type(value, __u64);
} pam_calls SEC(".maps");

struct logon_record {
	struct activity_header header;
	__u8 texts[LOGON_TEXTS][LOGON_TEXT_BYTES];
};

/* The cookie of each probe says which function it is on (enum pam_function). */
SEC("uprobe")
int on_pam_call(struct pt_regs *context)
{
	struct pam_call key = { .thread = bpf_get_current_pid_tgid(), .function = bpf_get_attach_cookie(context) };
	__u64 handle = PT_REGS_PARM1(context);

	bpf_map_update_elem(&pam_calls, &key, &handle, BPF_ANY);
	return 0;
}

static __always_inline void copy_item(__u8 *text, __u64 handle, __u64 offset)
{
	__u64 address = 0;

	bpf_probe_read_user(&address, sizeof(address), (void *)(handle + offset));
	if (address == 0 || bpf_probe_read_user_str(text, LOGON_TEXT_BYTES, (void *)address) < 0)
		text[0] = 0;
}

SEC("uretprobe")
int on_pam_return(struct pt_regs *context)
{
	struct pam_call key = { .thread = bpf_get_current_pid_tgid(), .function = bpf_get_attach_cookie(context) };
	__u64 *found = bpf_map_lookup_elem(&pam_calls, &key);

	if (!found)
		return 0;
	__u64 handle = *found;

	bpf_map_delete_elem(&pam_calls, &key);
	/* In the ring itself: a probe may be interrupted by another, so there is no scratch to share. */
	struct logon_record *record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);

	if (!record) {
		count(COUNTER_ACTIVITY_DROPPED + OPERATION_LOGON);
		return 0;
	}
	__builtin_memset(record, 0, sizeof(*record));
	name_process(&record->header.header, (struct task_struct *)bpf_get_current_task());
	record->header.header.kind = RECORD_ACTIVITY;
	record->header.header.length = sizeof(*record);
	record->header.header.observed_ns = bpf_ktime_get_ns();
	record->header.operation = OPERATION_LOGON;
	record->header.second_bytes = sizeof(record->texts);
	record->header.values[0] = key.function;
	record->header.values[1] = (__u32)PT_REGS_RC(context);
	copy_item(record->texts[0], handle, HANDLE_USER);
	copy_item(record->texts[1], handle, HANDLE_SERVICE);
	copy_item(record->texts[2], handle, HANDLE_PEER);
	copy_item(record->texts[3], handle, HANDLE_TERMINAL);
	bpf_ringbuf_submit(record, wakeup());
	return 0;
}

#endif
