/**
 * Secrets at rest: AES-256-GCM under a key that scrypt (RFC 7914) derives from a passphrase. The header is
 * authenticated with the content, so neither can be exchanged, and the purpose is part of it: a sealed
 * operator's key does not open as a controller's.
 */
import {
  createCipheriv,
  createDecipheriv,
  createPrivateKey,
  type KeyObject,
  randomBytes,
  scrypt,
} from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import Type, { type Static } from 'typebox'
import { compileSchema, parseStrict } from '../protocol/parse.ts'
import { writeFileDurably } from './durable-file.ts'

/** 2^17 with r = 8 takes 128 MiB and a third of a second: what a guess at a stolen file costs. */
export const SCRYPT_COST_DEFAULT = 2 ** 17
export const SCRYPT_COST_MAX = 2 ** 20
const scryptBlockSize = 8
const fileBytesMax = 256 * 1024

const SealedFile = Type.Object(
  {
    v: Type.Literal(1),
    purpose: Type.String({ minLength: 1, maxLength: 64 }),
    scryptCost: Type.Integer({ minimum: 2, maximum: SCRYPT_COST_MAX }),
    salt: Type.String({ pattern: '^[0-9a-f]{32}$' }),
    iv: Type.String({ pattern: '^[0-9a-f]{24}$' }),
    tag: Type.String({ pattern: '^[0-9a-f]{32}$' }),
    content: Type.String({ maxLength: fileBytesMax, pattern: '^[A-Za-z0-9+/]*={0,2}$' }),
  },
  { additionalProperties: false },
)
const sealedFileCheck = compileSchema(SealedFile)
type Header = Pick<Static<typeof SealedFile>, 'v' | 'purpose' | 'scryptCost' | 'salt' | 'iv'>

export interface SealedFileError {
  readonly kind: 'missing' | 'unreadable' | 'openToOthers' | 'malformed' | 'wrongPassphrase'
  readonly reason: string
}
export type Unsealed<Value> =
  | { readonly ok: true; readonly value: Value }
  | { readonly ok: false; readonly error: SealedFileError }

export interface SealOptions {
  /** What the secret is for, such as `operator-key`; opening must name the same. */
  readonly purpose: string
  readonly passphrase: string
  /** N of scrypt, a power of two. */
  readonly scryptCost?: number
}

/** Seals `content` into `path` with mode 0600, durably. */
export async function writeSealedFile(
  path: string,
  content: Uint8Array,
  options: SealOptions,
): Promise<void> {
  const header: Header = {
    v: 1,
    purpose: options.purpose,
    scryptCost: options.scryptCost ?? SCRYPT_COST_DEFAULT,
    salt: randomBytes(16).toString('hex'),
    iv: randomBytes(12).toString('hex'),
  }
  const key = await derivePassphraseKey(options.passphrase, header)
  const cipher = createCipheriv('aes-256-gcm', key, Buffer.from(header.iv, 'hex'))
  cipher.setAAD(authenticated(header))
  const sealed = Buffer.concat([cipher.update(content), cipher.final()])
  const file = { ...header, tag: cipher.getAuthTag().toString('hex'), content: sealed.toString('base64') }
  writeFileDurably(path, JSON.stringify(file), 0o600)
}

/** Opens what `writeSealedFile` wrote. Refuses a file that others than its owner may read. */
export async function readSealedFile(
  path: string,
  options: Pick<SealOptions, 'purpose' | 'passphrase'>,
): Promise<Unsealed<Buffer>> {
  const text = readPrivateFile(path)
  if (!text.ok) return text
  const parsed = parseStrict(sealedFileCheck, text.value, fileBytesMax)
  if (!parsed.ok) return failed('malformed', `${path} is not a sealed file of Cordon: ${parsed.error.reason}`)
  const file = parsed.value
  if (file.purpose !== options.purpose) {
    return failed('malformed', `${path} holds ${file.purpose}, where ${options.purpose} is needed`)
  }
  try {
    const key = await derivePassphraseKey(options.passphrase, file)
    const decipher = createDecipheriv('aes-256-gcm', key, Buffer.from(file.iv, 'hex'))
    decipher.setAAD(authenticated(file))
    decipher.setAuthTag(Buffer.from(file.tag, 'hex'))
    return { ok: true, value: Buffer.concat([decipher.update(file.content, 'base64'), decipher.final()]) }
  } catch {
    return failed(
      'wrongPassphrase',
      `${path} does not open: the passphrase is wrong, or the file was changed`,
    )
  }
}

/** A private key in a sealed file, as PKCS #8. */
export async function writeSealedKey(
  path: string,
  privateKey: KeyObject,
  options: SealOptions,
): Promise<void> {
  await writeSealedFile(path, privateKey.export({ format: 'der', type: 'pkcs8' }), options)
}

export async function readSealedKey(
  path: string,
  options: Pick<SealOptions, 'purpose' | 'passphrase'>,
): Promise<Unsealed<KeyObject>> {
  const opened = await readSealedFile(path, options)
  if (!opened.ok) return opened
  try {
    return { ok: true, value: createPrivateKey({ key: opened.value, format: 'der', type: 'pkcs8' }) }
  } catch {
    return failed('malformed', `${path} holds no private key`)
  }
}

/** Reads a small file that only its owner may read. */
export function readPrivateFile(path: string): Unsealed<string> {
  try {
    const { mode, size } = statSync(path)
    if ((mode & 0o077) !== 0) {
      return failed('openToOthers', `${path} may be read or written by others: chmod 600 ${path}`)
    }
    if (size > fileBytesMax) return failed('malformed', `${path} is larger than ${fileBytesMax} bytes`)
    return { ok: true, value: readFileSync(path, 'utf8') }
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    if (code === 'ENOENT') return failed('missing', `${path} does not exist`)
    return failed('unreadable', `${path} cannot be read: ${code ?? String(error)}`)
  }
}

/** A key of 256 bits; `salt` in hex. */
export function derivePassphraseKey(
  passphrase: string,
  header: Pick<Header, 'salt' | 'scryptCost'>,
): Promise<Buffer> {
  const options = {
    cost: header.scryptCost,
    blockSize: scryptBlockSize,
    parallelization: 1,
    maxmem: 256 * header.scryptCost * scryptBlockSize,
  }
  return new Promise((resolve, reject) => {
    scrypt(passphrase, Buffer.from(header.salt, 'hex'), 32, options, (error, key) =>
      error ? reject(error) : resolve(key),
    )
  })
}

function authenticated({ v, purpose, scryptCost, salt, iv }: Header): Buffer {
  return Buffer.from(JSON.stringify({ v, purpose, scryptCost, salt, iv }), 'utf8')
}

function failed(kind: SealedFileError['kind'], reason: string): Unsealed<never> {
  return { ok: false, error: { kind, reason } }
}
