/**
 * How an agent whose certificate ran out proves that it is still the one: its old key signs the controller's
 * fresh nonce and the request for the new key. A domain prefix keeps the signature from being worth anything
 * elsewhere: the old key signs TLS handshakes too.
 */
import { type KeyObject, sign, verify } from 'node:crypto'

const DOMAIN = 'cordon/renew-expired/v1\0'

/** ECDSA over P-256 with SHA-256, DER in base64. */
export function proveOldKey(oldKey: KeyObject, nonce: string, csrPem: string): string {
  return sign('sha256', provenBytes(nonce, csrPem), oldKey).toString('base64')
}

/** Never throws. */
export function isProvenByOldKey(
  publicKey: KeyObject,
  signature: string,
  proven: { readonly nonce: string; readonly csrPem: string },
): boolean {
  try {
    const bytes = provenBytes(proven.nonce, proven.csrPem)
    return verify('sha256', bytes, publicKey, Buffer.from(signature, 'base64'))
  } catch {
    return false
  }
}

/** The nonce has one length, so no two pairs have the same bytes. */
function provenBytes(nonce: string, csrPem: string): Buffer {
  return Buffer.concat([Buffer.from(DOMAIN), Buffer.from(nonce, 'hex'), Buffer.from(csrPem)])
}
