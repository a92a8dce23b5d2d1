/**
 * The binary frame of one piece of a collected file:
 * `[u16 big-endian header length][header JSON (FileChunkHeader)][one zstd frame]`, built like that of a batch.
 */
import { Buffer } from 'node:buffer'
import { hash } from 'node:crypto'
import { promisify } from 'node:util'
import { zstdCompress } from 'node:zlib'
import { FILE_CHUNK_BYTES_MAX, MESSAGE_BYTES_MAX } from '../protocol/limits.ts'
import { FileChunkHeader } from '../protocol/messages.ts'
import { compileSchema, parseStrict } from '../protocol/parse.ts'
import { compression, decompress } from './payload.ts'

export type DecodedChunk =
  | { readonly ok: true; readonly header: FileChunkHeader; readonly payload: Buffer }
  | { readonly ok: false; readonly reason: string }

const HEADER_BYTES_MAX = 512
/** Canonical JSON of a header begins so; a batch begins otherwise. */
const BEGINNING = Buffer.from('{"kind":"fileChunk",')
const headerCheck = compileSchema(FileChunkHeader)
const compressInPool = promisify(zstdCompress)

/** Which of the two kinds of binary frames this is; nothing else of it is looked at. */
export function isFileChunk(bytes: Uint8Array): boolean {
  return Buffer.compare(bytes.subarray(2, 2 + BEGINNING.length), BEGINNING) === 0
}

/** Throws when the payload is empty or larger than a piece may be. */
export async function encodeFileChunk(
  { commandId, offset }: Pick<FileChunkHeader, 'commandId' | 'offset'>,
  payload: Uint8Array,
): Promise<Buffer> {
  if (payload.length < 1 || payload.length > FILE_CHUNK_BYTES_MAX) {
    throw new RangeError(`a piece has 1 to ${FILE_CHUNK_BYTES_MAX} bytes, not ${payload.length}`)
  }
  const fields: FileChunkHeader = {
    kind: 'fileChunk',
    commandId,
    offset,
    payloadBytes: payload.length,
    sha256: hash('sha256', payload),
  }
  const header = Buffer.from(JSON.stringify(fields))
  const head = Buffer.allocUnsafe(2)
  head.writeUInt16BE(header.length, 0)
  return Buffer.concat([head, header, await compressInPool(payload, compression)])
}

/** Reads a frame from somebody who may be hostile: every bound is checked before memory is taken. Never throws. */
export function decodeFileChunk(bytes: Uint8Array): DecodedChunk {
  const frame = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (frame.length > MESSAGE_BYTES_MAX) return refused('the frame is too large')
  if (frame.length < 2) return refused('the frame has no header')
  const headerBytes = frame.readUInt16BE(0)
  if (headerBytes > HEADER_BYTES_MAX) return refused('the header is too large')
  if (frame.length < 2 + headerBytes) return refused('the header is cut short')
  const text = frame.toString('latin1', 2, 2 + headerBytes)
  const header = parseStrict(headerCheck, text, HEADER_BYTES_MAX)
  if (!header.ok) return refused(`the header is not one of a piece of a file: ${header.error.reason}`)
  const payload = decompress(frame.subarray(2 + headerBytes), header.value.payloadBytes)
  if (!payload) return refused('the payload is not one zstd frame of the size the header says')
  return { ok: true, header: header.value, payload }
}

/** False: the piece was changed on its way, or its sender says what is not so. */
export function isWhole(header: Pick<FileChunkHeader, 'sha256'>, payload: Uint8Array): boolean {
  return hash('sha256', payload) === header.sha256
}

function refused(reason: string): DecodedChunk {
  return { ok: false, reason }
}
