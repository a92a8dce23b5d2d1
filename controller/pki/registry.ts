/**
 * Agents and their certificates in force. The gateway asks `authorise` when an agent connects and for every
 * batch: an agent is let in by being on this list, not by merely holding a certificate that verifies.
 *
 * A renewed certificate is `pending` until it is first seen; from then on only it counts. So an agent that
 * never received its renewal goes on with the old one, and an old one that appears after the new one was seen
 * comes from a clone or a restored copy of the host.
 */
import type { Sqlite } from '../../shared/node/sqlite.ts'
import type { IssuedCertificate } from './authority.ts'
import type { Holds } from './holds.ts'

export interface AgentRecord {
  readonly agentId: string
  readonly group: string
  readonly enrolledAtMs: number
  readonly revokedAtMs: number | null
  readonly revokedReason: string | null
  /** Raised by every renewal that was seen. */
  readonly generation: number
  /** SHA-256 of the SubjectPublicKeyInfo of the current certificate: what leaves of intents name. */
  readonly keyFingerprint: string
  readonly certificateFingerprint: string
  readonly certificateExpiresAtMs: number
  readonly heldAtMs: number | null
  readonly heldReason: string | null
}

export type Standing = 'ok' | 'held' | 'revoked' | 'unknown'

/** Something that a person should hear of. */
export type PkiAlert =
  | { readonly kind: 'clonedIdentity'; readonly agentId: string; readonly reason: string }
  | { readonly kind: 'tokenReused'; readonly tokenId: string; readonly reason: string }
  | { readonly kind: 'tokenGuessed'; readonly tokenId: string; readonly reason: string }

export interface Registry {
  /** Whether this certificate of this agent may speak now. A map look-up for certificates seen before. */
  authorise(certificateFingerprint: string, agentId: string): Standing
  get(agentId: string): AgentRecord | undefined
  list(): readonly AgentRecord[]
  /** False when the agent is unknown or revoked already. Calls every `onRevoked` listener before it returns. */
  revoke(agentId: string, reason: string): boolean
  /** Calls back with the agent's id on each revocation until `signal` aborts; the gateway closes its sockets. */
  onRevoked(listener: (agentId: string) => void, signal: AbortSignal): void
  /** Enters a new agent with its first certificate. Part of the caller's transaction. */
  enter(certificate: IssuedCertificate, group: string): void
  /** Enters a renewed certificate, in place of one that was never seen. */
  enterRenewal(certificate: IssuedCertificate): void
  /** A certificate that was issued and whose row is still kept. */
  findCertificate(fingerprint: string): KnownCertificate | undefined
  /** The chain issued for a key, and whether that certificate may still be used. */
  findByKey(keyFingerprint: string): { agentId: string; chainPem: string; standing: Standing } | undefined
}

export interface KnownCertificate {
  readonly agentId: string
  readonly state: 'pending' | 'current' | 'superseded'
  readonly notAfterMs: number
  readonly revoked: boolean
  readonly held: boolean
}

export interface RegistryOptions {
  readonly database: Sqlite
  readonly clock: () => number
  readonly alert: (alert: PkiAlert) => void
  /** Told when this room itself holds an agent. */
  readonly holds: Pick<Holds, 'hold' | 'onChanged'>
}

/** The connection that a renewal replaces may still deliver a batch that was on its way. */
const supersededGraceMs = 60_000

interface Entry extends KnownCertificate {
  /** A certificate that a renewal had replaced was used since. */
  readonly staleSeen: boolean
}

interface CertificateRow {
  readonly fingerprint: string
  readonly agent_id: string
  readonly not_after: number
  readonly state: Entry['state']
  readonly superseded_at: number | null
  readonly clone_seen_at: number | null
  readonly chain_pem: string
  readonly revoked_at: number | null
  readonly held_at: number | null
  readonly stale_seen_at: number | null
}

