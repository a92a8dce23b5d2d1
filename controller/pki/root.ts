/**
 * The offline root: it signs the two online issuers and the keyset, and nothing else. Its key lies in a folder
 * of its own under a passphrase of its own, so that it can be carried away; the running controller never
 * opens it.
 */
import { createPublicKey, generateKeyPair, type KeyObject, X509Certificate } from 'node:crypto'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { LIVE_CLOCK_SKEW_MS_MAX } from '../../shared/node/command-verification.ts'
import { writeFileDurably } from '../../shared/node/durable-file.ts'
import { type SignedKeyset, signKeyset } from '../../shared/node/keyset.ts'
import { readSealedKey, type SealedFileError, writeSealedKey } from '../../shared/node/sealed-file.ts'
import type { Keyset } from '../../shared/protocol/commands.ts'
import { buildCertificate } from './certificate.ts'
import type { Issuer } from './online-keys.ts'
import type { Outcome } from './outcome.ts'

const dayMs = 24 * 3_600_000
const rootLifeMs = 3_652 * dayMs
const issuerLifeMs = 365 * dayMs
const purpose = 'root-key'

/** Certificates begin this long ago: a host whose clock is late must still be able to verify its controller. */
export const BACKDATING_MS = LIVE_CLOCK_SKEW_MS_MAX

export interface Root {
  readonly certificate: X509Certificate
  /** Makes a new issuer for one year, or until the root ends. */
  issueIssuer(kind: 'agentsIssuer' | 'serversIssuer', nowMs: number): Promise<Issuer>
  /** Throws when the keyset contradicts itself. */
  signKeyset(keyset: Keyset): SignedKeyset
}

export interface RootOptions {
  readonly folder: string
  readonly passphrase: string
  readonly fleet: string
  readonly nowMs: number
  readonly rootKeyBits: number
  readonly issuerKeyBits: number
  readonly scryptCost: number
}

/** Makes a root and writes it to `folder`. Takes a second or two for 4,096 bits. */
export async function createRoot(options: RootOptions): Promise<Root> {
  const key = await generateRsaKey(options.rootKeyBits)
  const commonName = `Cordon root ${options.fleet.slice(0, 8)}`
  const certificate = buildCertificate({
    use: { kind: 'root' },
    commonName,
    subjectSpki: spkiOf(key),
    notBeforeMs: options.nowMs - BACKDATING_MS,
    notAfterMs: options.nowMs + rootLifeMs,
    issuerKey: key,
    issuerName: commonName,
    issuerSpki: spkiOf(key),
  })
  mkdirSync(options.folder, { recursive: true, mode: 0o700 })
  await writeSealedKey(keyPath(options.folder), key, {
    purpose,
    passphrase: options.passphrase,
    scryptCost: options.scryptCost,
  })
  writeFileDurably(certificatePath(options.folder), certificate.toString(), 0o600)
  return rootOf(certificate, key, options.issuerKeyBits)
}

/** Opens the root for a ceremony: new issuers, or a new keyset. */
export async function openRoot(
  folder: string,
  passphrase: string,
  issuerKeyBits = 3_072,
): Promise<Outcome<Root, SealedFileError>> {
  const key = await readSealedKey(keyPath(folder), { purpose, passphrase })
  if (!key.ok) return key
  try {
    const certificate = new X509Certificate(readFileSync(certificatePath(folder), 'utf8'))
    if (certificate.checkPrivateKey(key.value)) {
      return { ok: true, value: rootOf(certificate, key.value, issuerKeyBits) }
    }
  } catch {
    // Told below, with what to look at.
  }
  const reason = `${certificatePath(folder)} is not the certificate of the root's key`
  return { ok: false, error: { kind: 'malformed', reason } }
}

function rootOf(certificate: X509Certificate, key: KeyObject, issuerKeyBits: number): Root {
  const issuerName = commonNameOf(certificate)
  return {
    certificate,
    async issueIssuer(kind, nowMs) {
      const issuerKey = await generateRsaKey(issuerKeyBits)
      const issuer = buildCertificate({
        use: { kind },
        commonName: issuerName.replace('root', kind === 'agentsIssuer' ? 'agents issuer' : 'servers issuer'),
        subjectSpki: spkiOf(issuerKey),
        notBeforeMs: Math.max(nowMs - BACKDATING_MS, certificate.validFromDate.getTime()),
        notAfterMs: Math.min(nowMs + issuerLifeMs, certificate.validToDate.getTime()),
        issuerKey: key,
        issuerName,
        issuerSpki: spkiOf(key),
      })
      return { certificate: issuer, key: issuerKey }
    },
    signKeyset: (keyset) => signKeyset(keyset, key),
  }
}

/** Off the main thread: 4,096 bits take a second or two. */
async function generateRsaKey(modulusLength: number): Promise<KeyObject> {
  const { privateKey } = await promisify(generateKeyPair)('rsa', { modulusLength })
  return privateKey
}

/** The common name that `buildCertificate` wrote: the whole subject of every certificate of Cordon. */
export function commonNameOf(certificate: X509Certificate): string {
  return certificate.subject.replace(/^CN=/, '')
}

/** DER SubjectPublicKeyInfo of a private or public key. */
export function spkiOf(key: KeyObject): Buffer {
  return (key.type === 'private' ? createPublicKey(key) : key).export({ format: 'der', type: 'spki' })
}

const keyPath = (folder: string) => join(folder, 'root-key.json')
const certificatePath = (folder: string) => join(folder, 'root.pem')
