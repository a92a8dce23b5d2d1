/**
 * Agents whose certificate ran out while they were away, by up to 90 days. The old key proves which agent asks;
 * that it is still the right host is for a person to say. Nothing is issued before that.
 */
import { createHmac, randomBytes, timingSafeEqual, X509Certificate } from 'node:crypto'
import { isProvenByOldKey } from '../../shared/node/renewal-proof.ts'
import type { Sqlite } from '../../shared/node/sqlite.ts'
import { agentIdentityOf, type PeerIdentity, parseCertificateChain } from '../../shared/node/tls.ts'
import type { ExpiredRenewalAnswer, ExpiredRenewalRequest } from '../../shared/protocol/messages.ts'
import { PROTOCOL_VERSION } from '../../shared/protocol/version.ts'
import type { Authority } from './authority.ts'
import { readCertificateRequest } from './certificate-request.ts'
import { failed, type Outcome, type PkiError } from './outcome.ts'
import type { Registry } from './registry.ts'

export type ExpiredRenewalError = PkiError<
  | 'protocolVersion'
  | 'nonceInvalid'
  | 'proofInvalid'
  | 'requestInvalid'
  | 'keyInUse'
  | 'unknownCertificate'
  | 'notExpired'
  | 'expiredTooLong'
  | 'replaced'
  | 'revoked'
  | 'held'
>

export interface PendingRenewal {
  readonly agentId: string
  readonly address: string
  readonly expiredAtMs: number
  readonly askedAtMs: number
  /** Of the new key. */
  readonly keyFingerprint: string
}

export interface ExpiredRenewalOptions {
  readonly database: Sqlite
  readonly authority: Pick<Authority, 'rootPem' | 'issueAgentCertificate'>
  readonly registry: Registry
  readonly clock: () => number
  /** Called once for each new key that an agent asks with. */
  readonly asked: (renewal: PendingRenewal) => void
}

export interface ExpiredRenewals {
  /** 56 bytes in hex: random, its end, and what shows that this process made it. */
  nonce(): string
  /** Answers a request that was parsed strictly. */
  ask(request: ExpiredRenewalRequest, address: string): Outcome<ExpiredRenewalAnswer, ExpiredRenewalError>
  /** Those that wait for a person, the oldest first. */
  pending(): readonly PendingRenewal[]
  /** Issues the certificate; the agent fetches it when it asks the next time. */
  approve(agentId: string): Outcome<PendingRenewal, PkiError<'notPending' | 'revoked' | 'held'>>
}

const dayMs = 86_400_000
const EXPIRED_DAYS_MAX = 90
const NONCE_LIFE_MS = 5 * 60_000
const RETRY_AFTER_MS = 60_000
const randomBytesOfNonce = 16
const payloadBytes = randomBytesOfNonce + 8

interface RenewalRow {
  readonly agent_id: string
  readonly certificate_fingerprint: string
  readonly key_fingerprint: string
  readonly csr_pem: string
  readonly address: string
  readonly expired_at: number
  readonly asked_at: number
  readonly approved_at: number | null
}

export function createExpiredRenewals(options: ExpiredRenewalOptions): ExpiredRenewals {
  const { database, authority, registry, clock } = options
  const statements = prepare(database)
  const nonces = createNonces()
  const root = new X509Certificate(authority.rootPem)

  const judge = (peer: PeerIdentity): Outcome<null, ExpiredRenewalError> => {
    const known = registry.findCertificate(peer.certificateFingerprint)
    if (known?.agentId !== peer.agentId) {
      return failed('unknownCertificate', 'this controller does not know the certificate')
    }
    if (known.revoked) return failed('revoked', 'the agent was revoked')
    if (known.held) return failed('held', 'two hosts use this agent’s identity')
    if (known.state === 'superseded') {
      // Whoever has it is a copy of a host that has a newer one: noted as in the gateway.
      registry.authorise(peer.certificateFingerprint, peer.agentId)
      return failed('replaced', 'a newer certificate had taken the place of this one')
    }
    const overdueMs = clock() - known.notAfterMs
    if (overdueMs < 0) {
      const until = new Date(known.notAfterMs).toISOString()
      return failed('notExpired', `the certificate is valid until ${until}: is the clock of the host right?`)
    }
    if (overdueMs > EXPIRED_DAYS_MAX * dayMs) {
      return failed('expiredTooLong', `the certificate expired more than ${EXPIRED_DAYS_MAX} days ago`)
    }
    return { ok: true, value: null }
  }

  return {
    nonce: nonces.make,
    ask(request, address) {
      if (request.protocolVersion !== PROTOCOL_VERSION) {
        return failed('protocolVersion', `this controller speaks protocol version ${PROTOCOL_VERSION}`)
      }
      if (!nonces.isValid(request.nonce))
        return failed('nonceInvalid', 'the nonce is not one of the last minutes')
      const peer = provenPeer(request, root)
      if (!peer)
        return failed(
          'proofInvalid',
          'the old key did not sign this, or its certificate is not of this fleet',
        )
      const judged = judge(peer)
      if (!judged.ok) return judged
      const parsed = readCertificateRequest(request.csrPem)
      if (!parsed.ok) return parsed
      const { keyFingerprint } = parsed.value
      const issued = registry.findByKey(keyFingerprint)
      if (issued) {
        const isAnswer = issued.agentId === peer.agentId && issued.standing === 'ok'
        if (!isAnswer) return failed('keyInUse', 'a renewal needs a new key')
        return { ok: true, value: { state: 'renewed', certificateChainPem: issued.chainPem } }
      }
      const before = statements.get.get(peer.agentId)
      statements.put.run({
        agentId: peer.agentId,
        certificateFingerprint: peer.certificateFingerprint,
        keyFingerprint,
        csrPem: request.csrPem,
        address,
        expiredAtMs: peer.expiresAtMs,
        askedAtMs: clock(),
      })
      const row = statements.get.get(peer.agentId)
      if (row && before?.key_fingerprint !== keyFingerprint) options.asked(pendingOf(row))
      return { ok: true, value: { state: 'pending', retryAfterMs: RETRY_AFTER_MS } }
    },
    pending: () => statements.pending.all().map(pendingOf),
    approve(agentId) {
      const row = statements.get.get(agentId)
      if (!row || row.approved_at !== null)
        return failed('notPending', 'no renewal of this host waits for approval')
      const known = registry.findCertificate(row.certificate_fingerprint)
      // Much may have happened since it asked.
      if (!known || known.revoked) return failed('revoked', 'the agent was revoked meanwhile')
      if (known.held) return failed('held', 'two hosts use this agent’s identity: see `cordon host readmit`')
      const made = authority.issueAgentCertificate(row.csr_pem, agentId)
      if (!made.ok) throw new Error(`a request that was checked is not valid any more: ${made.error.reason}`)
      database.transaction(() => {
        registry.enterRenewal(made.value)
        statements.approved.run(clock(), agentId)
      })()
      return { ok: true, value: pendingOf(row) }
    },
  }
}

