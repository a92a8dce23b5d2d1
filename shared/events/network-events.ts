/** Connections, sockets and names. Addresses of `source` and `destination` are those of the packets' first direction. */
import Type from 'typebox'
import { oneOf } from '../protocol/one-of.ts'
import { Address, byActor, Count, Port, Text } from './fields.ts'

const network = {
  'network.transport': oneOf(['tcp', 'udp']),
  'network.type': oneOf(['ipv4', 'ipv6']),
  'network.direction': oneOf(['egress', 'ingress']),
}

const endpoints = {
  'source.ip': Type.Optional(Address),
  'source.port': Type.Optional(Port),
  'destination.ip': Address,
  'destination.port': Port,
}

/** An outbound TCP connection. */
export const Connection = byActor('network', 'start', 'connection', {
  'event.outcome': oneOf(['success', 'failure', 'unknown']),
  ...network,
  ...endpoints,
})
export const ConnectionAccepted = byActor('network', 'start', 'connection-accepted', {
  ...network,
  ...endpoints,
})
export const ConnectionClosed = byActor('network', 'end', 'connection-closed', {
  ...network,
  ...endpoints,
  /** Nanoseconds. */
  'event.duration': Type.Optional(Count),
  'source.bytes': Count,
  'destination.bytes': Count,
})
/** The first datagram between a socket and a peer. */
export const DatagramFlow = byActor('network', 'start', 'datagram-flow', { ...network, ...endpoints })

export const SocketListen = byActor('network', 'info', 'socket-listen', {
  'network.transport': oneOf(['tcp', 'udp', 'other']),
  'network.type': oneOf(['ipv4', 'ipv6']),
  'server.ip': Address,
  'server.port': Port,
})
/** A socket that sees or makes packets below TCP and UDP. */
export const RawSocket = byActor('network', 'info', 'raw-socket', {
  'cordon.socket.family': oneOf(['ipv4', 'ipv6', 'packet']),
  'cordon.socket.protocol': Count,
})

const dns = {
  ...network,
  ...endpoints,
  'dns.id': Text(5),
  'dns.question.name': Text(512),
  'dns.question.type': Text(16),
}
export const DnsQuery = byActor('network', 'protocol', 'dns-query', dns)
export const DnsAnswer = byActor('network', 'protocol', 'dns-answer', {
  ...dns,
  'dns.response_code': Text(16),
  /** As `TYPE data`. */
  'cordon.dns.answers': Type.Optional(Type.Array(Text(512), { maxItems: 16 })),
  'dns.resolved_ip': Type.Optional(Type.Array(Address, { maxItems: 16 })),
})
