/**
 * Who this agent is and whom it believes: its key and certificate, the root of its fleet, and the keyset that
 * says whose commands it obeys. Opened at start, renewed while running.
 */
import { createHash, createPublicKey, type KeyObject, type X509Certificate } from 'node:crypto'
import type { ConnectionOptions } from 'node:tls'
import { createCertificateRequest } from '../../shared/node/certificate-request.ts'
import { type KeysetFailure, type SignedKeyset, verifyKeyset } from '../../shared/node/keyset.ts'
import { proveOldKey } from '../../shared/node/renewal-proof.ts'
import { controllerFacingTlsOptions, keyFingerprintOf } from '../../shared/node/tls.ts'
import type { Keyset } from '../../shared/protocol/commands.ts'
import type { ExpiredRenewalRequest } from '../../shared/protocol/messages.ts'
import {
  ensureNextKey,
  keyToPem,
  readIdentity,
  readNextKey,
  removeNextKey,
  type StoredIdentity,
  verifyOwnChain,
  writeCredentials,
  writeKeyset,
} from './identity-files.ts'

const LEAF_LIFE_MS = 30 * 86_400_000

export interface IdentityError {
  readonly kind: 'notEnrolled' | 'unreadable' | 'damaged'
  readonly reason: string
  /** What to type or do. */
  readonly mend: string
}

export type IdentityResult =
  | { readonly ok: true; readonly identity: Identity }
  | { readonly ok: false; readonly error: IdentityError }

export interface Identity {
  /** 32 hex digits. */
  readonly agentId: string
  readonly fleet: string
  readonly gatewayUrl: string
  readonly serverName: string
  /** Origin of the enrolment listener. */
  readonly enrolmentUrl: string
  readonly rootPem: string
  /** For the connection to the gateway; ask again after a renewal. */
  tlsOptions(): ConnectionOptions
  /** SHA-256 of the SubjectPublicKeyInfo in the certificate, in hex: commands name it. */
  keyFingerprint(): string
  certificateExpiresAtMs(): number
  /** The newest keyset that was ever saved. */
  keyset(): Keyset
  /** Keeps a keyset that is newer than the one in force and signed by the root. There is no way back. */
  saveKeyset(
    signed: SignedKeyset,
  ): { readonly ok: true; readonly version: number } | { readonly ok: false; readonly failure: KeysetFailure }
  /** Whether the certificate is past half its life, give or take a tenth that differs between hosts. */
  renewalDue(nowMs: number): boolean
  /** A request for a new key, which is kept beside the one in force until its certificate has come. */
  startRenewal(): string
  /** A request for a new key that the old one vouches for: what is asked with once the certificate ran out. */
  proveExpired(nonce: string): Pick<ExpiredRenewalRequest, 'certificateChainPem' | 'csrPem' | 'signature'>
  /** The next request is for another key: the one that waits belongs to a certificate already. */
  discardNextKey(): void
  /** Switches to the new key when the chain is this agent's. Nothing changes when it is not. */
  finishRenewal(
    certificateChainPem: string,
  ): { readonly ok: true } | { readonly ok: false; readonly reason: string }
}

/** Reads and verifies the identity in `folder`. An expired certificate opens: the agent goes on watching. */
export function openIdentity(folder: string): IdentityResult {
  const stored = readIdentity(folder)
  if (!stored.ok) return failed(stored.kind === 'missing' ? 'notEnrolled' : stored.kind, stored.reason)
  const { file, root, credentials } = stored.value
  const leaf = verifyOwnChain(credentials.certificateChainPem, {
    root,
    key: credentials.key,
    agentId: file.agentId,
  })
  if (typeof leaf === 'string') return failed('damaged', `the certificate in ${folder} is not valid: ${leaf}`)
  const keyset = verifyKeyset(stored.value.keyset, {
    rootKey: root.publicKey,
    fleet: file.fleet,
    versionMin: 1,
    nowMs: null,
  })
  if (!keyset.ok) return failed('damaged', `the keyset in ${folder} is not valid: ${keyset.failure.reason}`)
  dropFinishedRenewal(folder, credentials.key)
  return { ok: true, identity: identityOf(folder, stored.value, leaf, keyset.keyset) }
}

