/**
 * The files of an identity, all in one folder of mode 0700:
 * - `credentials.pem`: private key and certificate chain together, so that one rename changes both;
 * - `root.pem`, `keyset.json`, `identity.json`: what the controller is recognised by and reached at;
 * - `next-key.pem`: the key of a renewal, or of an enrolment, until its certificate has come.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import Type, { type Static } from 'typebox'
import { generateAgentKey } from '../../shared/node/certificate-request.ts'
import { removeFileDurably, writeFileDurably } from '../../shared/node/durable-file.ts'
import type { SignedKeyset } from '../../shared/node/keyset.ts'
import { readPrivateFile } from '../../shared/node/sealed-file.ts'
import { agentIdentityOf, parseCertificateChain } from '../../shared/node/tls.ts'
import { KEYSET_BYTES_MAX } from '../../shared/protocol/limits.ts'
import { compileSchema, parseStrict } from '../../shared/protocol/parse.ts'

const closed = { additionalProperties: false } as const
const keysetFileBytesMax = 2 * KEYSET_BYTES_MAX

const IdentityFile = Type.Object(
  {
    v: Type.Literal(1),
    agentId: Type.String({ pattern: '^[0-9a-f]{32}$' }),
    fleet: Type.String({ pattern: '^[0-9a-f]{32}$' }),
    serverName: Type.String({ maxLength: 253 }),
    gatewayUrl: Type.String({ maxLength: 512 }),
    /** Where it enrolled, and where it asks when its certificate ran out while it was away. */
    enrolmentUrl: Type.String({ maxLength: 512 }),
    /** The token that brought this identity: shown again, it means that the answer was lost. */
    tokenId: Type.String({ pattern: '^[0-9a-f]{16}$' }),
  },
  closed,
)
export type IdentityFile = Static<typeof IdentityFile>
const KeysetFile = Type.Object(
  {
    keyset: Type.String({ maxLength: keysetFileBytesMax }),
    rootSignature: Type.String({ maxLength: 2_048 }),
  },
  closed,
)
const identityFileCheck = compileSchema(IdentityFile)
const keysetFileCheck = compileSchema(KeysetFile)

/** What is written of an identity, before anything in it was verified. */
export interface StoredIdentity {
  readonly file: IdentityFile
  readonly root: X509Certificate
  readonly keyset: SignedKeyset
  readonly credentials: StoredCredentials
}

export interface StoredCredentials {
  readonly key: KeyObject
  readonly keyPem: string
  readonly certificateChainPem: string
}

export type StoredResult<Value> =
  | { readonly ok: true; readonly value: Value }
  | { readonly ok: false; readonly kind: 'missing' | 'unreadable' | 'damaged'; readonly reason: string }

const pathOf = {
  identity: (folder: string) => join(folder, 'identity.json'),
  root: (folder: string) => join(folder, 'root.pem'),
  keyset: (folder: string) => join(folder, 'keyset.json'),
  credentials: (folder: string) => join(folder, 'credentials.pem'),
  nextKey: (folder: string) => join(folder, 'next-key.pem'),
}

/** Reads everything. `missing` means that this host was never enrolled; the rest is damage, told by file. */
export function readIdentity(folder: string): StoredResult<StoredIdentity> {
  const text = readText(pathOf.identity(folder))
  if (!text.ok) return text
  const file = parseStrict(identityFileCheck, text.value)
  if (!file.ok) return damaged(pathOf.identity(folder), file.error.reason)
  const credentials = readCredentials(folder)
  if (!credentials.ok) return present(credentials)
  const root = readRoot(folder)
  if (!root.ok) return present(root)
  const keysetText = readText(pathOf.keyset(folder))
  if (!keysetText.ok) return present(keysetText)
  const keyset = parseStrict(keysetFileCheck, keysetText.value, keysetFileBytesMax)
  if (!keyset.ok) return damaged(pathOf.keyset(folder), keyset.error.reason)
  return {
    ok: true,
    value: { file: file.value, credentials: credentials.value, root: root.value, keyset: keyset.value },
  }
}

export function readRoot(folder: string): StoredResult<X509Certificate> {
  const text = readText(pathOf.root(folder))
  if (!text.ok) return text
  try {
    return { ok: true, value: new X509Certificate(text.value) }
  } catch {
    return damaged(pathOf.root(folder), 'it is not a certificate')
  }
}

