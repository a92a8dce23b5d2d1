/** Rows of the audit log; the chain over them is made in controller/audit. */
import type { Sqlite } from '../../shared/node/sqlite.ts'

export interface AuditRow {
  readonly sequence: number
  readonly at_ms: number
  readonly by: string
  readonly action: string
  readonly subject: string
  readonly detail: string
  readonly hash: string
}

export interface AuditTable {
  last(): AuditRow | undefined
  /** Newest first. */
  list(limit: number): readonly AuditRow[]
  /** Oldest first, all of them, one at a time. */
  all(): IterableIterator<AuditRow>
  /** The highest sequence that was ever given, also when its row is gone. */
  lastSequence(): number
  insert(row: Omit<AuditRow, 'sequence'>): void
}

export function createAuditTable(db: Sqlite): AuditTable {
  const list = db.prepare<[number], AuditRow>('SELECT * FROM audit ORDER BY sequence DESC LIMIT ?')
  const all = db.prepare<[], AuditRow>('SELECT * FROM audit ORDER BY sequence')
  const lastSequence = db.prepare<[], { seq: number }>("SELECT seq FROM sqlite_sequence WHERE name = 'audit'")
  const insert = db.prepare<Omit<AuditRow, 'sequence'>>(
    `INSERT INTO audit (at_ms, by, action, subject, detail, hash)
     VALUES (@at_ms, @by, @action, @subject, @detail, @hash)`,
  )
  return {
    last: () => list.get(1),
    list: (limit) => list.all(limit),
    all: () => all.iterate(),
    lastSequence: () => lastSequence.get()?.seq ?? 0,
    insert: (row) => {
      insert.run(row)
    },
  }
}
