/**
 * Connections, accepted connections, listening and raw sockets. Audit tells a connect when the call returns: what
 * becomes of one that does not wait is unknown. It tells addresses as they were given, so the source of an
 * outbound connection is unknown too.
 */
import type { ProcessKey, SensorRecord } from '../records.ts'
import { intArgument, type ObservedCall } from './observed-call.ts'
import { parseSocketAddress, type SocketTable, type Transport } from './socket-table.ts'
import type { SystemCallName } from './system-calls.ts'

const families = { inet: 2, inet6: 10, packet: 17 } as const
/** Socket types of socket(2), without SOCK_CLOEXEC and SOCK_NONBLOCK. */
const typeMask = 0xf
const types = { stream: 1, datagram: 2, raw: 3 } as const
/** EINTR, EALREADY, EINPROGRESS, and what the kernel says inside for a call that a signal broke off. */
const undecided = new Set([-4, -114, -115, -512])
const anyAddress = { [families.inet]: '0.0.0.0', [families.inet6]: '::' }

type Add = (record: SensorRecord) => void

type Teller = (call: ObservedCall, process: ProcessKey, sockets: SocketTable, add: Add) => void

/** By system call. */
export const NETWORK_TELLERS: Partial<Readonly<Record<SystemCallName, Teller>>> = {
  socket: addSocket,
  connect: addConnect,
  bind: addBind,
  listen: addListen,
  accept: addAccept,
  accept4: addAccept,
}

function addSocket(call: ObservedCall, process: ProcessKey, sockets: SocketTable, add: Add): void {
  const family = intArgument(call, 0)
  const type = intArgument(call, 1) & typeMask
  const isInet = family === families.inet || family === families.inet6
  if (call.result < 0 || (!isInet && family !== families.packet)) return
  sockets.made(call.pid, call.result, transportOf(family, type, intArgument(call, 2)))
  if (isInet && type !== types.raw) return
  const protocol = intArgument(call, 2) & 0xffff
  add({
    kind: 'raw-socket',
    timestampMs: call.timestampMs,
    process,
    family: family === families.packet ? 'packet' : family === families.inet ? 'ipv4' : 'ipv6',
    // packet(7) takes its protocol in network order.
    protocol: family === families.packet ? ((protocol & 0xff) << 8) | (protocol >> 8) : protocol,
  })
}

function transportOf(family: number, type: number, protocol: number): Transport {
  if (family === families.packet) return 'other'
  if (type === types.stream && (protocol === 0 || protocol === 6)) return 'tcp'
  return type === types.datagram && (protocol === 0 || protocol === 17) ? 'udp' : 'other'
}

function addConnect(call: ObservedCall, process: ProcessKey, sockets: SocketTable, add: Add): void {
  const peer = call.socketAddress === null ? null : parseSocketAddress(call.socketAddress)
  if (peer === null || peer.port === 0) return
  const socket = sockets.find(call.pid, intArgument(call, 0))
  // A socket that nothing is known of is taken for TCP: rather one too many than an unseen connection.
  if (socket !== null && socket.transport !== 'tcp') return
  add({
    kind: 'connect',
    timestampMs: call.timestampMs,
    process,
    outcome: call.result === 0 ? 'success' : undecided.has(call.result) ? 'unknown' : 'failure',
    sourceAddress: socket?.local?.address ?? '',
    sourcePort: socket?.local?.port ?? 0,
    destinationAddress: peer.address,
    destinationPort: peer.port,
  })
}

/** A bound UDP socket receives; a TCP socket only once it listens. */
function addBind(call: ObservedCall, process: ProcessKey, sockets: SocketTable, add: Add): void {
  const local = call.socketAddress === null ? null : parseSocketAddress(call.socketAddress)
  if (local === null || call.result !== 0) return
  const fd = intArgument(call, 0)
  const { address, port } = local
  sockets.bound(call.pid, fd, { address, port })
  if (port === 0 || sockets.find(call.pid, fd)?.transport !== 'udp') return
  add({ kind: 'listen', timestampMs: call.timestampMs, process, transport: 'udp', address, port })
}

function addListen(call: ObservedCall, process: ProcessKey, sockets: SocketTable, add: Add): void {
  const fd = intArgument(call, 0)
  // Looked at first, because the descriptor may mean another socket than it did.
  const socket = sockets.look(call.pid, fd) ?? sockets.find(call.pid, fd)
  // Not of the internet: a unix socket, for one.
  if (socket === null || call.result !== 0) return
  const { address, port } = socket.local ?? { address: '0.0.0.0', port: 0 }
  add({
    kind: 'listen',
    timestampMs: call.timestampMs,
    process,
    transport: socket.transport === 'udp' ? 'other' : socket.transport,
    address,
    port,
  })
}

function addAccept(call: ObservedCall, process: ProcessKey, sockets: SocketTable, add: Add): void {
  if (call.result < 0) return
  const told = call.socketAddress === null ? null : parseSocketAddress(call.socketAddress)
  if (call.socketAddress !== null && told === null) return
  // Without an address the call did not ask for it: the descriptor may still be there to be looked at.
  const accepted = told === null ? sockets.look(call.pid, call.result) : null
  const peer = told ?? accepted?.remote ?? null
  if (peer === null) return
  sockets.made(call.pid, call.result, 'tcp')
  const local = accepted?.local ?? sockets.find(call.pid, intArgument(call, 0))?.local
  const family = peer.address.includes(':') ? families.inet6 : families.inet
  add({
    kind: 'accept',
    timestampMs: call.timestampMs,
    process,
    transport: 'tcp',
    direction: 'ingress',
    sourceAddress: peer.address,
    sourcePort: peer.port,
    destinationAddress: local?.address ?? anyAddress[family],
    destinationPort: local?.port ?? 0,
  })
}
