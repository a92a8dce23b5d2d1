/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Sockets that accept, listen, or see packets below TCP and UDP. */
#ifndef CORDON_SOCKET_CALLS_BPF_H
#define CORDON_SOCKET_CALLS_BPF_H

static __noinline int tell_accepted(struct task_struct *task, const struct call *call)
{
	struct sock *socket = socket_of(task, call->result);
	struct tracked_connection tracked = {};
	struct record_header named = {};

	if (!socket || BPF_CORE_READ(socket, sk_protocol) != IPPROTO_TCP)
		return 0;
	name_process(&named, task);
	if (is_excluded(&named))
		return 0;
	struct flow_record *record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);

	name_owner(&tracked.owner, task);
	tracked.attempted_ns = bpf_ktime_get_ns();
	tracked.established_ns = tracked.attempted_ns;
	tracked.ingress = 1;
	__u64 key = (__u64)socket;

	bpf_map_update_elem(&connections, &key, &tracked, BPF_ANY);
	if (!record) {
		count(COUNTER_ACCEPT_DROPPED);
		return 0;
	}
	__builtin_memset(record, 0, sizeof(*record));
	record->ends.header = named;
	record->ends.header.length = sizeof(*record);
	record->ends.header.kind = RECORD_ACCEPT;
	record->ends.header.observed_ns = tracked.attempted_ns;
	describe_socket(&record->ends, socket);
	swap_ends(&record->ends);
	record->ends.ingress = 1;
	bpf_ringbuf_submit(record, wakeup());
	return 0;
}

/* After listen(2), and after bind(2) of what needs no listen. */
static __noinline int tell_listening(struct task_struct *task, const struct call *call)
{
	struct sock *socket = socket_of(task, call->first);
	struct record_header named = {};

	if (!socket || call->result != 0)
		return 0;
	__u16 family = BPF_CORE_READ(socket, __sk_common.skc_family);

	if (family != ADDRESS_FAMILY_IPV4 && family != ADDRESS_FAMILY_IPV6)
		return 0;
	if (call->number == CALL_BIND && BPF_CORE_READ(socket, sk_protocol) != IPPROTO_UDP)
		return 0;
	name_process(&named, task);
	if (is_excluded(&named))
		return 0;
	struct flow_record *record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);

	if (!record) {
		count(COUNTER_LISTEN_DROPPED);
		return 0;
	}
	__builtin_memset(record, 0, sizeof(*record));
	record->ends.header = named;
	record->ends.header.length = sizeof(*record);
	record->ends.header.kind = RECORD_LISTEN;
	record->ends.header.observed_ns = bpf_ktime_get_ns();
	describe_socket(&record->ends, socket);
	bpf_ringbuf_submit(record, wakeup());
	return 0;
}

#define SOCKET_RAW 3
#define ADDRESS_FAMILY_PACKET 17

static __noinline int tell_raw_socket(struct task_struct *task, const struct call *call)
{
	struct sock *socket = socket_of(task, call->result);

	if (!socket)
		return 0;
	__u16 family = BPF_CORE_READ(socket, __sk_common.skc_family);

	if (family != ADDRESS_FAMILY_PACKET &&
	    !(BPF_CORE_READ(socket, sk_type) == SOCKET_RAW &&
	      (family == ADDRESS_FAMILY_IPV4 || family == ADDRESS_FAMILY_IPV6)))
		return 0;
	struct activity_record *record = begin_activity(task, OPERATION_RAW_SOCKET);

	if (!record)
		return 0;
	record->header.result = call->result;
	record->header.values[0] = family;
	/* A packet socket keeps its protocol elsewhere; what was asked for is in network order. */
	record->header.values[1] = family == ADDRESS_FAMILY_PACKET ? bpf_ntohs((__u16)call->third)
								    : BPF_CORE_READ(socket, sk_protocol);
	tell_activity(record);
	return 0;
}

#endif
