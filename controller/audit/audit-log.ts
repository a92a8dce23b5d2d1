/**
 * The audit log: who did what to what, chained by hashes, so that an entry changed, taken out or put in
 * between is found. Entries join the transaction they are recorded in: what did not happen is not told.
 */
import { createHash } from 'node:crypto'
import type { AuditEntry, AuditLog } from '../api/services.ts'
import { clipped } from '../correlate/words.ts'
import type { AuditRow } from '../state/audit-table.ts'
import type { State } from '../state/state.ts'

const FIRST_HASH = '0'.repeat(64)
const NAME_CHARACTERS_MAX = 128
const SUBJECT_CHARACTERS_MAX = 256
const DETAIL_CHARACTERS_MAX = 4_096
const LIST_MAX = 10_000

export interface VerifiableAuditLog extends AuditLog {
  /** Walks the whole chain. `sequence` is the first entry that does not follow from those before it. */
  verify():
    | { readonly kind: 'intact'; readonly entries: number; readonly headHash: string }
    | { readonly kind: 'broken'; readonly sequence: number; readonly reason: string }
}

export function createAuditLog(state: Pick<State, 'audit' | 'run'>, nowMs: () => number): VerifiableAuditLog {
  return {
    record(by, action, subject, detail) {
      state.run(() => {
        const entry = {
          at_ms: nowMs(),
          by: clipped(by, NAME_CHARACTERS_MAX),
          action: clipped(action, NAME_CHARACTERS_MAX),
          subject: clipped(subject, SUBJECT_CHARACTERS_MAX),
          detail: clipped(detail, DETAIL_CHARACTERS_MAX),
        }
        const last = state.audit.last()
        const sequence = (last?.sequence ?? 0) + 1
        state.audit.insert({ ...entry, hash: hashOf(last?.hash ?? FIRST_HASH, { ...entry, sequence }) })
      })
    },
    list: (limit) => state.audit.list(Math.min(limit, LIST_MAX)).map(entryOf),
    verify() {
      let hash = FIRST_HASH
      let entries = 0
      for (const row of state.audit.all()) {
        entries += 1
        if (row.sequence !== entries) {
          return { kind: 'broken', sequence: entries, reason: `entry ${entries} is missing` }
        }
        hash = hashOf(hash, row)
        if (hash !== row.hash) {
          return {
            kind: 'broken',
            sequence: entries,
            reason: `entry ${entries} or one before it was changed`,
          }
        }
      }
      const last = state.audit.lastSequence()
      if (last !== entries) {
        return {
          kind: 'broken',
          sequence: entries + 1,
          reason: `the entries after ${entries} were taken off`,
        }
      }
      return { kind: 'intact', entries, headHash: hash }
    },
  }
}

/** The hash runs over a list in fixed order, so no two entries have the same text. */
function hashOf(previous: string, row: Omit<AuditRow, 'hash'>): string {
  const canonical = JSON.stringify([row.sequence, row.at_ms, row.by, row.action, row.subject, row.detail])
  return createHash('sha256').update(Buffer.from(previous, 'hex')).update(canonical).digest('hex')
}

function entryOf(row: AuditRow): AuditEntry {
  const { by, action, subject, detail, hash } = row
  return { at: new Date(row.at_ms).toISOString(), by, action, subject, detail, hash }
}
