/** Gives a file that will not be written again the indexes that long searches need. */
import { existsSync } from 'node:fs'
import { eventFilePath, type OpenEventFile, openEventFile, SEALED_INDEXES } from './event-file.ts'

/** Room for sorting one index without spilling to a file: a column of a full file has some 20 MB. */
const CACHE_KIBIBYTES = 32 * 1024

/** Idempotent: a crash in the middle leaves a file that is sealed again at the next start. */
export function sealEventFile(options: OpenEventFile): void {
  if (!existsSync(eventFilePath(options.folder, options.hour))) return
  const db = openEventFile(options, 'write')
  try {
    db.pragma(`cache_size = -${CACHE_KIBIBYTES}`)
    for (const [name, column] of Object.entries(SEALED_INDEXES)) {
      // Partial: most rows have no address and no hash.
      db.exec(`CREATE INDEX IF NOT EXISTS ${name} ON event (${column}) WHERE ${column} IS NOT NULL`)
    }
    db.exec(
      `UPDATE file SET sealed = 1, (min_time_ms, max_time_ms) = (SELECT min(time_ms), max(time_ms) FROM event)`,
    )
    db.pragma('wal_checkpoint(TRUNCATE)')
  } finally {
    db.close()
  }
}
