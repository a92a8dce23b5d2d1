/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * DNS messages and the first datagram of each flow, where packets leave and enter a socket: whatever system call
 * or ring they came by. Who asks is kept with the socket from its creation; the sockets that are there already
 * are named when the programs are loaded.
 */
#ifndef CORDON_PACKETS_BPF_H
#define CORDON_PACKETS_BPF_H

#define PORT_DNS 53
#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd
#define PACKET_PASSES 1

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct owner);
} socket_owners SEC(".maps");

struct flow_key {
	__u64 socket;
	__u8 peer[16];
	__u16 peer_port;
	__u16 reserved[3];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FLOWS_MAX);
	__type(key, struct flow_key);
	__type(value, __u8);
} flows SEC(".maps");

/* What is read of a packet's headers. Ports in host order. */
struct packet {
	__u16 family;
	__u16 source_port;
	__u16 destination_port;
	__u8 protocol;
	__u8 source[16];
	__u8 destination[16];
	/* Where the payload begins. */
	__u32 payload;
};

static __always_inline bool read_packet(struct __sk_buff *skb, struct packet *packet)
{
	__u32 transport;
	__u16 ports[2];

	if (skb->protocol == bpf_htons(ETHERTYPE_IPV4)) {
		__u8 header[20];

		if (bpf_skb_load_bytes(skb, 0, header, sizeof(header)))
			return false;
		packet->family = ADDRESS_FAMILY_IPV4;
		packet->protocol = header[9];
		/* A fragment after the first has no ports. */
		if ((header[6] & 0x1f) || header[7])
			return false;
		__builtin_memcpy(packet->source, header + 12, 4);
		__builtin_memcpy(packet->destination, header + 16, 4);
		transport = (header[0] & 15) * 4;
	} else if (skb->protocol == bpf_htons(ETHERTYPE_IPV6)) {
		__u8 header[40];

		if (bpf_skb_load_bytes(skb, 0, header, sizeof(header)))
			return false;
		packet->family = ADDRESS_FAMILY_IPV6;
		packet->protocol = header[6];
		__builtin_memcpy(packet->source, header + 8, 16);
		__builtin_memcpy(packet->destination, header + 24, 16);
		transport = 40;
	} else {
		return false;
	}
	if (packet->protocol != IPPROTO_UDP && packet->protocol != IPPROTO_TCP)
		return false;
	if (bpf_skb_load_bytes(skb, transport, ports, sizeof(ports)))
		return false;
	packet->source_port = bpf_ntohs(ports[0]);
	packet->destination_port = bpf_ntohs(ports[1]);
	packet->payload = transport + 8;
	if (packet->protocol == IPPROTO_TCP) {
		__u8 offset;

		if (packet->source_port != PORT_DNS && packet->destination_port != PORT_DNS)
			return false;
		if (bpf_skb_load_bytes(skb, transport + 12, &offset, sizeof(offset)))
			return false;
		packet->payload = transport + (offset >> 4) * 4;
	}
	return true;
}

static __always_inline void describe_packet(struct flow_record *record, const struct packet *packet,
					    const struct owner *owner, bool ingress)
{
	struct record_header *header = &record->ends.header;

	__builtin_memset(record, 0, sizeof(*record));
	header->observed_ns = bpf_ktime_get_ns();
	if (owner)
		take_owner(header, owner);
	record->ends.family = packet->family;
	record->ends.protocol = packet->protocol;
	record->ends.ingress = ingress;
	record->ends.source_port = packet->source_port;
	record->ends.destination_port = packet->destination_port;
	__builtin_memcpy(record->ends.source_address, packet->source, 16);
	__builtin_memcpy(record->ends.destination_address, packet->destination, 16);
}

struct dns_record {
	struct flow_record flow;
	__u8 message[DNS_BYTES_MAX];
};

