/**
 * The binary frame of an event batch and the hash chain over its rows. The same bytes of a body lie in the
 * agent's buffer, go into the chain, travel in the frame and are stored by the controller.
 *
 * `[u16 big-endian header length][header JSON (BatchHeader)][one zstd frame]`, and in the zstd frame
 * `header.rows` times `[u32 big-endian length][body]`, `header.payloadBytes` in all.
 */
import { Buffer } from 'node:buffer'
import { hash } from 'node:crypto'
import { promisify } from 'node:util'
import { constants, zstdCompress, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { Compile } from 'typebox/compile'
import { BATCH_BYTES_MAX, BATCH_ROWS_MAX, EVENT_BYTES_MAX, MESSAGE_BYTES_MAX } from '../protocol/limits.ts'
import { BatchHeader } from '../protocol/messages.ts'

/** The chain's value before the first row of a stream's class. */
export const CHAIN_START: Buffer = Buffer.alloc(32)
export const CHAIN_HASH_BYTES = 32

/** What the sender says of a batch; counts and sizes come from the bodies. */
export type BatchFields = Omit<BatchHeader, 'kind' | 'rows' | 'payloadBytes'>

export type DecodedBatch =
  | { readonly ok: true; readonly header: BatchHeader; readonly bodies: readonly Buffer[] }
  | { readonly ok: false; readonly reason: string }

const HEADER_BYTES_MAX = 1_024
const ROW_PREFIX_BYTES = 4
/** 512 KB, the first power of two above the largest payload: a frame may not make its reader hold more. */
const WINDOW_LOG = 19
/** Measured on 240 KB of process events: levels 1 to 3 differ by under 5% in size; 1 is the steadiest in time. */
const COMPRESSION_LEVEL = 1

/** How payloads of binary frames are packed. */
export const compression = {
  params: {
    [constants.ZSTD_c_compressionLevel]: COMPRESSION_LEVEL,
    [constants.ZSTD_c_windowLog]: WINDOW_LOG,
  },
  chunkSize: 64 * 1024,
}

const headerValidator = Compile(BatchHeader)
const compressInPool = promisify(zstdCompress)
/** Room for a hash and a body after it, used from call to call: nothing in here waits in between. */
const scratch = Buffer.alloc(CHAIN_HASH_BYTES + EVENT_BYTES_MAX)
const strictText = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Makes the frame, compressing on the calling thread. Throws when the bodies break the contract's bounds. */
export function encodeBatch(fields: BatchFields, bodies: readonly Uint8Array[]): Buffer {
  const payload = joinRows(bodies)
  return frame(fields, bodies.length, payload.length, zstdCompressSync(payload, compression))
}

/** As `encodeBatch`, compressing in the thread pool. */
export async function encodeBatchInPool(fields: BatchFields, bodies: readonly Uint8Array[]): Promise<Buffer> {
  const payload = joinRows(bodies)
  return frame(fields, bodies.length, payload.length, await compressInPool(payload, compression))
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
  const payload = decompress(frameBytes.subarray(2 + headerBytes), header.payloadBytes)
  if (!payload) return refused('the payload is not one zstd frame of the size the header says')
  return splitRows(header, payload)
}

/** `SHA-256(previous || body)`, the chain's value after `body`. */
export function chainHash(previous: Uint8Array, body: Uint8Array): Buffer {
  return chainOver(previous, [body])
}

/** The chain's value after all the bodies, in order. */
export function chainOver(previous: Uint8Array, bodies: Iterable<Uint8Array>): Buffer {
  let link = previous
  for (const body of bodies) {
    const bytes = CHAIN_HASH_BYTES + body.length
    const joined = bytes <= scratch.length ? scratch : Buffer.allocUnsafe(bytes)
    joined.set(link, 0)
    joined.set(body, CHAIN_HASH_BYTES)
    // One call over joined bytes costs half of a Hash object fed twice, and a result as text, which is one
    // allocation, a third of one as a buffer.
    joined.write(hash('sha256', joined.subarray(0, bytes), 'binary'), 0, 'latin1')
    link = joined.subarray(0, CHAIN_HASH_BYTES)
  }
  return Buffer.from(link)
}

/** True when the bodies lead from the header's `previousHash` to its `lastHash`. */
export function verifyChain(
  header: Pick<BatchHeader, 'previousHash' | 'lastHash'>,
  bodies: readonly Uint8Array[],
): boolean {
  return chainOver(Buffer.from(header.previousHash, 'hex'), bodies).toString('hex') === header.lastHash
}

function joinRows(bodies: readonly Uint8Array[]): Buffer {
  if (bodies.length < 1 || bodies.length > BATCH_ROWS_MAX) {
    throw new RangeError(`a batch has 1 to ${BATCH_ROWS_MAX} rows, not ${bodies.length}`)
  }
  let bodyBytes = 0
  for (const body of bodies) {
    if (body.length < 1 || body.length > EVENT_BYTES_MAX) {
      throw new RangeError(`a body has 1 to ${EVENT_BYTES_MAX} bytes, not ${body.length}`)
    }
    bodyBytes += body.length
  }
  if (bodyBytes > BATCH_BYTES_MAX) throw new RangeError(`a batch has at most ${BATCH_BYTES_MAX} bytes`)
  const payload = Buffer.allocUnsafe(bodyBytes + ROW_PREFIX_BYTES * bodies.length)
  let offset = 0
  for (const body of bodies) {
    offset = payload.writeUInt32BE(body.length, offset)
    payload.set(body, offset)
    offset += body.length
  }
  return payload
}

function frame(fields: BatchFields, rows: number, payloadBytes: number, compressed: Buffer): Buffer {
  const header = Buffer.from(headerText({ kind: 'eventBatch', ...fields, rows, payloadBytes }))
  const head = Buffer.allocUnsafe(2)
  head.writeUInt16BE(header.length, 0)
  return Buffer.concat([head, header, compressed])
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

/** One zstd frame of exactly that many bytes, or null. */
export function decompress(bytes: Buffer, payloadBytes: number): Buffer | null {
  try {
    const options = {
      maxOutputLength: payloadBytes,
      // A byte more than is wanted: a buffer that is filled to its end is followed by a second one as large.
      chunkSize: Math.max(payloadBytes + 1, constants.Z_MIN_CHUNK),
      params: { [constants.ZSTD_d_windowLogMax]: WINDOW_LOG },
      info: true,
    }
    const result: unknown = zstdDecompressSync(bytes, options)
    if (!isInflated(result) || result.buffer.length !== payloadBytes) return null
    // Decompression stops in silence after the first of several frames: what it consumed tells.
    return result.engine.bytesWritten === bytes.length ? result.buffer : null
  } catch {
    return null
  }
}

/** The form zlib's calls have with `info: true`, which Node's types leave out. */
function isInflated(
  value: unknown,
): value is { readonly buffer: Buffer; readonly engine: { readonly bytesWritten: number } } {
  return typeof value === 'object' && value !== null && 'buffer' in value && 'engine' in value
}

function splitRows(header: BatchHeader, payload: Buffer): DecodedBatch {
  const bodies: Buffer[] = []
  let offset = 0
  for (let row = 0; row < header.rows; row += 1) {
    if (payload.length - offset < ROW_PREFIX_BYTES)
      return refused('the payload has fewer rows than its header says')
    const length = payload.readUInt32BE(offset)
    offset += ROW_PREFIX_BYTES
    if (length < 1 || length > EVENT_BYTES_MAX) return refused('a row is empty or too large')
    if (length > payload.length - offset) return refused('a row reaches past the payload')
    bodies.push(payload.subarray(offset, offset + length))
    offset += length
  }
  if (offset !== payload.length) return refused('the payload has bytes after its last row')
  return { ok: true, header, bodies }
}

function refused(reason: string): DecodedBatch {
  return { ok: false, reason }
}
