/**
 * The payload of a batch: rows, packed. It is packed once, by the agent; the controller stores the same bytes.
 *
 * One zstd frame, and in it, for each row, `[u32 big-endian length][body]`.
 */
import { Buffer } from 'node:buffer'
import { promisify } from 'node:util'
import { constants, zstdCompress, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { BATCH_BYTES_MAX, BATCH_ROWS_MAX, EVENT_BYTES_MAX } from '../protocol/limits.ts'

export interface Payload {
  /** The zstd frame. */
  readonly bytes: Buffer
  readonly rows: number
  /** Of the frame's content. */
  readonly payloadBytes: number
}

export type UnpackedPayload =
  | { readonly ok: true; readonly bodies: readonly Buffer[] }
  | { readonly ok: false; readonly reason: string }

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

const compressInPool = promisify(zstdCompress)

/** Compresses on the calling thread. Throws when the bodies break the contract's bounds. */
export function packPayload(bodies: readonly Uint8Array[]): Payload {
  const content = joinRows(bodies)
  return payloadOf(bodies, content, zstdCompressSync(content, compression))
}

/** As `packPayload`, compressing in the thread pool. */
export async function packPayloadInPool(bodies: readonly Uint8Array[]): Promise<Payload> {
  const content = joinRows(bodies)
  return payloadOf(bodies, content, await compressInPool(content, compression))
}

function payloadOf(bodies: readonly Uint8Array[], content: Buffer, bytes: Buffer): Payload {
  return { bytes, rows: bodies.length, payloadBytes: content.length }
}

/** Reads what somebody hostile may have made: every bound is checked before memory is taken. Never throws. */
export function unpackPayload({ bytes, rows, payloadBytes }: Payload): UnpackedPayload {
  const content = decompress(bytes, payloadBytes)
  if (!content) return refused('the payload is not one zstd frame of the size the header says')
  return splitRows(content, rows)
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

function splitRows(content: Buffer, rows: number): UnpackedPayload {
  const bodies: Buffer[] = []
  let offset = 0
  for (let row = 0; row < rows; row += 1) {
    if (content.length - offset < ROW_PREFIX_BYTES)
      return refused('the payload has fewer rows than its header says')
    const length = content.readUInt32BE(offset)
    offset += ROW_PREFIX_BYTES
    if (length < 1 || length > EVENT_BYTES_MAX) return refused('a row is empty or too large')
    if (length > content.length - offset) return refused('a row reaches past the payload')
    bodies.push(content.subarray(offset, offset + length))
    offset += length
  }
  if (offset !== content.length) return refused('the payload has bytes after its last row')
  return { ok: true, bodies }
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
  const content = Buffer.allocUnsafe(bodyBytes + ROW_PREFIX_BYTES * bodies.length)
  let offset = 0
  for (const body of bodies) {
    offset = content.writeUInt32BE(body.length, offset)
    content.set(body, offset)
    offset += body.length
  }
  return content
}

function refused(reason: string): UnpackedPayload {
  return { ok: false, reason }
}
