/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* TCP connections, from the attempt to the close, with the process that made or accepted them. */
#ifndef CORDON_CONNECTIONS_BPF_H
#define CORDON_CONNECTIONS_BPF_H

#define ADDRESS_FAMILY_IPV4 2
#define ADDRESS_FAMILY_IPV6 10
/* sk_shutdown: the peer has said that it sends no more. */
#define RECEIVE_SHUTDOWN 1

/* Who a socket belongs to. */
struct owner {
	__u32 pid;
	__u32 parent_pid;
	__u64 start_ticks;
	__u64 parent_start_ticks;
};

struct tracked_connection {
	struct owner owner;
	__u64 attempted_ns;
	/* 0: not established yet. */
	__u64 established_ns;
	__u32 attempt_told;
	__u32 ingress;
};

/* Socket to the process that connects or accepted it: later steps arrive in whatever context the network runs. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, CONNECTIONS_MAX);
	__type(key, __u64);
	__type(value, struct tracked_connection);
} connections SEC(".maps");

static __always_inline void name_owner(struct owner *owner, struct task_struct *task)
{
	struct record_header named = {};

	name_process(&named, task);
	owner->pid = named.pid;
	owner->parent_pid = named.parent_pid;
	owner->start_ticks = named.start_ticks;
	owner->parent_start_ticks = named.parent_start_ticks;
}

static __always_inline void take_owner(struct record_header *header, const struct owner *owner)
{
	header->pid = owner->pid;
	header->parent_pid = owner->parent_pid;
	header->start_ticks = owner->start_ticks;
	header->parent_start_ticks = owner->parent_start_ticks;
}

/* The socket's own end as source and the peer as destination. */
static __always_inline void describe_socket(struct connect_record *record, struct sock *socket)
{
	record->socket = (__u64)socket;
	record->family = BPF_CORE_READ(socket, __sk_common.skc_family);
	record->protocol = BPF_CORE_READ(socket, sk_protocol);
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

static __always_inline bool tell_connection(struct sock *socket, const struct tracked_connection *tracked,
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
	record->header.observed_ns = tracked->attempted_ns;
	take_owner(&record->header, &tracked->owner);
	describe_socket(record, socket);
	bpf_ringbuf_submit(record, wakeup());
	return true;
}

/* In the context of the process that connects: the only moment at which it is known for certain. */
static __always_inline void begin_connection(struct sock *socket)
{
	struct record_header named = {};
	struct tracked_connection tracked = {};
	__u64 key = (__u64)socket;

	name_process(&named, (struct task_struct *)bpf_get_current_task());
	if (is_excluded(&named))
		return;
	tracked.owner.pid = named.pid;
	tracked.owner.parent_pid = named.parent_pid;
	tracked.owner.start_ticks = named.start_ticks;
	tracked.owner.parent_start_ticks = named.parent_start_ticks;
	tracked.attempted_ns = bpf_ktime_get_ns();
	tracked.attempt_told = tell_connection(socket, &tracked, RECORD_CONNECT_ATTEMPT, 0);
	bpf_map_update_elem(&connections, &key, &tracked, BPF_ANY);
}

static __always_inline void end_attempt(struct sock *socket, struct tracked_connection *tracked, bool connected)
{
	__u64 key = (__u64)socket;
	__u8 flags = (connected ? FLAG_CONNECTED : 0) | (tracked->attempt_told ? FLAG_ATTEMPT_TOLD : 0);

	tell_connection(socket, tracked, RECORD_CONNECT_OUTCOME, flags);
	if (connected)
		tracked->established_ns = bpf_ktime_get_ns();
	else
		bpf_map_delete_elem(&connections, &key);
}

static __always_inline void swap_ends(struct connect_record *record)
{
	__u16 port = record->source_port;
	__u8 address[16];

	record->source_port = record->destination_port;
	record->destination_port = port;
	__builtin_memcpy(address, record->source_address, sizeof(address));
	__builtin_memcpy(record->source_address, record->destination_address, sizeof(address));
	__builtin_memcpy(record->destination_address, address, sizeof(address));
}

#ifndef CORDON_CORE_ONLY
static __always_inline void end_connection(struct sock *socket, const struct tracked_connection *tracked)
{
	struct flow_record *record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	struct tcp_sock *tcp = (void *)socket;

	if (!record) {
		count(COUNTER_CLOSE_DROPPED);
		return;
	}
	__builtin_memset(record, 0, sizeof(*record));
	record->ends.header.length = sizeof(*record);
	record->ends.header.kind = RECORD_CLOSE;
	record->ends.header.observed_ns = bpf_ktime_get_ns();
	take_owner(&record->ends.header, &tracked->owner);
	describe_socket(&record->ends, socket);
	record->ends.ingress = tracked->ingress;
	record->duration_ns = record->ends.header.observed_ns - tracked->established_ns;
	/* What was sent again counts once. */
	__u64 sent = BPF_CORE_READ(tcp, bytes_sent) - BPF_CORE_READ(tcp, bytes_retrans);
	__u64 received = BPF_CORE_READ(tcp, bytes_received);

	/* The end of the peer's data counts as a byte. */
	if (received > 0 && BPF_CORE_READ(socket, sk_shutdown) & RECEIVE_SHUTDOWN)
		received--;
	if (tracked->ingress) {
		swap_ends(&record->ends);
		record->source_bytes = received;
		record->destination_bytes = sent;
	} else {
		record->source_bytes = sent;
		record->destination_bytes = received;
	}
	bpf_ringbuf_submit(record, wakeup());
}
#endif

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
	if (new_state != BPF_TCP_ESTABLISHED && new_state != BPF_TCP_CLOSE &&
	    old_state != BPF_TCP_SYN_SENT && old_state != BPF_TCP_SYN_RECV)
		return 0;
	/* Both ends of a connection may open it at once. */
	if (new_state == BPF_TCP_SYN_RECV)
		return 0;
	struct tracked_connection *tracked = bpf_map_lookup_elem(&connections, &key);

	if (!tracked)
		return 0;
	if (tracked->established_ns == 0) {
		end_attempt(socket, tracked, new_state == BPF_TCP_ESTABLISHED);
		return 0;
	}
	if (new_state != BPF_TCP_CLOSE)
		return 0;
#ifndef CORDON_CORE_ONLY
	end_connection(socket, tracked);
#endif
	bpf_map_delete_elem(&connections, &key);
	return 0;
}

#endif
