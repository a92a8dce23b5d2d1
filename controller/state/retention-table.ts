/** From when on events are kept: what arrived before was dropped with its files. */
import type { Sqlite } from '../../shared/node/sqlite.ts'

export interface RetentionTable {
  /** Null while nothing was ever dropped. */
  fromMs(): number | null
  raise(fromMs: number): void
}

export function createRetentionTable(db: Sqlite): RetentionTable {
  const read = db.prepare<[], { from_ms: number }>('SELECT from_ms FROM retention')
  const raise = db.prepare<[number]>(
    `INSERT INTO retention (one, from_ms) VALUES (1, ?)
     ON CONFLICT (one) DO UPDATE SET from_ms = max(from_ms, excluded.from_ms)`,
  )
  return {
    fromMs: () => read.get()?.from_ms ?? null,
    raise: (fromMs) => {
      raise.run(fromMs)
    },
  }
}
