/**
 * Ed25519 signatures (RFC 8032) over a domain prefix and the exact bytes that were sent. Bytes are verified
 * first and parsed afterwards; nothing is ever signed or verified in a re-encoded form.
 */
import {
  createHash,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign as signRaw,
  verify as verifyRaw,
} from 'node:crypto'
import { SIGNATURE_DOMAINS } from '../protocol/commands.ts'
import type { Signature } from '../protocol/messages.ts'

/** What a signature is for. One for an intent is worth nothing on a wrapper. */
export type SignatureDomain = keyof typeof SIGNATURE_DOMAINS

/** DER of SubjectPublicKeyInfo up to the 32 raw bytes of an Ed25519 key (RFC 8410, section 4). */
const ed25519SpkiPrefix = Buffer.from('302a300506032b6570032100', 'hex')

export function generateSigningKey(): KeyObject {
  return generateKeyPairSync('ed25519').privateKey
}

/** The raw 32-byte public key in hex, of a private or public Ed25519 key. Throws for any other key. */
export function rawPublicKey(key: KeyObject): string {
  assertEd25519(key)
  const publicKey = key.type === 'private' ? createPublicKey(key) : key
  const spki = publicKey.export({ format: 'der', type: 'spki' })
  return spki.subarray(ed25519SpkiPrefix.length).toString('hex')
}

/** Throws when `publicKeyHex` is not 32 bytes of hex. */
export function publicKeyFromRaw(publicKeyHex: string): KeyObject {
  if (!/^[0-9a-f]{64}$/.test(publicKeyHex))
    throw new Error('an Ed25519 public key is 32 bytes of lower-case hex')
  return createPublicKey({
    key: Buffer.concat([ed25519SpkiPrefix, Buffer.from(publicKeyHex, 'hex')]),
    format: 'der',
    type: 'spki',
  })
}

/** SHA-256 of the raw public key, in hex. */
export function keyIdOf(publicKeyHex: string): string {
  return sha256Hex(Buffer.from(publicKeyHex, 'hex'))
}

export function signBytes(domain: SignatureDomain, bytes: Uint8Array, privateKey: KeyObject): Signature {
  assertEd25519(privateKey)
  return {
    keyId: keyIdOf(rawPublicKey(privateKey)),
    signature: signRaw(null, withDomain(domain, bytes), privateKey).toString('hex'),
  }
}

/** False for a wrong signature, a key id of another key, and anything malformed. Never throws. */
export function verifyBytes(
  domain: SignatureDomain,
  bytes: Uint8Array,
  signature: Signature,
  publicKeyHex: string,
): boolean {
  if (!/^[0-9a-f]{128}$/.test(signature.signature) || signature.keyId !== keyIdOf(publicKeyHex)) return false
  try {
    const key = publicKeyFromRaw(publicKeyHex)
    return verifyRaw(null, withDomain(domain, bytes), key, Buffer.from(signature.signature, 'hex'))
  } catch {
    return false
  }
}

export function withDomain(domain: SignatureDomain, bytes: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from(SIGNATURE_DOMAINS[domain], 'utf8'), bytes])
}

export function sha256Hex(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/** The bytes of base64 in its one canonical form; undefined for any other text. */
export function decodeBase64(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64')
  return bytes.toString('base64') === text ? bytes : undefined
}

/** The text of bytes that are UTF-8; undefined when they are not. Nothing is replaced or skipped. */
export function decodeUtf8(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    return undefined
  }
}

function assertEd25519(key: KeyObject): void {
  if (key.asymmetricKeyType !== 'ed25519')
    throw new Error(`an Ed25519 key is needed, not ${key.asymmetricKeyType}`)
}
