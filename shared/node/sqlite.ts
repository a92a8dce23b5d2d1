/** Opens SQLite databases the one way Cordon uses them: WAL, every commit on disk, migrations that only append. */
import { chmodSync, closeSync, openSync, statSync } from 'node:fs'
import Database from 'better-sqlite3'
import { carriesAddons, loadPackedAddon } from './addons.ts'

export type Sqlite = Database.Database

export interface OpenOptions {
  readonly path: string
  /** Each entry is SQL that runs once, in order. Entries are only ever appended. */
  readonly migrations: readonly string[]
  readonly readonly?: boolean
  /** Of a database that is made by this call; 4,096 unless said. Large rows in large pages cost less. */
  readonly pageBytes?: number
  /** Pages kept in memory; SQLite's own bound of 16 MB unless said. */
  readonly cacheBytesMax?: number
}

/**
 * Opens the database and brings its schema up to date. The file, and those that SQLite puts beside it, are for
 * their owner alone. Throws when it was written by a newer program.
 */
export function openSqlite(options: OpenOptions): Sqlite {
  if (!options.readonly) keepPrivate(options.path)
  const db = new Database(options.path, {
    readonly: options.readonly ?? false,
    ...sqliteBinding(),
  })
  try {
    // An acknowledgement means "on disk": WAL with NORMAL may lose the last commits when power fails.
    if (!options.readonly) {
      // Before the first write: afterwards the size is fixed.
      if (options.pageBytes !== undefined) db.pragma(`page_size = ${options.pageBytes}`)
      db.pragma('journal_mode = WAL')
      db.pragma('synchronous = FULL')
      db.pragma('foreign_keys = ON')
      db.pragma('trusted_schema = OFF')
    }
    db.pragma('busy_timeout = 5000')
    // Negative: in KiB.
    if (options.cacheBytesMax) db.pragma(`cache_size = ${-Math.ceil(options.cacheBytesMax / 1_024)}`)
    if (!options.readonly) migrate(db, options.migrations)
    return db
  } catch (error) {
    db.close()
    throw error
  }
}

let binding: { readonly nativeBinding: string } | undefined

/** For `new Database`: the addon where this program carries it in itself, nothing where the package finds its own. */
export function sqliteBinding(): { readonly nativeBinding?: string } {
  if (!carriesAddons()) return {}
  // better-sqlite3 takes the loaded addon, too, which its types do not know.
  binding ??= { nativeBinding: loadPackedAddon('better-sqlite3') as string }
  return binding
}

/** SQLite makes its other files with the mode of the database, so the mode must be right before it opens it. */
function keepPrivate(path: string): void {
  try {
    closeSync(openSync(path, 'wx', 0o600))
  } catch (error) {
    // Any other error is SQLite's to tell.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') return
    // By its path: to open and close a file that this process has open would end the locks that it holds on it.
    const file = statSync(path, { throwIfNoEntry: false })
    if (file && (file.mode & 0o077) !== 0 && file.uid === process.geteuid?.()) {
      chmodSync(path, file.mode & 0o700)
    }
  }
}

function migrate(db: Sqlite, migrations: readonly string[]): void {
  const version = Number(db.pragma('user_version', { simple: true }))
  if (version > migrations.length) {
    throw new Error(
      `${db.name} has schema version ${version}, this program knows up to ${migrations.length}: it was written by a newer Cordon`,
    )
  }
  migrations.slice(version).forEach((sql, index) => {
    db.transaction(() => {
      db.exec(sql)
      db.pragma(`user_version = ${version + index + 1}`)
    })()
  })
}
