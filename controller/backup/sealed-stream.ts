/**
 * A long file sealed by a passphrase, written and read as a stream. scrypt (RFC 7914) makes a key from the
 * passphrase and a random salt; HKDF (RFC 5869) makes of it one key for the header and one for the content.
 *
 *     magic | u16 length of header | header JSON | HMAC-SHA256 of all before | chunks
 *
 * Chunks of 64 KiB are sealed by AES-256-GCM. The nonce of a chunk is its number and whether it is the last
 * (the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár, 2015), under a key that no other file
 * has: a chunk that is changed, moved, left out or cut off at the end does not open. Nothing is given out
 * before it is authenticated.
 */
import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  hkdfSync,
  randomBytes,
  timingSafeEqual,
} from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'
import { Transform } from 'node:stream'
import Type, { type Static } from 'typebox'
import { derivePassphraseKey, SCRYPT_COST_DEFAULT, SCRYPT_COST_MAX } from '../../shared/node/sealed-file.ts'
import { compileSchema, parseStrict } from '../../shared/protocol/parse.ts'
import { BackupError } from './backup-error.ts'

const MAGIC = Buffer.from('CORDONB1', 'latin1')
const LENGTH_BYTES = 2
const MAC_BYTES = 32
const TAG_BYTES = 16
const HEADER_BYTES_MAX = 1_024
export const CHUNK_BYTES = 64 * 1024

const Header = Type.Object(
  {
    v: Type.Literal(1),
    scryptCost: Type.Integer({ minimum: 2, maximum: SCRYPT_COST_MAX }),
    salt: Type.String({ pattern: '^[0-9a-f]{32}$' }),
  },
  { additionalProperties: false },
)
const headerCheck = compileSchema(Header)

/** Takes plain bytes, gives the sealed file. `scryptCost` is N, a power of two; tests take a cheaper one. */
export async function createSealer(
  passphrase: string,
  scryptCost: number = SCRYPT_COST_DEFAULT,
): Promise<Transform> {
  const header: Static<typeof Header> = { v: 1, scryptCost, salt: randomBytes(16).toString('hex') }
  const text = Buffer.from(JSON.stringify(header), 'utf8')
  const length = Buffer.alloc(LENGTH_BYTES)
  length.writeUInt16BE(text.length)
  const start = Buffer.concat([MAGIC, length, text])
  const keys = await deriveKeys(passphrase, header)

  let waiting: Buffer = Buffer.alloc(0)
  let number = 0
  const seal = (plain: Uint8Array, isLast: boolean): Buffer => {
    const cipher = createCipheriv('aes-256-gcm', keys.content, nonceOf(number, isLast))
    number += 1
    return Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()])
  }
  const sealer = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      waiting = waiting.length === 0 ? chunk : Buffer.concat([waiting, chunk])
      // One byte is kept back: only the end tells which chunk is the last.
      while (waiting.length > CHUNK_BYTES) {
        this.push(seal(waiting.subarray(0, CHUNK_BYTES), false))
        waiting = waiting.subarray(CHUNK_BYTES)
      }
      done()
    },
    flush(done) {
      this.push(seal(waiting, true))
      done()
    },
  })
  sealer.push(Buffer.concat([start, macOf(keys.header, start)]))
  return sealer
}

/** The plain bytes of a sealed file. Throws a `BackupError` for what is not whole, or not opened by this. */
export async function* openSealed(path: string, passphrase: string): AsyncGenerator<Buffer> {
  await using file = await openFile(path)
  const { size } = await file.stat()
  const { header, contentStart, start, mac } = await readHeader(file, path)
  const keys = await deriveKeys(passphrase, header)
  if (!timingSafeEqual(mac, macOf(keys.header, start))) {
    throw new BackupError(`${path} does not open: the passphrase is wrong, or its header was changed`)
  }
  let number = 0
  let position = contentStart
  do {
    const sealed = await readAt(file, position, Math.min(CHUNK_BYTES + TAG_BYTES, size - position))
    position += sealed.length
    yield openChunk(keys.content, number, position >= size, sealed, path)
    number += 1
  } while (position < size)
}

function openChunk(key: Buffer, number: number, isLast: boolean, sealed: Buffer, path: string): Buffer {
  try {
    const decipher = createDecipheriv('aes-256-gcm', key, nonceOf(number, isLast))
    decipher.setAuthTag(sealed.subarray(-TAG_BYTES))
    return Buffer.concat([decipher.update(sealed.subarray(0, -TAG_BYTES)), decipher.final()])
  } catch {
    const at = number * CHUNK_BYTES
    throw new BackupError(`${path} is damaged or cut off after ${at} bytes of content; take another copy`)
  }
}

async function openFile(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'r')
  } catch (error) {
    throw new BackupError(`${path} cannot be read: ${(error as NodeJS.ErrnoException).code ?? error}`)
  }
}

async function readHeader(file: FileHandle, path: string) {
  const foreign = () => new BackupError(`${path} is not a backup of a Cordon controller`)
  const begin = await readAt(file, 0, MAGIC.length + LENGTH_BYTES)
  if (begin.length < MAGIC.length + LENGTH_BYTES || !begin.subarray(0, MAGIC.length).equals(MAGIC)) {
    throw foreign()
  }
  const length = begin.readUInt16BE(MAGIC.length)
  if (length > HEADER_BYTES_MAX) throw foreign()
  const rest = await readAt(file, begin.length, length + MAC_BYTES)
  if (rest.length < length + MAC_BYTES) throw foreign()
  const text = rest.subarray(0, length)
  const parsed = parseStrict(headerCheck, text.toString('utf8'), HEADER_BYTES_MAX)
  if (!parsed.ok || !isPowerOfTwo(parsed.value.scryptCost)) throw foreign()
  return {
    header: parsed.value,
    start: Buffer.concat([begin, text]),
    mac: rest.subarray(length),
    contentStart: begin.length + rest.length,
  }
}

async function readAt(file: FileHandle, position: number, bytes: number): Promise<Buffer> {
  const buffer = Buffer.alloc(Math.max(0, bytes))
  let filled = 0
  while (filled < buffer.length) {
    const { bytesRead } = await file.read(buffer, filled, buffer.length - filled, position + filled)
    if (bytesRead === 0) break
    filled += bytesRead
  }
  return buffer.subarray(0, filled)
}

async function deriveKeys(passphrase: string, header: Static<typeof Header>) {
  const secret = await derivePassphraseKey(passphrase, header)
  const derive = (what: string) => Buffer.from(hkdfSync('sha256', secret, '', `cordon/backup/v1/${what}`, 32))
  return { header: derive('header'), content: derive('content') }
}

function macOf(key: Buffer, start: Buffer): Buffer {
  return createHmac('sha256', key).update(start).digest()
}

/** 12 bytes: seven zeros, the number, and 1 for the last. 2^32 chunks are 256 TiB. */
function nonceOf(number: number, isLast: boolean): Buffer {
  const nonce = Buffer.alloc(12)
  nonce.writeUInt32BE(number, 7)
  nonce[11] = isLast ? 1 : 0
  return nonce
}

function isPowerOfTwo(value: number): boolean {
  return (value & (value - 1)) === 0
}
