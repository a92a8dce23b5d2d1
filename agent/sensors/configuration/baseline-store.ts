/**
 * What the watched files held, kept across restarts, so that what changed while the agent was away is told. A file
 * that is damaged, or that another program wrote, is put away with a warning, and the agent begins anew.
 */
import { rmSync, statSync } from 'node:fs'
import Type from 'typebox'
import { Compile } from 'typebox/compile'
import { openSqlite, type Sqlite } from '../../../shared/node/sqlite.ts'
import type { ExactPath } from '../exact-path.ts'
import { type FileState, KEPT_CHARACTERS_MAX } from './state.ts'

export interface BaselineStore {
  /** Null: there is none from before, or one that other rules made. */
  load(): Map<ExactPath, FileState> | null
  /** Null: the file is gone. Never throws: what cannot be written is tried again with the next change. */
  save(changes: ReadonlyMap<ExactPath, FileState | null>): void
  /** From now on, the rows are all there is to know. */
  complete(): void
  close(): void
}

/** Counted up when other files are watched, or read in another way: what is new then is no change. */
const RULES_VERSION = 1
/** Checking a longer one would hold up the agent. */
const FILE_BYTES_MAX = 256 * 1024 * 1024
const ROWS_MAX = 65_536
const STATE_CHARACTERS_MAX = 16 * 1024 * 1024

const Line = Type.String({ maxLength: KEPT_CHARACTERS_MAX })
const Stored = Compile(
  Type.Union([
    Type.Object({
      kind: Type.Literal('text'),
      digest: Type.String({ maxLength: 8_192 }),
      link: Type.Union([Type.String({ maxLength: 8_192 }), Type.Null()]),
      text: Type.Union([Type.String({ maxLength: 2 * KEPT_CHARACTERS_MAX }), Type.Null()]),
    }),
    Type.Object({
      kind: Type.Literal('accounts'),
      entries: Type.Array(Type.Array(Line, { maxItems: 16 }), { maxItems: 65_536 }),
    }),
    Type.Object({
      kind: Type.Literal('keys'),
      keys: Type.Array(Type.Object({ fingerprint: Line, type: Line, comment: Line, options: Line }), {
        maxItems: 4_096,
      }),
    }),
  ]),
)

const MIGRATIONS = [
  `CREATE TABLE files (path TEXT PRIMARY KEY, state TEXT NOT NULL) STRICT, WITHOUT ROWID;
   CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;`,
]

/** `warn` is told what is wrong and what follows from it. */
export function openBaselineStore(path: string, warn: (message: string) => void): BaselineStore | null {
  let db = open(path, warn)
  if (db === null) {
    for (const suffix of ['', '-wal', '-shm']) rmSync(path + suffix, { force: true })
    db = open(path, warn)
  }
  return db && storeOf(db, warn)
}

function open(path: string, warn: (message: string) => void): Sqlite | null {
  let db: Sqlite | undefined
  try {
    const { size } = statSync(path, { throwIfNoEntry: false }) ?? { size: 0 }
    if (size > FILE_BYTES_MAX) throw new Error(`it is longer than ${FILE_BYTES_MAX} bytes`)
    db = openSqlite({ path, migrations: MIGRATIONS })
    const checked = db.pragma('quick_check(1)', { simple: true })
    if (checked !== 'ok') throw new Error(String(checked))
    return db
  } catch (error) {
    db?.close()
    warn(
      `the baseline ${path} cannot be used (${messageOf(error)}): what changed while the agent was away is not told`,
    )
    return null
  }
}

function storeOf(db: Sqlite, warn: (message: string) => void): BaselineStore {
  const read = db.prepare<[number, number], { path: string; state: string }>(
    'SELECT path, state FROM files WHERE length(state) <= ? LIMIT ?',
  )
  const write = db.prepare('INSERT INTO files VALUES (?, ?) ON CONFLICT DO UPDATE SET state = excluded.state')
  const remove = db.prepare('DELETE FROM files WHERE path = ?')
  const version = db.prepare<[], { value: number }>("SELECT value FROM facts WHERE name = 'rules'")
  const writeVersion = db.prepare(
    "INSERT INTO facts VALUES ('rules', ?) ON CONFLICT DO UPDATE SET value = excluded.value",
  )
  const writeAll = db.transaction((changes: ReadonlyMap<ExactPath, FileState | null>) => {
    for (const [path, state] of changes) {
      if (state === null) remove.run(path)
      else write.run(path, JSON.stringify(toStored(state)))
    }
  })
  let hasWarned = false
  const attempt = (step: () => void) => {
    try {
      step()
    } catch (error) {
      if (!hasWarned) warn(`the baseline of the configuration cannot be written: ${messageOf(error)}`)
      hasWarned = true
    }
  }
  return {
    load() {
      try {
        if (version.get()?.value !== RULES_VERSION) {
          attempt(() => db.exec('DELETE FROM files'))
          return null
        }
        const states = new Map<ExactPath, FileState>()
        for (const row of read.iterate(STATE_CHARACTERS_MAX, ROWS_MAX)) {
          states.set(row.path, fromStored(row.state))
        }
        return states
      } catch (error) {
        warn(`the baseline of the configuration is damaged (${messageOf(error)}): it is taken anew`)
        attempt(() => db.exec('DELETE FROM files'))
        return null
      }
    },
    save: (changes) => attempt(() => writeAll(changes)),
    complete: () => attempt(() => writeVersion.run(RULES_VERSION)),
    close: () => db.close(),
  }
}

function toStored(state: FileState) {
  switch (state.kind) {
    case 'text':
      return state
    case 'accounts':
      return { kind: 'accounts', entries: [...state.entries].map(([key, fields]) => [key, ...fields]) }
    case 'keys':
      return { kind: 'keys', keys: [...state.keys.values()] }
  }
}

function fromStored(text: string): FileState {
  const stored: unknown = JSON.parse(text)
  if (!Stored.Check(stored)) throw new Error('a row is not what it should be')
  switch (stored.kind) {
    case 'text':
      return stored
    case 'accounts':
      return {
        kind: 'accounts',
        entries: new Map(stored.entries.map(([key = '', ...fields]) => [key, fields])),
      }
    case 'keys':
      return {
        kind: 'keys',
        keys: new Map(stored.keys.map((key) => [`${key.fingerprint} ${key.options}`, key])),
      }
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
