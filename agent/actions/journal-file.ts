/** The database file of the journal: its schema, and what becomes of one that cannot be read. */
import { existsSync, renameSync } from 'node:fs'
import type { Logger } from '../../shared/node/logger.ts'
import { openSqlite, type Sqlite } from '../../shared/node/sqlite.ts'

const MIGRATIONS = [
  `CREATE TABLE command (
     command_id TEXT PRIMARY KEY,
     epoch INTEGER NOT NULL,
     sequence INTEGER NOT NULL,
     action TEXT NOT NULL,
     intent_hash TEXT NOT NULL,
     target TEXT NOT NULL,
     args TEXT NOT NULL,
     facts TEXT NOT NULL,
     received_ms INTEGER NOT NULL,
     expires_ms INTEGER NOT NULL,
     state TEXT NOT NULL,
     applying INTEGER NOT NULL DEFAULT 0,
     ended INTEGER NOT NULL DEFAULT 0
   ) STRICT;
   CREATE INDEX command_open ON command (ended, epoch, sequence);
   CREATE TABLE state_change (
     number INTEGER PRIMARY KEY AUTOINCREMENT,
     command_id TEXT NOT NULL REFERENCES command (command_id) ON DELETE CASCADE,
     state TEXT NOT NULL,
     at_ms INTEGER NOT NULL,
     reason TEXT NOT NULL,
     proof TEXT NOT NULL,
     told INTEGER NOT NULL DEFAULT 0
   ) STRICT;
   CREATE INDEX state_change_command ON state_change (command_id);
   CREATE INDEX state_change_untold ON state_change (number) WHERE told = 0;
   CREATE TABLE replay_mark (
     one INTEGER PRIMARY KEY CHECK (one = 1),
     epoch INTEGER NOT NULL,
     sequence INTEGER NOT NULL
   ) STRICT;
   INSERT INTO replay_mark VALUES (1, 0, 0);`,
  `ALTER TABLE replay_mark ADD COLUMN not_before_ms INTEGER NOT NULL DEFAULT 0;
   ALTER TABLE replay_mark ADD COLUMN signed_after_ms INTEGER NOT NULL DEFAULT 0;`,
]

/** Codes of SQLite (rescode.html) that say that the file cannot be read, not that somebody else uses it. */
const UNREADABLE = /^SQLITE_(CORRUPT|NOTADB|CANTOPEN|IOERR_READ|IOERR_SHORT_READ|IOERR_CORRUPTFS)/

interface JournalFileOptions {
  readonly path: string
  readonly clock: () => number
  readonly logger: Pick<Logger, 'error'>
}

export interface JournalFile {
  readonly db: Sqlite
  /** Why this is a new journal in the place of one that could not be read; null: it is not. */
  readonly damage: string | null
}

/** Opens or creates it; one that cannot be read is renamed, for who wants to know what was in it. */
export function openJournalFile(options: JournalFileOptions): JournalFile {
  try {
    return { db: openWhole(options), damage: null }
  } catch (error) {
    const code = (error as { code?: unknown }).code
    if (typeof code !== 'string' || !UNREADABLE.test(code)) throw error
    const aside = `${options.path}.damaged-${new Date(options.clock()).toISOString().replaceAll(':', '')}`
    for (const suffix of ['', '-wal', '-shm']) {
      if (existsSync(options.path + suffix)) renameSync(options.path + suffix, aside + suffix)
    }
    options.logger.error({ code, aside }, 'the journal of commands could not be read and was set aside')
    const damage = `the journal of commands could not be read (${code}) and was set aside as ${aside}`
    return { db: openWhole(options), damage }
  }
}

const CACHE_BYTES_MAX = 1_024 ** 2

function openWhole({ path }: JournalFileOptions): Sqlite {
  const db = openSqlite({ path, migrations: MIGRATIONS, cacheBytesMax: CACHE_BYTES_MAX })
  // Small enough to be looked at as a whole: damage is found now, not in the middle of an action.
  const found = db.pragma('quick_check(1)', { simple: true })
  if (found === 'ok') return db
  db.close()
  throw Object.assign(new Error(`quick_check: ${String(found)}`), { code: 'SQLITE_CORRUPT' })
}
