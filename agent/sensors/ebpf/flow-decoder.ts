/** Takes apart `struct flow_record` (`agent/native/bpf/records.h`): accepts, closes, datagrams, listeners and DNS. */

import { addressText } from '../address-text.ts'
import type {
  AcceptRecord,
  CloseRecord,
  DatagramRecord,
  DnsRecord,
  ListenRecord,
  ProcessReference,
} from '../records.ts'
import { processKey, timestampMs, word64 } from './record-reader.ts'

type FlowRecord = AcceptRecord | CloseRecord | DatagramRecord | ListenRecord | DnsRecord

/** Without the message of DNS. */
export const flowBytes = 120
const kinds = { accept: 6, close: 7, datagram: 8, listen: 9, dns: 10 } as const
const protocols = { tcp: 6, udp: 17 } as const
/** A message over TCP begins with its length (RFC 1035, 4.2.2). */
const tcpLengthBytes = 2

/** Null when the record does not hold together. */
export function decodeFlow(
  buffer: Buffer,
  offset: number,
  recordBytes: number,
  wallOffsetMs: number,
): FlowRecord | null {
  const key = processKey(buffer, offset)
  // A socket that was there before its owner could be named belongs to nobody.
  const process: ProcessReference | null = key.pid === 0 ? null : key
  const observed = { timestampMs: timestampMs(buffer, offset, wallOffsetMs), process }
  const protocol = buffer[offset + 54]
  const transport = protocol === protocols.tcp ? 'tcp' : 'udp'
  const family = buffer.readUInt16LE(offset + 48)
  const ends = {
    transport,
    sourceAddress: addressText(family, buffer.subarray(offset + 56, offset + 72)),
    sourcePort: buffer.readUInt16LE(offset + 50),
    destinationAddress: addressText(family, buffer.subarray(offset + 72, offset + 88)),
    destinationPort: buffer.readUInt16LE(offset + 52),
    direction: buffer[offset + 55] === 0 ? 'egress' : 'ingress',
  } as const
  switch (buffer[offset + 4]) {
    case kinds.accept:
      return { kind: 'accept', ...observed, ...ends }
    case kinds.close:
      return {
        kind: 'close',
        ...observed,
        ...ends,
        durationNs: word64(buffer, offset + 88),
        sourceBytes: word64(buffer, offset + 96),
        destinationBytes: word64(buffer, offset + 104),
      }
    case kinds.datagram:
      return { kind: 'datagram', ...observed, ...ends }
    case kinds.listen:
      return {
        kind: 'listen',
        ...observed,
        transport: protocol === protocols.tcp || protocol === protocols.udp ? transport : 'other',
        address: ends.sourceAddress,
        port: ends.sourcePort,
      }
    case kinds.dns: {
      const messageBytes = buffer.readUInt32LE(offset + 112)
      if (flowBytes + messageBytes > recordBytes) return null
      const skipped = transport === 'tcp' ? tcpLengthBytes : 0
      const start = offset + flowBytes
      // A copy, because the buffer is filled again.
      const message = new Uint8Array(buffer.subarray(start + skipped, start + messageBytes))
      return { kind: 'dns', ...observed, ...ends, message }
    }
    default:
      return null
  }
}