static __always_inline void tell_dns(struct __sk_buff *skb, const struct packet *packet, const struct owner *owner,
				     bool ingress)
{
	__u64 bytes = skb->len - packet->payload;

	/* An acknowledgement, or the length of a message alone. */
	if (skb->len <= packet->payload + 2)
		return;
	struct dns_record *record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);

	if (!record) {
		count(COUNTER_DNS_DROPPED);
		return;
	}
	describe_packet(&record->flow, packet, owner, ingress);
	record->flow.ends.header.kind = RECORD_DNS;
	record->flow.ends.header.length = sizeof(*record);
	if (bytes > DNS_BYTES_MAX)
		bytes = DNS_BYTES_MAX;
	record->flow.message_bytes = bytes;
	/* At least one byte, in a form that the verifier of Linux 6.1 follows as well. */
	barrier_var(bytes);
	bytes = ((bytes - 1) & (DNS_BYTES_MAX - 1)) + 1;
	if (bpf_skb_load_bytes(skb, packet->payload, record->message, bytes) == 0)
		bpf_ringbuf_submit(record, wakeup());
	else
		bpf_ringbuf_discard(record, BPF_RB_NO_WAKEUP);
}

static __always_inline void tell_datagram(struct __sk_buff *skb, const struct packet *packet,
					  const struct owner *owner, bool ingress)
{
	struct flow_key key = { .socket = bpf_get_socket_cookie(skb) };
	__u8 one = 1;

	__builtin_memcpy(key.peer, ingress ? packet->source : packet->destination, 16);
	key.peer_port = ingress ? packet->source_port : packet->destination_port;
	if (bpf_map_lookup_elem(&flows, &key) || bpf_map_update_elem(&flows, &key, &one, BPF_NOEXIST))
		return;
	struct flow_record *record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);

	if (!record) {
		count(COUNTER_DATAGRAM_DROPPED);
		return;
	}
	describe_packet(record, packet, owner, ingress);
	record->ends.header.kind = RECORD_DATAGRAM;
	record->ends.header.length = sizeof(*record);
	bpf_ringbuf_submit(record, wakeup());
}

static __always_inline int look_at(struct __sk_buff *skb, bool ingress)
{
	struct packet packet = {};
	struct owner *owner = NULL;
	struct bpf_sock *socket;

	if (!read_packet(skb, &packet))
		return PACKET_PASSES;
	socket = skb->sk;
	if (socket)
		socket = bpf_sk_fullsock(socket);
	if (socket)
		owner = bpf_sk_storage_get(&socket_owners, socket, NULL, 0);
	if (owner) {
		struct record_header named = { .pid = owner->pid, .start_ticks = owner->start_ticks };

		if (is_excluded(&named))
			return PACKET_PASSES;
	}
	if (packet.source_port == PORT_DNS || packet.destination_port == PORT_DNS)
		tell_dns(skb, &packet, owner, ingress);
	else if (packet.protocol == IPPROTO_UDP)
		tell_datagram(skb, &packet, owner, ingress);
	return PACKET_PASSES;
}

SEC("cgroup_skb/egress")
int on_packet_out(struct __sk_buff *skb)
{
	return look_at(skb, false);
}

SEC("cgroup_skb/ingress")
int on_packet_in(struct __sk_buff *skb)
{
	return look_at(skb, true);
}

SEC("cgroup/sock_create")
int on_socket(struct bpf_sock *socket)
{
	struct owner *owner = bpf_sk_storage_get(&socket_owners, socket, NULL, BPF_SK_STORAGE_GET_F_CREATE);

	if (owner)
		name_owner(owner, (struct task_struct *)bpf_get_current_task());
	return PACKET_PASSES;
}

/* Run once, over all descriptors of all processes. */
SEC("iter/task_file")
int name_open_sockets(struct bpf_iter__task_file *context)
{
	struct file *file = context->file;
	struct task_struct *task = context->task;

	if (!file || !task)
		return 0;
	struct socket *socket = bpf_sock_from_file(file);

	if (!socket || !socket->sk)
		return 0;
	struct owner *owner = bpf_sk_storage_get(&socket_owners, socket->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);

	/* The first that holds it, which is the one with the lowest pid. */
	if (owner && owner->pid == 0)
		name_owner(owner, task);
	return 0;
}

#endif
