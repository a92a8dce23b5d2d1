/** Messages of D-Bus ("Message Protocol" in its specification), and taking a stream of bytes apart into them. */
import { createReader, createWriter, Malformed, splitSignature, type Value } from './wire-format.ts'

export const MESSAGE_TYPES = { call: 1, reply: 2, error: 3, signal: 4 } as const
export const NO_REPLY_EXPECTED = 1

export interface Message {
  readonly type: number
  readonly flags: number
  readonly serial: number
  readonly path: string | null
  readonly interface: string | null
  readonly member: string | null
  readonly errorName: string | null
  readonly replySerial: number | null
  readonly destination: string | null
  readonly sender: string | null
  readonly signature: string
  /** Takes the body apart; throws `Malformed`. */
  readonly body: () => readonly Value[]
}

export interface OutgoingMessage {
  readonly type: number
  readonly flags?: number
  readonly serial: number
  readonly path?: string
  readonly interface?: string
  readonly member?: string
  readonly errorName?: string
  readonly replySerial?: number
  readonly destination?: string
  readonly signature?: string
  readonly body?: readonly Value[]
}

/** Header fields by their number. */
const FIELDS = {
  path: 1,
  interface: 2,
  member: 3,
  errorName: 4,
  replySerial: 5,
  destination: 6,
  sender: 7,
  signature: 8,
} as const
const FIXED_BYTES = 16
const HEADER_FIELDS_BYTES_MAX = 64 * 1024
/** What the specification allows. */
const MESSAGE_BYTES_MAX = 128 * 1024 * 1024

export function encodeMessage(message: OutgoingMessage): Buffer {
  const { signature = '', body = [] } = message
  const content = createWriter()
  for (const [index, type] of splitSignature(signature).entries()) content.value(type, body[index] ?? '')
  const header = createWriter()
  for (const byte of [0x6c, message.type, message.flags ?? 0, 1]) header.uint8(byte)
  header.uint32(content.bytes().length)
  header.uint32(message.serial)
  header.array(8, () => {
    const field = (code: number, type: string, value: Value | undefined) => {
      if (value === undefined || value === '') return
      header.align(8)
      header.uint8(code)
      header.value('v', [type, value])
    }
    field(FIELDS.path, 'o', message.path)
    field(FIELDS.interface, 's', message.interface)
    field(FIELDS.member, 's', message.member)
    field(FIELDS.errorName, 's', message.errorName)
    field(FIELDS.replySerial, 'u', message.replySerial)
    field(FIELDS.destination, 's', message.destination)
    field(FIELDS.signature, 'g', signature)
  })
  header.align(8)
  return Buffer.concat([header.bytes(), content.bytes()])
}

/** Bytes of the message that begins here; null when there are too few to say. Throws `Malformed`. */
function messageBytes(bytes: Buffer): number | null {
  if (bytes.length < FIXED_BYTES) return null
  const isLittleEndian = bytes[0] === 0x6c
  if ((!isLittleEndian && bytes[0] !== 0x42) || bytes[3] !== 1)
    throw new Malformed('this is no message of D-Bus')
  const body = isLittleEndian ? bytes.readUInt32LE(4) : bytes.readUInt32BE(4)
  const fields = isLittleEndian ? bytes.readUInt32LE(12) : bytes.readUInt32BE(12)
  const header = FIXED_BYTES + fields + ((8 - (fields % 8)) % 8)
  if (header + body > MESSAGE_BYTES_MAX) throw new Malformed('a message is longer than the bus allows')
  return header + body
}

/** A whole message. Throws `Malformed`. */
export function decodeMessage(bytes: Buffer): Message {
  const isLittleEndian = bytes[0] === 0x6c
  const fieldBytes = isLittleEndian ? bytes.readUInt32LE(12) : bytes.readUInt32BE(12)
  if (fieldBytes > HEADER_FIELDS_BYTES_MAX) throw new Malformed('a header is too long')
  const reader = createReader(bytes, isLittleEndian)
  for (let skipped = 0; skipped < 4; skipped++) reader.read('y')
  reader.read('u')
  const serial = Number(reader.read('u'))
  const fields = new Map<number, Value>()
  for (const field of reader.read('a(yv)') as readonly Value[]) {
    const [code, value] = field as readonly [number, Value]
    fields.set(code, value)
  }
  reader.align(8)
  const bodyStart = reader.offset()
  const text = (code: number) => {
    const value = fields.get(code)
    return typeof value === 'string' ? value : null
  }
  const replySerial = fields.get(FIELDS.replySerial)
  const signature = text(FIELDS.signature) ?? ''
  return {
    type: bytes[1] ?? 0,
    flags: bytes[2] ?? 0,
    serial,
    path: text(FIELDS.path),
    interface: text(FIELDS.interface),
    member: text(FIELDS.member),
    errorName: text(FIELDS.errorName),
    replySerial: typeof replySerial === 'number' ? replySerial : null,
    destination: text(FIELDS.destination),
    sender: text(FIELDS.sender),
    signature,
    body() {
      const body = createReader(bytes.subarray(bodyStart), isLittleEndian)
      return splitSignature(signature).map((type) => body.read(type))
    },
  }
}

export interface MessageStream {
  /** Takes what came from the socket. Throws `Malformed` when the stream cannot be followed any more. */
  push(chunk: Buffer): void
}

/**
 * Messages longer than `keptBytesMax` are passed over without being kept, and counted by `refused`; so are those
 * that do not hold together.
 */
export function createMessageStream(options: {
  readonly keptBytesMax: number
  readonly message: (message: Message) => void
  readonly refused: (reason: string) => void
}): MessageStream {
  let held: Buffer[] = []
  let heldBytes = 0
  let passedOver = 0
  /** Of the message that has begun to come. */
  let wantedBytes: number | null = null

  const next = (): boolean => {
    if (wantedBytes === null) {
      if (heldBytes < FIXED_BYTES) return false
      const whole = Buffer.concat(held)
      held = [whole]
      wantedBytes = messageBytes(whole)
      if (wantedBytes === null) return false
      if (wantedBytes > options.keptBytesMax) {
        options.refused(`a message of ${wantedBytes} bytes is longer than ${options.keptBytesMax}`)
        passedOver = Math.max(0, wantedBytes - heldBytes)
        held = [whole.subarray(Math.min(wantedBytes, heldBytes))]
        heldBytes = Math.max(0, heldBytes - wantedBytes)
        wantedBytes = null
        return heldBytes >= FIXED_BYTES
      }
    }
    if (heldBytes < wantedBytes) return false
    const whole = held.length === 1 && held[0] !== undefined ? held[0] : Buffer.concat(held)
    const bytes = whole.subarray(0, wantedBytes)
    held = [whole.subarray(wantedBytes)]
    heldBytes -= wantedBytes
    wantedBytes = null
    let message: Message
    try {
      message = decodeMessage(bytes)
    } catch (error) {
      options.refused(error instanceof Error ? error.message : String(error))
      return true
    }
    options.message(message)
    return true
  }

  return {
    push(chunk) {
      const skip = Math.min(passedOver, chunk.length)
      passedOver -= skip
      if (skip === chunk.length) return
      held.push(chunk.subarray(skip))
      heldBytes += chunk.length - skip
      while (next()) {
        // One push can hold many messages.
      }
    },
  }
}
