/**
 * The keyset: who may sign commands, and how many must. The offline root signs it (RSASSA-PSS, RFC 8017, with
 * SHA-256 and a salt of 32 bytes, over the domain prefix and the exact bytes). An agent keeps the highest
 * version it has seen, so that a revoked operator stays revoked.
 */
import { constants, type KeyObject, sign as signRaw, verify as verifyRaw } from 'node:crypto'
import { Keyset } from '../protocol/commands.ts'
import { KEYSET_BYTES_MAX } from '../protocol/limits.ts'
import { compileSchema, parseStrict } from '../protocol/parse.ts'
import { decodeBase64, decodeUtf8, keyIdOf, withDomain } from './signing.ts'

const keysetCheck = compileSchema(Keyset)
const pss = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 } as const

/** As it travels and as it is stored: exact bytes and the root's signature, both base64. */
export interface SignedKeyset {
  readonly keyset: string
  readonly rootSignature: string
}

export interface KeysetFailure {
  readonly kind: 'malformed' | 'signature' | 'fleet' | 'version' | 'expired' | 'inconsistent'
  readonly reason: string
}
export type KeysetResult =
  | { readonly ok: true; readonly keyset: Keyset }
  | { readonly ok: false; readonly failure: KeysetFailure }

export interface KeysetExpectation {
  /** Public key in the root's certificate. */
  readonly rootKey: KeyObject
  readonly fleet: string
  /** Lowest version that is taken: one above the version in force, or that version when it is loaded again. */
  readonly versionMin: number
  /** Null where the clock does not decide, as when a stored keyset is loaded to ask for a newer one. */
  readonly nowMs: number | null
}

/** Signs a keyset with the root's key. Throws when the keyset contradicts itself: nobody should sign that. */
export function signKeyset(keyset: Keyset, rootKey: KeyObject): SignedKeyset {
  const bytes = Buffer.from(JSON.stringify(keyset), 'utf8')
  const parsed = parseStrict(keysetCheck, bytes.toString('utf8'), KEYSET_BYTES_MAX)
  if (!parsed.ok)
    throw new Error(`the keyset is not valid at ${parsed.error.path ?? '/'}: ${parsed.error.reason}`)
  const contradiction = findContradiction(keyset)
  if (contradiction) throw new Error(`the keyset is not valid: ${contradiction}`)
  const signature = signRaw('sha256', withDomain('keyset', bytes), { key: rootKey, ...pss })
  return { keyset: bytes.toString('base64'), rootSignature: signature.toString('base64') }
}

/** Verifies the root's signature first and reads the keyset afterwards. Never throws. */
export function verifyKeyset(signed: SignedKeyset, expected: KeysetExpectation): KeysetResult {
  const bytes = decodeBase64(signed.keyset)
  const signature = decodeBase64(signed.rootSignature)
  if (!bytes || !signature) return refused('malformed', 'the keyset or its signature is not base64')
  if (bytes.length > KEYSET_BYTES_MAX) return refused('malformed', 'the keyset is too long')
  if (!verifyRootSignature(bytes, signature, expected.rootKey)) {
    return refused('signature', 'the keyset is not signed by the root of this fleet')
  }
  const text = decodeUtf8(bytes)
  const parsed = parseStrict(keysetCheck, text ?? '', KEYSET_BYTES_MAX)
  if (!parsed.ok) return refused('malformed', `${parsed.error.path ?? ''}: ${parsed.error.reason}`)
  const keyset = parsed.value
  if (keyset.fleet !== expected.fleet) return refused('fleet', 'the keyset belongs to another fleet')
  if (keyset.version < expected.versionMin) {
    return refused('version', `keyset version ${keyset.version} is older than ${expected.versionMin}`)
  }
  if (expected.nowMs !== null && keyset.expires <= expected.nowMs) {
    return refused('expired', `the keyset expired at ${new Date(keyset.expires).toISOString()}`)
  }
  const contradiction = findContradiction(keyset)
  return contradiction ? refused('inconsistent', contradiction) : { ok: true, keyset }
}

function verifyRootSignature(bytes: Buffer, signature: Buffer, rootKey: KeyObject): boolean {
  try {
    return verifyRaw('sha256', withDomain('keyset', bytes), { key: rootKey, ...pss }, signature)
  } catch {
    return false
  }
}

/** A key under two names would count as two operators, and a controller's key as one. */
function findContradiction(keyset: Keyset): string | undefined {
  const seen = new Set<string>()
  for (const { keyId, publicKey } of [...keyset.operators, ...keyset.controllers]) {
    if (keyIdOf(publicKey) !== keyId) return `key id ${keyId} is not that of its public key`
    if (seen.has(keyId)) return `key ${keyId} is listed twice`
    seen.add(keyId)
  }
  if (keyset.expires <= keyset.issued) return 'it expires before it is issued'
  return undefined
}

function refused(kind: KeysetFailure['kind'], reason: string): KeysetResult {
  return { ok: false, failure: { kind, reason } }
}
