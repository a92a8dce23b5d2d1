/**
 * One program per state folder. The lock is SQLite's on a database of its own: the kernel takes it back when the
 * process ends, however it ends, so nothing is left to clear away.
 */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { openSqlite } from './sqlite.ts'

/** Holds the folder until disposed; makes it when it is missing. Null: another process holds it. */
export function holdStateFolder(folder: string): Disposable | null {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const db = openSqlite({ path: join(folder, 'lock.db'), migrations: [] })
  try {
    db.pragma('busy_timeout = 0')
    db.exec('BEGIN IMMEDIATE')
  } catch (error) {
    db.close()
    if ((error as { code?: string }).code === 'SQLITE_BUSY') return null
    throw error
  }
  return { [Symbol.dispose]: () => db.close() }
}