export function createRegistry({ database, clock, alert, holds }: RegistryOptions): Registry {
  const statements = prepare(database)
  const entries = new Map<string, Entry>()
  const listeners = new Set<(agentId: string) => void>()

  function forget(agentId: string): void {
    for (const [fingerprint, entry] of entries) if (entry.agentId === agentId) entries.delete(fingerprint)
  }

  /** Only certificates that were issued get an entry, so strangers cannot grow the map. */
  function load(fingerprint: string): Entry | undefined {
    const row = statements.certificate.get(fingerprint)
    if (!row) return undefined
    const entry = entryOf(row)
    entries.set(fingerprint, entry)
    return entry
  }

  const promote = database.transaction((fingerprint: string, agentId: string) => {
    statements.supersede.run(clock(), agentId, fingerprint)
    statements.makeCurrent.run(fingerprint)
    // The readmitted host has a key of its own now: its twin's certificate is worth nothing.
    statements.endReadmission.run(agentId)
  })
  holds.onChanged(forget)

  function noteClone(fingerprint: string, agentId: string): void {
    const row = statements.certificate.get(fingerprint)
    if (!row || row.clone_seen_at !== null) return
    if (row.superseded_at !== null && clock() - row.superseded_at < supersededGraceMs) return
    database.transaction(() => {
      statements.noteClone.run(clock(), fingerprint)
      statements.noteStale.run(clock(), agentId)
    })()
    forget(agentId)
    alert({
      kind: 'clonedIdentity',
      agentId,
      reason: 'a certificate that a renewal had replaced was used again: the host was cloned or restored',
    })
  }

  /** Both in use: a restored host has lost the newer key, so there is a second one that has it. */
  function holdBoth(agentId: string): Standing {
    holds.hold(agentId, 'a certificate and the one that had replaced it are both in use: the host was cloned')
    return 'held'
  }

  return {
    authorise(fingerprint, agentId) {
      const entry = entries.get(fingerprint) ?? load(fingerprint)
      if (!entry || entry.agentId !== agentId) return 'unknown'
      const standing = standingOf(entry, clock())
      if (standing === 'ok' && entry.staleSeen) return holdBoth(agentId)
      if (standing === 'revoked' && entry.state === 'superseded') noteClone(fingerprint, agentId)
      if (standing === 'ok' && entry.state === 'pending') {
        promote(fingerprint, agentId)
        forget(agentId)
      }
      return standing
    },
    get: (agentId) => statements.agent.get(agentId),
    list: () => statements.agents.all(),
    revoke(agentId, reason) {
      if (statements.revoke.run(clock(), reason, agentId).changes === 0) return false
      forget(agentId)
      for (const listener of listeners) listener(agentId)
      return true
    },
    onRevoked(listener, signal) {
      if (signal.aborted) return
      listeners.add(listener)
      signal.addEventListener('abort', () => listeners.delete(listener), { once: true })
    },
    enter(certificate, group) {
      statements.insertAgent.run(certificate.agentId, group, clock())
      statements.insertCertificate.run({ ...certificate, generation: 1, state: 'current' })
    },
    enterRenewal: database.transaction((certificate: IssuedCertificate) => {
      statements.dropExpired.run(certificate.agentId, clock())
      statements.supersedePending.run(clock(), certificate.agentId)
      const generation = (statements.generation.get(certificate.agentId)?.generation ?? 0) + 1
      statements.insertCertificate.run({ ...certificate, generation, state: 'pending' })
      forget(certificate.agentId)
    }),
    findCertificate(fingerprint) {
      const row = statements.certificate.get(fingerprint)
      return row && entryOf(row)
    },
    findByKey(keyFingerprint) {
      const row = statements.byKey.get(keyFingerprint)
      if (!row) return undefined
      return { agentId: row.agent_id, chainPem: row.chain_pem, standing: standingOf(entryOf(row), clock()) }
    },
  }
}

function entryOf(row: CertificateRow): Entry {
  return {
    agentId: row.agent_id,
    notAfterMs: row.not_after,
    state: row.state,
    revoked: row.revoked_at !== null,
    held: row.held_at !== null,
    staleSeen: row.stale_seen_at !== null,
  }
}

