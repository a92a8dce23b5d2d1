/**
 * Identities that two hosts use: a cloned machine, or a stolen key. Nobody can tell from here which is the right
 * one, so neither is heard until a person has looked. What makes a twin is written down in docs/delivery.md.
 *
 * A readmitted host is told to renew at once. From when its new certificate is seen, the copies of its old key
 * are worth nothing; until then only the boot that was readmitted goes on.
 */
import type { Sqlite } from '../../shared/node/sqlite.ts'

/** One of those who use a held identity. */
export interface Contender {
  readonly bootId: string
  readonly certificateFingerprint: string
  readonly hostName: string
  readonly address: string
  readonly seenAtMs: number
}

export type Admission =
  | { readonly kind: 'ok'; readonly renew: boolean }
  | { readonly kind: 'held'; readonly reason: string }

export interface Holds {
  /** False when it is held already, or not known. Calls every `onHeld` listener before it returns. */
  hold(agentId: string, reason: string): boolean
  /** Whether one that says hello from this boot may go on. */
  admit(agentId: string, bootId: string): Admission
  /** Notes who says hello while the identity is held: what a person decides from. */
  note(agentId: string, contender: Omit<Contender, 'seenAtMs'>): void
  contenders(agentId: string): readonly Contender[]
  /** `bootId` is that of one contender; null lets any go on, for when the others are gone. */
  readmit(agentId: string, bootId: string | null): 'readmitted' | 'notHeld' | 'unknownBoot'
  onHeld(listener: (agentId: string, reason: string) => void): void
  /** An agent is held or readmitted: what was remembered of its certificates is not true any more. */
  onChanged(listener: (agentId: string) => void): void
}

const CONTENDERS_MAX = 8
const ANY_BOOT = '*'

interface HoldRow {
  readonly held_at: number | null
  readonly held_reason: string | null
  readonly readmitted_boot: string | null
}

export function createHolds(database: Sqlite, clock: () => number): Holds {
  const statements = prepare(database)
  const heldListeners = new Set<(agentId: string, reason: string) => void>()
  const changedListeners = new Set<(agentId: string) => void>()
  const changed = (agentId: string) => {
    for (const listener of changedListeners) listener(agentId)
  }

  const readmit = database.transaction((agentId: string, bootId: string | null) => {
    const row = statements.get.get(agentId)
    if (!row || (row.held_at === null && row.readmitted_boot === null)) return 'notHeld'
    const chosen = statements.contenders.all(agentId).find((one) => one.bootId === bootId)
    if (bootId !== null && !chosen) return 'unknownBoot'
    // It may be the one whose certificate the other's renewal had replaced.
    if (chosen) {
      statements.supersedeOthers.run(clock(), agentId, chosen.certificateFingerprint)
      statements.makeCurrent.run(chosen.certificateFingerprint, agentId)
    }
    // The copies of these certificates are known: their use is no news, and holds nobody again.
    statements.markCopies.run(clock(), agentId)
    statements.readmit.run(bootId ?? ANY_BOOT, agentId)
    statements.forgetContenders.run(agentId)
    return 'readmitted'
  })

  return {
    hold(agentId, reason) {
      if (statements.hold.run(clock(), reason, agentId).changes === 0) return false
      changed(agentId)
      for (const listener of heldListeners) listener(agentId, reason)
      return true
    },
    admit(agentId, bootId) {
      const row = statements.get.get(agentId)
      if (row?.held_at != null) {
        return { kind: 'held', reason: `two hosts use this agent's identity: ${row.held_reason ?? ''}` }
      }
      const readmitted = row?.readmitted_boot ?? null
      if (readmitted === null || readmitted === ANY_BOOT || readmitted === bootId) {
        return { kind: 'ok', renew: readmitted !== null }
      }
      return { kind: 'held', reason: 'another host with this identity was readmitted: enrol this one anew' }
    },
    note(agentId, contender) {
      statements.note.run({ ...contender, agentId, seenAtMs: clock() })
      statements.prune.run({ agentId, keep: CONTENDERS_MAX })
    },
    contenders: (agentId) => statements.contenders.all(agentId),
    readmit(agentId, bootId) {
      const outcome = readmit(agentId, bootId)
      if (outcome === 'readmitted') changed(agentId)
      return outcome
    },
    onHeld: (listener) => {
      heldListeners.add(listener)
    },
    onChanged: (listener) => {
      changedListeners.add(listener)
    },
  }
}

function prepare(database: Sqlite) {
  return {
    get: database.prepare<[string], HoldRow>(
      'SELECT held_at, held_reason, readmitted_boot FROM agent WHERE agent_id = ?',
    ),
    hold: database.prepare<[number, string, string]>(
      `UPDATE agent SET held_at = ?, held_reason = ?, readmitted_boot = NULL
       WHERE agent_id = ? AND held_at IS NULL AND revoked_at IS NULL`,
    ),
    readmit: database.prepare<[string, string]>(
      `UPDATE agent SET held_at = NULL, held_reason = NULL, stale_seen_at = NULL, readmitted_boot = ?
       WHERE agent_id = ?`,
    ),
    supersedeOthers: database.prepare<[number, string, string]>(
      `UPDATE certificate SET state = 'superseded', superseded_at = ?
       WHERE agent_id = ? AND fingerprint <> ? AND state <> 'superseded'`,
    ),
    makeCurrent: database.prepare<[string, string]>(
      `UPDATE certificate SET state = 'current', superseded_at = NULL WHERE fingerprint = ? AND agent_id = ?`,
    ),
    markCopies: database.prepare<[number, string]>(
      'UPDATE certificate SET clone_seen_at = coalesce(clone_seen_at, ?) WHERE agent_id = ?',
    ),
    note: database.prepare(
      `INSERT INTO contender (agent_id, boot_id, certificate_fingerprint, host_name, address, seen_at)
       VALUES (@agentId, @bootId, @certificateFingerprint, @hostName, @address, @seenAtMs)
       ON CONFLICT DO UPDATE SET
         host_name = excluded.host_name, address = excluded.address, seen_at = excluded.seen_at`,
    ),
    prune: database.prepare(
      `DELETE FROM contender WHERE agent_id = @agentId AND (boot_id, certificate_fingerprint) NOT IN (
         SELECT boot_id, certificate_fingerprint FROM contender WHERE agent_id = @agentId
         ORDER BY seen_at DESC LIMIT @keep)`,
    ),
    forgetContenders: database.prepare<[string]>('DELETE FROM contender WHERE agent_id = ?'),
    contenders: database.prepare<[string], Contender>(
      `SELECT boot_id AS bootId, certificate_fingerprint AS certificateFingerprint, host_name AS hostName,
         address, seen_at AS seenAtMs
       FROM contender WHERE agent_id = ? ORDER BY seen_at DESC`,
    ),
  }
}
