/**
 * Files of events by hour of arrival, and by rows: an hour with many has several. Their names, their schema, and
 * positions in them.
 *
 * Invariants: a batch never spans two files; the watermark of its stream is committed in the same transaction
 * and the same file (in WAL a transaction over attached databases is not atomic across files); event ids only
 * grow within a file, also when a corrupt file was set aside and replaced, so a cursor never points past rows
 * that nobody has read.
 */
import { readdirSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { CLASS_OF_ACTION } from '../../../shared/events/delivery-class.ts'
import { openSqlite, type Sqlite } from '../../../shared/node/sqlite.ts'
import type { Cursor } from '../event-store.ts'

/** `YYYYMMDDTHH` in UTC, and `pNNNN` for further files of the hour: sorts as text in order of arrival. */
export type FileHour = string

const HOUR_MS = 3_600_000
const HOUR_CHARACTERS = 11
const FILE_NAME = /^events-([0-9]{8}T[0-9]{2}(?:p[0-9]{4})?)\.db$/
const CURSOR = /^([0-9]{8}T[0-9]{2}(?:p[0-9]{4})?)-([0-9]{16})$/
/** The last file of an hour takes what comes, however much that is. */
const PART_MAX = 9_999
/** A batch's payload has some KB: in a small page hardly one has room. */
const PAGE_BYTES = 16 * 1024
/** Ids of a file that replaces a corrupt one start this much higher; 2^13 replacements fit an exact integer. */
const GENERATION_IDS = 2 ** 40

const MIGRATIONS = [
  `CREATE TABLE file (
     id INTEGER PRIMARY KEY CHECK (id = 1),
     first_event INTEGER NOT NULL,
     sealed INTEGER NOT NULL DEFAULT 0,
     min_time_ms INTEGER,
     max_time_ms INTEGER
   ) STRICT;
   CREATE TABLE agent (id INTEGER PRIMARY KEY, agent_id TEXT NOT NULL UNIQUE) STRICT;
   CREATE TABLE action (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
   -- The watermark: everything up to 'sequence' is stored; 'hash' is the chain after it. 'rows' counts this
   -- file alone; 'carried_file' is the hour of the newest earlier file that holds rows of the stream.
   CREATE TABLE stream (
     id INTEGER PRIMARY KEY,
     agent INTEGER NOT NULL REFERENCES agent (id),
     stream_id TEXT NOT NULL,
     class INTEGER NOT NULL,
     sequence INTEGER NOT NULL,
     hash BLOB NOT NULL,
     rows INTEGER NOT NULL DEFAULT 0,
     carried_file TEXT,
     UNIQUE (agent, stream_id, class)
   ) STRICT;
   -- Event ids of a batch are contiguous, so a row's sequence follows from its id. 'payload' is what the agent
   -- packed (shared/node/payload.ts): its bodies from 'first_row' on are this batch's, those before it had been
   -- stored already. 'payload_crc' is its CRC-32: a flipped bit would unpack to other text.
   CREATE TABLE batch (
     id INTEGER PRIMARY KEY,
     stream INTEGER NOT NULL REFERENCES stream (id),
     first_sequence INTEGER NOT NULL,
     rows INTEGER NOT NULL,
     first_event INTEGER NOT NULL,
     received_ms INTEGER NOT NULL,
     previous_hash BLOB NOT NULL,
     last_hash BLOB NOT NULL,
     first_row INTEGER NOT NULL,
     payload_bytes INTEGER NOT NULL,
     payload_crc INTEGER NOT NULL,
     payload BLOB NOT NULL
   ) STRICT;
   CREATE INDEX batch_position ON batch (stream, first_sequence);
   CREATE TABLE event (
     id INTEGER PRIMARY KEY,
     batch INTEGER NOT NULL,
     time_ms INTEGER NOT NULL,
     action INTEGER NOT NULL,
     entity_id TEXT,
     parent_entity_id TEXT,
     sha256 BLOB,
     destination_ip TEXT,
     path TEXT
   ) STRICT;`,
]

/** Built when a file is sealed: each costs a writer more than the rows themselves. */
export const SEALED_INDEXES = {
  event_entity: 'entity_id',
  event_parent: 'parent_entity_id',
  event_sha256: 'sha256',
  event_destination: 'destination_ip',
  event_path: 'path',
} as const

export function fileHourOf(ms: number): FileHour {
  const iso = new Date(ms).toISOString()
  return `${iso.slice(0, 4)}${iso.slice(5, 7)}${iso.slice(8, 13)}`
}

/** The file that follows this one within its hour. */
export function nextPart(hour: FileHour): FileHour {
  const part = Number(hour.slice(HOUR_CHARACTERS + 1) || 0)
  return `${hour.slice(0, HOUR_CHARACTERS)}p${String(Math.min(PART_MAX, part + 1)).padStart(4, '0')}`
}

/** First millisecond after the hour of the file. */
export function endOfHourMs(hour: FileHour): number {
  const iso = `${hour.slice(0, 4)}-${hour.slice(4, 6)}-${hour.slice(6, 11)}:00:00.000Z`
  return Date.parse(iso) + HOUR_MS
}

export function eventFilePath(folder: string, hour: FileHour): string {
  return join(folder, `events-${hour}.db`)
}

export function cursorOf(hour: FileHour, id: number): Cursor {
  return `${hour}-${String(id).padStart(16, '0')}`
}

/** Position of a cursor; before the first event when the text is empty. Throws for text that is no cursor. */
export function positionOf(cursor: Cursor): { readonly hour: FileHour; readonly id: number } {
  if (cursor === '') return { hour: '', id: 0 }
  const match = CURSOR.exec(cursor)
  const [, hour, id] = match ?? []
  if (hour === undefined || id === undefined) throw new RangeError('not a cursor')
  return { hour, id: Number(id) }
}

export function isCursor(text: string): boolean {
  return text === '' || CURSOR.test(text)
}

/** Hours that have a file, oldest first. */
export function listHours(folder: string): FileHour[] {
  return readdirSync(folder)
    .flatMap((name) => FILE_NAME.exec(name)?.[1] ?? [])
    .sort()
}

export interface OpenEventFile {
  readonly folder: string
  readonly hour: FileHour
}

/** Opens an event file, or makes it. The caller runs `prepareEventFile` before the first write. */
export function openEventFile(options: OpenEventFile, mode: 'write' | 'read'): Sqlite {
  return openSqlite({
    path: eventFilePath(options.folder, options.hour),
    migrations: MIGRATIONS,
    readonly: mode === 'read',
    pageBytes: PAGE_BYTES,
  })
}

/** Whether the file has its indexes and is not written any more. A file in trouble is not. */
export function isSealed(options: OpenEventFile): boolean {
  try {
    const db = openEventFile(options, 'read')
    try {
      return db.prepare('SELECT sealed FROM file').pluck().get() === 1
    } finally {
      db.close()
    }
  } catch {
    return false
  }
}

/** What a new file starts with; the caller adds the carried watermarks in the same transaction. */
export function writeFileHeader(db: Sqlite, folder: string, hour: FileHour): void {
  const firstEvent = setAsideCount(folder, hour) * GENERATION_IDS + 1
  db.prepare('INSERT INTO file (id, first_event) VALUES (1, ?)').run(firstEvent)
  const insertAction = db.prepare('INSERT INTO action (name) VALUES (?)')
  for (const name of Object.keys(CLASS_OF_ACTION)) insertAction.run(name)
}

/** True for errors that say the file itself is broken, not the disk full or the query wrong. */
export function isCorruption(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  return code.startsWith('SQLITE_CORRUPT') || code === 'SQLITE_NOTADB'
}

/** Renames a corrupt file out of the way, for a person to look at. Returns its new name. */
export function setAside(folder: string, hour: FileHour): string {
  const path = eventFilePath(folder, hour)
  const aside = `${path}.corrupt-${setAsideCount(folder, hour) + 1}`
  renameSync(path, aside)
  for (const suffix of ['-wal', '-shm']) {
    try {
      renameSync(`${path}${suffix}`, `${aside}${suffix}`)
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error
    }
  }
  return aside
}

function setAsideCount(folder: string, hour: FileHour): number {
  const prefix = `events-${hour}.db.corrupt-`
  const generations = readdirSync(folder)
    .filter((name) => name.startsWith(prefix))
    .map((name) => Number.parseInt(name.slice(prefix.length), 10))
  return Math.max(0, ...generations)
}
