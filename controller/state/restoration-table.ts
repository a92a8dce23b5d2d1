/**
 * Whether this database came out of a backup. The mark is set in the copy while the backup is made, so that a
 * copy carries it however it is put in place; only confirming takes its force.
 */
import type { Sqlite } from '../../shared/node/sqlite.ts'

export interface RestorationRow {
  readonly backup_ms: number
  /** Null: put in place by hand, past `restore`. */
  readonly restored_ms: number | null
  readonly confirmed_ms: number | null
  readonly confirmed_by: string | null
}

export interface RestorationTable {
  /** The last restoration, confirmed or not; undefined for a database that never was in a backup. */
  get(): RestorationRow | undefined
  /** Marks a copy that goes into a backup. */
  markBackup(backupMs: number): void
  restored(atMs: number): void
  confirm(atMs: number, by: string): void
}

export function createRestorationTable(db: Sqlite): RestorationTable {
  const get = db.prepare<[], RestorationRow>(
    'SELECT backup_ms, restored_ms, confirmed_ms, confirmed_by FROM restoration',
  )
  const mark = db.prepare<[number]>('INSERT OR REPLACE INTO restoration (one, backup_ms) VALUES (1, ?)')
  const restored = db.prepare<[number]>('UPDATE restoration SET restored_ms = ?')
  const confirm = db.prepare<[number, string]>('UPDATE restoration SET confirmed_ms = ?, confirmed_by = ?')
  return {
    get: () => get.get(),
    markBackup: (backupMs) => {
      mark.run(backupMs)
    },
    restored: (atMs) => {
      restored.run(atMs)
    },
    confirm: (atMs, by) => {
      confirm.run(atMs, by)
    },
  }
}