function identityOf(
  folder: string,
  { file, root, credentials }: StoredIdentity,
  firstLeaf: X509Certificate,
  firstKeyset: Keyset,
): Identity {
  const { agentId, fleet, gatewayUrl, serverName, enrolmentUrl } = file
  let inForce = {
    leaf: firstLeaf,
    key: credentials.key,
    keyPem: credentials.keyPem,
    certificateChainPem: credentials.certificateChainPem,
  }
  let keyset = firstKeyset
  return {
    agentId,
    fleet,
    gatewayUrl,
    serverName,
    enrolmentUrl,
    rootPem: root.toString(),
    tlsOptions: () => controllerFacingTlsOptions(inForce, root.toString(), serverName),
    keyFingerprint: () => keyFingerprintOf(inForce.leaf),
    certificateExpiresAtMs: () => inForce.leaf.validToDate.getTime(),
    keyset: () => keyset,
    saveKeyset(signed) {
      const versionMin = keyset.version + 1
      const result = verifyKeyset(signed, { rootKey: root.publicKey, fleet, versionMin, nowMs: null })
      if (!result.ok) return result
      writeKeyset(folder, signed)
      keyset = result.keyset
      return { ok: true, version: keyset.version }
    },
    renewalDue: (nowMs) => nowMs >= renewalDueAtMs(inForce.leaf),
    startRenewal: () => createCertificateRequest(ensureNextKey(folder)),
    proveExpired(nonce) {
      const csrPem = createCertificateRequest(ensureNextKey(folder))
      const { certificateChainPem, key } = inForce
      return { certificateChainPem, csrPem, signature: proveOldKey(key, nonce, csrPem) }
    },
    discardNextKey: () => removeNextKey(folder),
    finishRenewal(certificateChainPem) {
      const key = readNextKey(folder)
      if (!key) return { ok: false, reason: 'no renewal is under way' }
      const leaf = verifyOwnChain(certificateChainPem, { root, key, agentId })
      if (typeof leaf === 'string') return { ok: false, reason: leaf }
      const keyPem = keyToPem(key)
      writeCredentials(folder, keyPem, certificateChainPem)
      inForce = { leaf, key, keyPem, certificateChainPem }
      removeNextKey(folder)
      return { ok: true }
    },
  }
}

/** A crash between the switch and the removal of the waiting key leaves that key twice. */
function dropFinishedRenewal(folder: string, key: KeyObject): void {
  const waiting = readNextKey(folder)
  if (waiting && createPublicKey(waiting).equals(createPublicKey(key))) removeNextKey(folder)
}

/** The jitter comes from the certificate, so that it stays the same over restarts. */
function renewalDueAtMs(leaf: X509Certificate): number {
  // Certificates are dated back, for clocks that are wrong: that is no part of their life.
  const fromMs = Math.max(leaf.validFromDate.getTime(), leaf.validToDate.getTime() - LEAF_LIFE_MS)
  const lifeMs = leaf.validToDate.getTime() - fromMs
  const jitter = createHash('sha256').update(leaf.raw).digest().readUInt32BE(0) / 2 ** 32
  return fromMs + lifeMs * (0.5 + 0.1 * jitter)
}

function failed(kind: IdentityError['kind'], reason: string): IdentityResult {
  const enrol = 'run `cordon-agent enroll URL TOKEN` with a token from `cordon host enroll-token`'
  const mend = kind === 'unreadable' ? 'run as the user the agent runs as, or mend the permissions' : enrol
  return { ok: false, error: { kind, reason, mend } }
}
