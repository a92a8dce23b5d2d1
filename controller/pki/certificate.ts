/**
 * Builds X.509 certificates (RFC 5280). node-forge writes the DER; node:crypto signs, because its keys never
 * leave it and it is forty times as fast; the subject's key goes in as the DER it is, so it may be of any kind.
 */
import { createHash, type KeyObject, randomBytes, sign as signRaw, X509Certificate } from 'node:crypto'
import forge from 'node-forge'

const { asn1 } = forge
type Asn1 = forge.asn1.Asn1

export type CertificateUse =
  | { readonly kind: 'root' }
  | { readonly kind: 'agentsIssuer' }
  | { readonly kind: 'serversIssuer' }
  | { readonly kind: 'agent'; readonly agentId: string }
  | { readonly kind: 'server'; readonly serverName: string }

export interface CertificateOptions {
  readonly use: CertificateUse
  readonly commonName: string
  /** DER SubjectPublicKeyInfo of the subject. */
  readonly subjectSpki: Buffer
  readonly notBeforeMs: number
  readonly notAfterMs: number
  /** RSA key of the issuer; of the subject itself for a root. */
  readonly issuerKey: KeyObject
  readonly issuerName: string
  /** DER SubjectPublicKeyInfo of the issuer. */
  readonly issuerSpki: Buffer
}

const sha256WithRsa = '1.2.840.113549.1.1.11'
const extensionIds = {
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  authorityKeyIdentifier: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
} as const
const extendedUses = { serverAuth: '1.3.6.1.5.5.7.3.1', clientAuth: '1.3.6.1.5.5.7.3.2' } as const

/** Builds and signs one certificate with a random 128-bit serial. */
export function buildCertificate(options: CertificateOptions): X509Certificate {
  const tbs = toDer(buildTbs(options))
  const signature = signRaw('sha256', tbs, options.issuerKey)
  const der = toDer(sequence([asn1.fromDer(binary(tbs)), rsaSignatureAlgorithm(), bitString(signature)]))
  return new X509Certificate(der)
}

function buildTbs(options: CertificateOptions): Asn1 {
  return sequence([
    context(0, true, [integer(Buffer.from([2]))]),
    // A leading one keeps the number positive and its encoding minimal whatever the random bytes are.
    integer(Buffer.concat([Buffer.from([1]), randomBytes(16)])),
    rsaSignatureAlgorithm(),
    distinguishedName(options.issuerName),
    sequence([time(options.notBeforeMs), time(options.notAfterMs)]),
    distinguishedName(options.commonName),
    asn1.fromDer(binary(options.subjectSpki)),
    context(3, true, [sequence(extensions(options))]),
  ])
}

function extensions({ use, subjectSpki, issuerSpki }: CertificateOptions): Asn1[] {
  const identifiers = [
    extension('subjectKeyIdentifier', false, octetString(keyIdentifier(subjectSpki))),
    extension(
      'authorityKeyIdentifier',
      false,
      sequence([context(0, false, keyIdentifier(issuerSpki).toString('latin1'))]),
    ),
  ]
  switch (use.kind) {
    case 'root':
      return [...certifier(1), ...identifiers]
    // The purpose in an issuer binds all that it issues: a stolen servers' issuer makes no agents.
    case 'agentsIssuer':
      return [...certifier(0), extendedUse('clientAuth'), ...identifiers]
    case 'serversIssuer':
      return [...certifier(0), extendedUse('serverAuth'), ...identifiers]
    case 'agent':
      return [
        ...endEntity(),
        extendedUse('clientAuth'),
        altName(6, `urn:agent:${use.agentId}`),
        ...identifiers,
      ]
    case 'server':
      return [...endEntity(), extendedUse('serverAuth'), altName(2, use.serverName), ...identifiers]
  }
}

function certifier(pathLength: number): Asn1[] {
  return [
    extension('basicConstraints', true, sequence([boolean(true), integer(Buffer.from([pathLength]))])),
    // keyCertSign and cRLSign: bits 5 and 6, so one bit of the byte is unused.
    extension('keyUsage', true, bitString(Buffer.from([0x06]), 1)),
  ]
}

function endEntity(): Asn1[] {
  return [
    extension('basicConstraints', true, sequence([])),
    // digitalSignature: bit 0.
    extension('keyUsage', true, bitString(Buffer.from([0x80]), 7)),
  ]
}

function extendedUse(use: keyof typeof extendedUses): Asn1 {
  return extension('extendedKeyUsage', true, sequence([objectId(extendedUses[use])]))
}

/** `tag` is that of GeneralName: 2 for a DNS name, 6 for a URI. */
function altName(tag: 2 | 6, name: string): Asn1 {
  return extension('subjectAltName', false, sequence([context(tag, false, name)]))
}

function extension(name: keyof typeof extensionIds, critical: boolean, value: Asn1): Asn1 {
  const id = objectId(extensionIds[name])
  return sequence([id, ...(critical ? [boolean(true)] : []), octetString(toDer(value))])
}

/** The 160 leftmost bits of SHA-256 over the public key (RFC 7093, section 2). */
function keyIdentifier(spki: Buffer): Buffer {
  return createHash('sha256').update(spki).digest().subarray(0, 20)
}

function rsaSignatureAlgorithm(): Asn1 {
  return sequence([objectId(sha256WithRsa), universal(asn1.Type.NULL, false, '')])
}

function distinguishedName(commonName: string): Asn1 {
  const attribute = sequence([objectId('2.5.4.3'), universal(asn1.Type.UTF8, false, commonName)])
  return sequence([universal(asn1.Type.SET, true, [attribute])])
}

/** UTCTime until 2049, GeneralizedTime from then on (RFC 5280, section 4.1.2.5). */
function time(ms: number): Asn1 {
  const date = new Date(ms)
  return date.getUTCFullYear() < 2050
    ? universal(asn1.Type.UTCTIME, false, asn1.dateToUtcTime(date))
    : universal(asn1.Type.GENERALIZEDTIME, false, asn1.dateToGeneralizedTime(date))
}

function universal(type: forge.asn1.Type, constructed: boolean, value: string | Asn1[]): Asn1 {
  return asn1.create(asn1.Class.UNIVERSAL, type, constructed, value)
}
function context(tag: number, constructed: boolean, value: string | Asn1[]): Asn1 {
  return asn1.create(asn1.Class.CONTEXT_SPECIFIC, tag as forge.asn1.Type, constructed, value)
}
function sequence(items: Asn1[]): Asn1 {
  return universal(asn1.Type.SEQUENCE, true, items)
}
function boolean(value: boolean): Asn1 {
  return universal(asn1.Type.BOOLEAN, false, value ? '\xff' : '\x00')
}
/** Big-endian two's complement, as short as it can be. */
function integer(bytes: Buffer): Asn1 {
  return universal(asn1.Type.INTEGER, false, binary(bytes))
}
function bitString(bytes: Buffer, unusedBits = 0): Asn1 {
  return universal(asn1.Type.BITSTRING, false, String.fromCharCode(unusedBits) + binary(bytes))
}
function octetString(bytes: Buffer): Asn1 {
  return universal(asn1.Type.OCTETSTRING, false, binary(bytes))
}
function objectId(id: string): Asn1 {
  return universal(asn1.Type.OID, false, asn1.oidToDer(id).getBytes())
}
function toDer(value: Asn1): Buffer {
  return Buffer.from(asn1.toDer(value).getBytes(), 'latin1')
}
function binary(bytes: Buffer): string {
  return bytes.toString('latin1')
}
