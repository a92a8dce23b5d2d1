/**
 * Netlink messages (netlink(7)) as the addon packs them (`agent/native/addon/netlink.c`), and the header of those
 * that are sent.
 */

const headerBytes = 16
/** Message types of linux/netlink.h. */
export const NETLINK_TYPES = { error: 2, done: 3 } as const
/** NLM_F_REQUEST, and the same with NLM_F_ACK. */
export const NETLINK_FLAGS = { request: 1, requestAcknowledged: 5 } as const

const LENGTH_BYTES = 4

export interface NetlinkMessage {
  readonly type: number
  readonly sequence: number
  /** What follows the header, valid until the next drain. */
  readonly payload: Buffer
}

export interface UnpackTarget {
  readonly message: (message: NetlinkMessage) => void
  /** The kernel dropped messages at this point: they were not fetched in time. */
  readonly overflow: () => void
}

/**
 * Takes `length` bytes of `buffer` apart; false when they did not hold together. One datagram is one message,
 * whatever length its header tells: the kernel's audit leaves the header out of it.
 */
export function unpackMessages(buffer: Buffer, length: number, target: UnpackTarget): boolean {
  const end = Math.min(length, buffer.length)
  let offset = 0
  while (offset + LENGTH_BYTES <= end) {
    const bytes = buffer.readUInt32LE(offset)
    const start = offset + LENGTH_BYTES
    if (start + bytes > end) return false
    offset = start + ((bytes + 3) & ~3)
    if (bytes === 0) target.overflow()
    else if (bytes < headerBytes) return false
    else {
      target.message({
        type: buffer.readUInt16LE(start + 4),
        sequence: buffer.readUInt32LE(start + 8),
        payload: buffer.subarray(start + headerBytes, start + bytes),
      })
    }
  }
  return offset >= end
}

export function netlinkMessage(type: number, flags: number, sequence: number, payload: Buffer): Buffer {
  const message = Buffer.alloc(headerBytes + payload.length)
  message.writeUInt32LE(message.length, 0)
  message.writeUInt16LE(type, 4)
  message.writeUInt16LE(flags, 6)
  message.writeUInt32LE(sequence, 8)
  payload.copy(message, headerBytes)
  return message
}