/** The agent whose key made the proof, when its certificate leads to the root; expired or not. */
function provenPeer(request: ExpiredRenewalRequest, root: X509Certificate): PeerIdentity | undefined {
  try {
    const chain = parseCertificateChain(request.certificateChainPem)
    const [leaf] = chain
    if (!leaf || chain.length > 4) return undefined
    for (const [index, certificate] of chain.entries()) {
      const issuer = chain[index + 1] ?? root
      if (!issuer.ca || !certificate.checkIssued(issuer) || !certificate.verify(issuer.publicKey))
        return undefined
    }
    const identity = agentIdentityOf(leaf)
    const isProven = isProvenByOldKey(leaf.publicKey, request.signature, request)
    return identity.ok && isProven ? identity.identity : undefined
  } catch {
    return undefined
  }
}

/** Nonces that need no memory: a restart makes those before it worthless, and the agent asks for another. */
function createNonces() {
  const secret = randomBytes(32)
  const tagOf = (payload: Buffer) => createHmac('sha256', secret).update(payload).digest()
  return {
    make(): string {
      const payload = Buffer.alloc(payloadBytes)
      randomBytes(randomBytesOfNonce).copy(payload)
      // Monotonic: a wall clock that jumps must not make them worthless, or eternal.
      payload.writeBigUInt64BE(BigInt(Math.ceil(performance.now() + NONCE_LIFE_MS)), randomBytesOfNonce)
      return Buffer.concat([payload, tagOf(payload)]).toString('hex')
    },
    isValid(nonce: string): boolean {
      const bytes = Buffer.from(nonce, 'hex')
      const payload = bytes.subarray(0, payloadBytes)
      const tag = bytes.subarray(payloadBytes)
      if (tag.length !== 32 || !timingSafeEqual(tag, tagOf(payload))) return false
      return Number(payload.readBigUInt64BE(randomBytesOfNonce)) > performance.now()
    },
  }
}

function pendingOf(row: RenewalRow): PendingRenewal {
  return {
    agentId: row.agent_id,
    address: row.address,
    expiredAtMs: row.expired_at,
    askedAtMs: row.asked_at,
    keyFingerprint: row.key_fingerprint,
  }
}

function prepare(database: Sqlite) {
  return {
    get: database.prepare<[string], RenewalRow>('SELECT * FROM expired_renewal WHERE agent_id = ?'),
    pending: database.prepare<[], RenewalRow>(
      'SELECT * FROM expired_renewal WHERE approved_at IS NULL ORDER BY expired_at, agent_id',
    ),
    // Another key is another request, which nobody has approved.
    put: database.prepare(
      `INSERT INTO expired_renewal
         (agent_id, certificate_fingerprint, key_fingerprint, csr_pem, address, expired_at, asked_at)
       VALUES (@agentId, @certificateFingerprint, @keyFingerprint, @csrPem, @address, @expiredAtMs, @askedAtMs)
       ON CONFLICT (agent_id) DO UPDATE SET
         certificate_fingerprint = excluded.certificate_fingerprint, csr_pem = excluded.csr_pem,
         address = excluded.address, expired_at = excluded.expired_at, asked_at = excluded.asked_at,
         key_fingerprint = excluded.key_fingerprint, approved_at = NULL`,
    ),
    approved: database.prepare<[number, string]>(
      'UPDATE expired_renewal SET approved_at = ? WHERE agent_id = ?',
    ),
  }
}
