/**
 * Reads the certificate request of an agent (PKCS #10, RFC 2986). Only one form is taken: a P-256 key, signed
 * with ECDSA and SHA-256. Of the request the public key alone is used; its subject and attributes are ignored,
 * because who an agent is is not for the agent to say.
 */
import { createHash, createPublicKey, verify } from 'node:crypto'
import { CSR_BYTES_MAX } from '../../shared/protocol/limits.ts'
import { failed, type Outcome, type PkiError } from './outcome.ts'

export interface CertificateRequest {
  /** DER SubjectPublicKeyInfo. */
  readonly spki: Buffer
  /** SHA-256 of the SubjectPublicKeyInfo, in hex. */
  readonly keyFingerprint: string
}

export type CertificateRequestError = PkiError<'requestInvalid'>

/** SubjectPublicKeyInfo of an uncompressed P-256 point, up to its 64 bytes (RFC 5480). */
const p256SpkiPrefix = Buffer.from('3059301306072a8648ce3d020106082a8648ce3d03010703420004', 'hex')
const p256SpkiBytes = p256SpkiPrefix.length + 64
/** AlgorithmIdentifier of ecdsa-with-SHA256 (RFC 5758, section 3.2). */
const ecdsaWithSha256 = Buffer.from('300a06082a8648ce3d040302', 'hex')

const tagInteger = 0x02
const tagBitString = 0x03
const tagSequence = 0x30
const tagAttributes = 0xa0

/** Checks form, curve and proof of possession. Never throws. */
export function readCertificateRequest(pem: string): Outcome<CertificateRequest, CertificateRequestError> {
  if (pem.length > CSR_BYTES_MAX) return failed('requestInvalid', `longer than ${CSR_BYTES_MAX} bytes`)
  const base64 =
    /^-----BEGIN CERTIFICATE REQUEST-----\n([A-Za-z0-9+/=\n]+)-----END CERTIFICATE REQUEST-----\n?$/.exec(
      pem,
    )?.[1]
  if (base64 === undefined) return failed('requestInvalid', 'not a certificate request in PEM')
  try {
    return verifyRequest(Buffer.from(base64, 'base64'))
  } catch {
    return failed('requestInvalid', 'not DER as PKCS #10 asks for')
  }
}

function verifyRequest(der: Buffer): Outcome<CertificateRequest, CertificateRequestError> {
  const [info, algorithm, signatureBits] = readElements(soleElement(der, tagSequence).content)
  const [version, subject, spki, attributes, ...more] = readElements(expectTag(info, tagSequence).content)
  if (more.length > 0 || !expectTag(version, tagInteger).content.equals(Buffer.from([0]))) {
    return failed('requestInvalid', 'not a request of version 1')
  }
  expectTag(subject, tagSequence)
  expectTag(attributes, tagAttributes)
  const key = expectTag(spki, tagSequence).encoded
  if (key.length !== p256SpkiBytes || !key.subarray(0, p256SpkiPrefix.length).equals(p256SpkiPrefix)) {
    return failed('requestInvalid', 'the key is not a P-256 key')
  }
  if (!expectTag(algorithm, tagSequence).encoded.equals(ecdsaWithSha256)) {
    return failed('requestInvalid', 'the signature is not ECDSA with SHA-256')
  }
  const signature = expectTag(signatureBits, tagBitString).content
  if (signature[0] !== 0) return failed('requestInvalid', 'the signature has unused bits')
  // Refuses a point that is not on the curve.
  const publicKey = createPublicKey({ key, format: 'der', type: 'spki' })
  if (!verify('sha256', expectTag(info, tagSequence).encoded, publicKey, signature.subarray(1))) {
    return failed('requestInvalid', 'the request is not signed by its own key')
  }
  const keyFingerprint = createHash('sha256').update(key).digest('hex')
  return { ok: true, value: { spki: Buffer.from(key), keyFingerprint } }
}

interface Element {
  readonly tag: number
  readonly content: Buffer
  /** Tag, length and content as they stand. */
  readonly encoded: Buffer
}

/** Splits DER into its elements, not descending into them. Throws on anything that is not DER. */
function readElements(der: Buffer): Element[] {
  const elements: Element[] = []
  for (let offset = 0; offset < der.length; ) {
    const { headerBytes, contentBytes } = readHeader(der, offset)
    const start = offset + headerBytes
    const end = start + contentBytes
    if (end > der.length) throw new Error('an element is longer than what holds it')
    elements.push({
      tag: der.readUInt8(offset),
      content: der.subarray(start, end),
      encoded: der.subarray(offset, end),
    })
    offset = end
  }
  return elements
}

function readHeader(der: Buffer, offset: number): { headerBytes: number; contentBytes: number } {
  const first = der.readUInt8(offset + 1)
  if (first < 0x80) return { headerBytes: 2, contentBytes: first }
  const lengthBytes = first & 0x7f
  // A request is at most 8 KB, so lengths of more than two bytes, and the indefinite form, have no place.
  if (lengthBytes < 1 || lengthBytes > 2) throw new Error('the form of a length is not accepted')
  const contentBytes = der.readUIntBE(offset + 2, lengthBytes)
  if (contentBytes < (lengthBytes === 1 ? 0x80 : 0x100))
    throw new Error('a length is not as short as it can be')
  return { headerBytes: 2 + lengthBytes, contentBytes }
}

function soleElement(der: Buffer, tag: number): Element {
  const elements = readElements(der)
  if (elements.length !== 1) throw new Error('bytes follow the request')
  return expectTag(elements[0], tag)
}

function expectTag(element: Element | undefined, tag: number): Element {
  if (element?.tag !== tag) throw new Error('an element is missing or of another type')
  return element
}