function readCredentials(folder: string): StoredResult<StoredCredentials> {
  const path = pathOf.credentials(folder)
  const text = readPrivateFile(path)
  if (!text.ok) {
    const kind = text.error.kind === 'missing' ? 'missing' : 'unreadable'
    return { ok: false, kind, reason: text.error.reason }
  }
  const end = text.value.indexOf('-----BEGIN CERTIFICATE-----')
  const keyPem = text.value.slice(0, Math.max(end, 0))
  try {
    return {
      ok: true,
      value: { key: createPrivateKey(keyPem), keyPem, certificateChainPem: text.value.slice(end) },
    }
  } catch {
    return damaged(path, 'it does not hold a private key and certificates')
  }
}

export function createIdentityFolder(folder: string): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
}

/** `identity.json` comes last: without it, or when it names another agent, enrolment is not finished. */
export function writeIdentity(
  folder: string,
  identity: {
    readonly file: IdentityFile
    readonly rootPem: string
    readonly keyset: SignedKeyset
    readonly keyPem: string
    readonly certificateChainPem: string
  },
): void {
  writeFileDurably(pathOf.root(folder), identity.rootPem, 0o600)
  writeKeyset(folder, identity.keyset)
  writeCredentials(folder, identity.keyPem, identity.certificateChainPem)
  writeFileDurably(pathOf.identity(folder), JSON.stringify(identity.file), 0o600)
}

export function writeCredentials(folder: string, keyPem: string, certificateChainPem: string): void {
  writeFileDurably(pathOf.credentials(folder), keyPem + certificateChainPem, 0o600)
}

export function writeKeyset(folder: string, { keyset, rootSignature }: SignedKeyset): void {
  writeFileDurably(pathOf.keyset(folder), JSON.stringify({ keyset, rootSignature }), 0o600)
}

/**
 * The key that waits for its certificate; made when there is none. It is on disk before anyone is asked to
 * certify it, so that a crash in between asks again with the same key.
 */
export function ensureNextKey(folder: string): KeyObject {
  const path = pathOf.nextKey(folder)
  const text = readPrivateFile(path)
  if (text.ok) {
    try {
      return createPrivateKey(text.value)
    } catch {
      // A damaged key has no certificate to lose: a new one takes its place.
    }
  }
  const key = generateAgentKey()
  writeFileDurably(path, keyToPem(key), 0o600)
  return key
}

export function removeNextKey(folder: string): void {
  removeFileDurably(pathOf.nextKey(folder))
}

export function readNextKey(folder: string): KeyObject | undefined {
  const text = readPrivateFile(pathOf.nextKey(folder))
  if (!text.ok) return undefined
  try {
    return createPrivateKey(text.value)
  } catch {
    return undefined
  }
}

export function keyToPem(key: KeyObject): string {
  return key.export({ format: 'pem', type: 'pkcs8' }).toString()
}

/**
 * The leaf of a chain, when it is this agent's, for this key, and leads to the root by issuers that may issue.
 * A text says what is wrong otherwise.
 */
export function verifyOwnChain(
  chainPem: string,
  expected: { readonly root: X509Certificate; readonly key: KeyObject; readonly agentId: string },
): X509Certificate | string {
  try {
    const chain = parseCertificateChain(chainPem)
    const leaf = chain[0]
    if (!leaf || chain.length > 4) return 'the chain has no certificate, or too many'
    for (const [index, certificate] of chain.entries()) {
      const issuer = chain[index + 1] ?? expected.root
      if (!issuer.ca || !certificate.checkIssued(issuer) || !certificate.verify(issuer.publicKey)) {
        return 'the chain does not lead to the root of this fleet'
      }
    }
    const identity = agentIdentityOf(leaf)
    if (!identity.ok) return identity.reason
    if (identity.identity.agentId !== expected.agentId) return 'the certificate names another agent'
    return leaf.checkPrivateKey(expected.key) ? leaf : 'the certificate is for another key'
  } catch {
    return 'the chain does not parse'
  }
}

function readText(path: string): StoredResult<string> {
  try {
    return { ok: true, value: readFileSync(path, 'utf8') }
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    if (code === 'ENOENT') return { ok: false, kind: 'missing', reason: `${path} does not exist` }
    return { ok: false, kind: 'unreadable', reason: `${path} cannot be read: ${code ?? String(error)}` }
  }
}

/** Once `identity.json` is there, a missing file beside it is damage. */
function present<Value>(result: StoredResult<Value> & { ok: false }): StoredResult<never> {
  return result.kind === 'missing' ? { ...result, kind: 'damaged' } : result
}

function damaged(path: string, why: string): StoredResult<never> {
  return { ok: false, kind: 'damaged', reason: `${path} is damaged: ${why}` }
}