function standingOf(entry: Entry, nowMs: number): Standing {
  if (entry.revoked) return 'revoked'
  // Those with a replaced certificate too: they are told the same, and wait as the others do.
  if (entry.held) return 'held'
  if (entry.state === 'superseded') return 'revoked'
  return entry.notAfterMs <= nowMs ? 'unknown' : 'ok'
}

const certificateColumns = `
  SELECT c.fingerprint, c.agent_id, c.not_after, c.state, c.superseded_at, c.clone_seen_at, c.chain_pem,
         a.revoked_at, a.held_at, a.stale_seen_at
  FROM certificate c JOIN agent a USING (agent_id)`
const agentColumns = `
  SELECT a.agent_id AS agentId, a.group_name AS "group", a.enrolled_at AS enrolledAtMs,
         a.revoked_at AS revokedAtMs, a.revoked_reason AS revokedReason, c.generation,
         c.key_fingerprint AS keyFingerprint, c.fingerprint AS certificateFingerprint,
         c.not_after AS certificateExpiresAtMs, a.held_at AS heldAtMs, a.held_reason AS heldReason
  FROM agent a JOIN certificate c ON c.agent_id = a.agent_id AND c.state = 'current'`

function prepare(database: Sqlite) {
  return {
    certificate: database.prepare<[string], CertificateRow>(`${certificateColumns} WHERE c.fingerprint = ?`),
    byKey: database.prepare<[string], CertificateRow>(`${certificateColumns} WHERE c.key_fingerprint = ?`),
    agent: database.prepare<[string], AgentRecord>(`${agentColumns} WHERE a.agent_id = ?`),
    agents: database.prepare<[], AgentRecord>(`${agentColumns} ORDER BY a.enrolled_at, a.agent_id`),
    generation: database.prepare<[string], { generation: number }>(
      'SELECT max(generation) AS generation FROM certificate WHERE agent_id = ?',
    ),
    insertAgent: database.prepare<[string, string, number]>(
      'INSERT INTO agent (agent_id, group_name, enrolled_at) VALUES (?, ?, ?)',
    ),
    insertCertificate: database.prepare<[IssuedCertificate & { generation: number; state: string }]>(
      `INSERT INTO certificate
         (fingerprint, agent_id, key_fingerprint, serial, generation, not_after, state, chain_pem)
       VALUES (@certificateFingerprint, @agentId, @keyFingerprint, @serial, @generation, @expiresAtMs, @state,
         @certificateChainPem)`,
    ),
    supersede: database.prepare<[number, string, string]>(
      `UPDATE certificate SET state = 'superseded', superseded_at = ?
       WHERE agent_id = ? AND fingerprint <> ? AND state <> 'superseded'`,
    ),
    supersedePending: database.prepare<[number, string]>(
      `UPDATE certificate SET state = 'superseded', superseded_at = ? WHERE agent_id = ? AND state = 'pending'`,
    ),
    makeCurrent: database.prepare<[string]>(`UPDATE certificate SET state = 'current' WHERE fingerprint = ?`),
    endReadmission: database.prepare<[string]>('UPDATE agent SET readmitted_boot = NULL WHERE agent_id = ?'),
    noteStale: database.prepare<[number, string]>('UPDATE agent SET stale_seen_at = ? WHERE agent_id = ?'),
    noteClone: database.prepare<[number, string]>(
      'UPDATE certificate SET clone_seen_at = ? WHERE fingerprint = ?',
    ),
    // An expired certificate fails in the handshake; its row only served to expose a clone.
    dropExpired: database.prepare<[string, number]>(
      `DELETE FROM certificate WHERE agent_id = ? AND state = 'superseded' AND not_after <= ?`,
    ),
    revoke: database.prepare<[number, string, string]>(
      'UPDATE agent SET revoked_at = ?, revoked_reason = ? WHERE agent_id = ? AND revoked_at IS NULL',
    ),
  }
}
