/** Sockets, connections and names, as the fields of events. */
import type { Described } from './described.ts'
import { parseDnsMessage } from './dns-message.ts'
import type {
  AcceptRecord,
  ActivityRecord,
  CloseRecord,
  DatagramRecord,
  DnsRecord,
  ListenRecord,
  RawSocketRecord,
} from './records.ts'

type NetworkRecord = AcceptRecord | CloseRecord | DatagramRecord | ListenRecord | RawSocketRecord | DnsRecord

const kinds: ReadonlySet<string> = new Set<NetworkRecord['kind']>([
  'accept',
  'close',
  'datagram',
  'listen',
  'raw-socket',
  'dns',
])

export function isNetworkRecord(record: ActivityRecord): record is NetworkRecord {
  return kinds.has(record.kind)
}

/** Null: what passed over port 53 is no message of DNS. */
export function describeNetwork(record: NetworkRecord): Described | null {
  switch (record.kind) {
    case 'accept':
      return { action: 'connection-accepted', fields: endpoints(record) }
    case 'datagram':
      return { action: 'datagram-flow', fields: endpoints(record) }
    case 'close':
      return {
        action: 'connection-closed',
        fields: {
          ...endpoints(record),
          'event.duration': record.durationNs ?? undefined,
          'source.bytes': record.sourceBytes,
          'destination.bytes': record.destinationBytes,
        },
      }
    case 'listen':
      return {
        action: 'socket-listen',
        fields: {
          'network.transport': record.transport,
          'network.type': networkType(record.address),
          'server.ip': record.address,
          'server.port': record.port,
        },
      }
    case 'raw-socket':
      return {
        action: 'raw-socket',
        fields: { 'cordon.socket.family': record.family, 'cordon.socket.protocol': record.protocol },
      }
    case 'dns':
      return describeDns(record)
  }
}

function endpoints(record: AcceptRecord | CloseRecord | DatagramRecord | DnsRecord) {
  return {
    'network.transport': record.transport,
    'network.type': networkType(record.destinationAddress),
    'network.direction': record.direction,
    ...(record.sourceAddress === '' ? {} : { 'source.ip': record.sourceAddress }),
    ...(record.sourcePort === 0 ? {} : { 'source.port': record.sourcePort }),
    'destination.ip': record.destinationAddress,
    'destination.port': record.destinationPort,
  }
}

function networkType(address: string): 'ipv4' | 'ipv6' {
  return address.includes(':') ? 'ipv6' : 'ipv4'
}

const RECORD_CHARACTERS_MAX = 512

function describeDns(record: DnsRecord): Described | null {
  const message = parseDnsMessage(record.message)
  if (message === null) return null
  const question = {
    ...endpoints(record),
    'dns.id': String(message.id),
    'dns.question.name': message.question.name,
    'dns.question.type': message.question.type,
  }
  if (!message.isAnswer) return { action: 'dns-query', fields: question }
  const addresses = message.answers.flatMap(({ address }) => address ?? [])
  const answers = message.answers.map(({ type, data }) => `${type} ${data}`.slice(0, RECORD_CHARACTERS_MAX))
  return {
    action: 'dns-answer',
    fields: {
      ...question,
      'dns.response_code': message.responseCode,
      ...(answers.length === 0 ? {} : { 'cordon.dns.answers': answers }),
      ...(addresses.length === 0 ? {} : { 'dns.resolved_ip': addresses }),
    },
  }
}
