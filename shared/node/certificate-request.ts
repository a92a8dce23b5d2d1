/**
 * Makes certificate requests (PKCS #10, RFC 2986) for P-256 keys. The subject is empty: the controller decides
 * who an agent is and reads nothing of a request but its key.
 */
import { createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'

/** AlgorithmIdentifier of ecdsa-with-SHA256 (RFC 5758, section 3.2). */
const ecdsaWithSha256 = Buffer.from('300a06082a8648ce3d040302', 'hex')
const versionZero = Buffer.from('020100', 'hex')
const emptySubject = Buffer.from('3000', 'hex')
const noAttributes = Buffer.from('a000', 'hex')
const tagSequence = 0x30
const tagBitString = 0x03

export function generateAgentKey(): KeyObject {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
}

/** The request in PEM, signed by the key as proof of possession. Throws for a key that is not P-256. */
export function createCertificateRequest(privateKey: KeyObject): string {
  if (privateKey.asymmetricKeyDetails?.namedCurve !== 'prime256v1') throw new Error('a P-256 key is needed')
  const spki = createPublicKey(privateKey).export({ format: 'der', type: 'spki' })
  const info = derElement(tagSequence, versionZero, emptySubject, spki, noAttributes)
  const unusedBits = Buffer.from([0])
  const signature = derElement(tagBitString, unusedBits, sign('sha256', info, privateKey))
  const der = derElement(tagSequence, info, ecdsaWithSha256, signature)
  const lines = der.toString('base64').match(/.{1,64}/g) ?? []
  return `-----BEGIN CERTIFICATE REQUEST-----\n${lines.join('\n')}\n-----END CERTIFICATE REQUEST-----\n`
}

/** One DER element in its shortest form, up to 255 bytes of content: a P-256 request has fewer. */
function derElement(tag: number, ...parts: Buffer[]): Buffer {
  const content = Buffer.concat(parts)
  const length = content.length < 0x80 ? [content.length] : [0x81, content.length]
  return Buffer.concat([Buffer.from([tag, ...length]), content])
}
