/**
 * The binary frame of an event batch. The same bytes of a body lie in the agent's buffer, go into the hash chain
 * (chain.ts), travel in the frame and are stored by the controller, still packed (payload.ts).
 *
 * `[u16 big-endian header length][header JSON (BatchHeader)][one zstd frame]`; what the zstd frame holds takes
 * `header.payloadBytes` and has `header.rows` rows.
 */
import { Buffer } from 'node:buffer'
import { MESSAGE_BYTES_MAX } from '../protocol/limits.ts'
import { BatchHeader } from '../protocol/messages.ts'
import { compileSchema } from '../protocol/parse.ts'
import { type Payload, packPayload, packPayloadInPool, unpackPayload } from './payload.ts'

/** What the sender says of a batch; counts and sizes come from the bodies. */
export type BatchFields = Omit<BatchHeader, 'kind' | 'rows' | 'payloadBytes'>

export type DecodedBatch =
  | {
      readonly ok: true
      readonly header: BatchHeader
      readonly bodies: readonly Buffer[]
      /** As it came; its bytes are the frame's. */
      readonly payload: Payload
    }
  | { readonly ok: false; readonly reason: string }

const HEADER_BYTES_MAX = 1_024

const headerValidator = compileSchema(BatchHeader)
const strictText = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Makes the frame, compressing on the calling thread. Throws when the bodies break the contract's bounds. */
export function encodeBatch(fields: BatchFields, bodies: readonly Uint8Array[]): Buffer {
  return frame(fields, packPayload(bodies))
}

/** As `encodeBatch`, compressing in the thread pool. */
export async function encodeBatchInPool(fields: BatchFields, bodies: readonly Uint8Array[]): Promise<Buffer> {
  return frame(fields, await packPayloadInPool(bodies))
}

/** Reads a frame from somebody who may be hostile: every bound is checked before memory is taken. Never throws. */
export function decodeBatch(bytes: Uint8Array): DecodedBatch {
  const frameBytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (frameBytes.length > MESSAGE_BYTES_MAX) return refused('the frame is too large')
  if (frameBytes.length < 2) return refused('the frame has no header')
  const headerBytes = frameBytes.readUInt16BE(0)
  if (headerBytes > HEADER_BYTES_MAX) return refused('the header is too large')
  if (frameBytes.length < 2 + headerBytes) return refused('the header is cut short')
  const header = readHeader(frameBytes.subarray(2, 2 + headerBytes))
  if (!header) return refused('the header is not a canonical batch header')
  if (!Number.isSafeInteger(header.firstSequence + header.rows))
    return refused('the sequences leave the integers')
  const { rows, payloadBytes } = header
  const payload = { bytes: frameBytes.subarray(2 + headerBytes), rows, payloadBytes }
  const unpacked = unpackPayload(payload)
  return unpacked.ok ? { ok: true, header, bodies: unpacked.bodies, payload } : unpacked
}

function frame(fields: BatchFields, { bytes, rows, payloadBytes }: Payload): Buffer {
  const header = Buffer.from(headerText({ kind: 'eventBatch', ...fields, rows, payloadBytes }))
  const head = Buffer.allocUnsafe(2)
  head.writeUInt16BE(header.length, 0)
  return Buffer.concat([head, header, bytes])
}

/** The one text of a header, in the schema's order. */
function headerText(header: BatchHeader): string {
  return JSON.stringify({
    kind: header.kind,
    streamId: header.streamId,
    class: header.class,
    firstSequence: header.firstSequence,
    rows: header.rows,
    payloadBytes: header.payloadBytes,
    previousHash: header.previousHash,
    lastHash: header.lastHash,
  })
}

function readHeader(bytes: Buffer): BatchHeader | null {
  try {
    const text = strictText.decode(bytes)
    const value: unknown = JSON.parse(text)
    // Only the canonical text passes: repeated keys, `__proto__` and other spellings of a number do not.
    return headerValidator.Check(value) && headerText(value) === text ? value : null
  } catch {
    return null
  }
}

function refused(reason: string): DecodedBatch {
  return { ok: false, reason }
}
