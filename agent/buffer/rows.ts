/**
 * The rows of one buffer file. Everything here throws SQLite's errors, and a call that throws has changed
 * nothing: state in memory follows the transaction.
 *
 * Invariants: sequences of a class have no holes when they are made; each row's hash follows from the row
 * before it, or from a seam where rows left; what leaves without delivery is in `open_gap` or in a gap event
 * of the same transaction.
 */
import { Buffer } from 'node:buffer'
import { hash } from 'node:crypto'
import { EVENT_CLASSES, type EventClass } from '../../shared/events/delivery-class.ts'
import { CHAIN_HASH_BYTES, CHAIN_START } from '../../shared/node/chain.ts'
import { openSqlite, type Sqlite } from '../../shared/node/sqlite.ts'
import { EVENT_BYTES_MAX } from '../../shared/protocol/limits.ts'
import { MIGRATIONS } from './schema.ts'
import { type ClassState, checkWhole, DamagedBuffer, openStream, readClass } from './stream-state.ts'

/** A serialised event that has no sequence yet. */
export interface PendingRow {
  readonly body: string
  readonly timeMs: number
}

/** Contiguous rows of one class, to be sent as one batch. */
export interface RowRange {
  readonly firstSequence: number
  readonly lastSequence: number
  readonly bodies: readonly Buffer[]
  readonly previousHash: string
  readonly lastHash: string
  /** More rows wait behind these. */
  readonly full: boolean
}

export interface OpenRows {
  readonly path: string
  readonly nowMs: number
  readonly checkpointPages: number
}

/** Rows read at once: what a batch has no more room for is read in vain. */
const READ_CHUNK_ROWS = 64
/** How long a write may wait for somebody else's lock on the file; the agent's one thread stands still for it. */
const LOCK_WAIT_MS = 100

export interface BufferRows {
  readonly db: Sqlite
  readonly streamId: string
  readonly createdMs: number
  /** Null after an orderly close, else the time of the last commit before the file was left behind. */
  readonly uncleanSinceMs: number | null
  readonly classes: readonly ClassState[]
  state(eventClass: EventClass): ClassState
  /** Runs `change` in one transaction that also notes the time and the classes' state. */
  transact<Result>(nowMs: number, change: () => Result): Result
  /** Numbers, chains and inserts. Inside `transact`. */
  append(eventClass: EventClass, rows: readonly PendingRow[]): void
  read(eventClass: EventClass, after: number, rowsMax: number, bytesMax: number): RowRange | null
  hashOf(eventClass: EventClass, sequence: number): Buffer | null
  /** The oldest row after a sequence, or null. */
  firstAfter(eventClass: EventClass, sequence: number): number | null
  pagesInUse(): number
  /** Moves the whole log into the database. `held`: a reader is in the way; `failed`: the disk is. */
  emptyLog(): 'emptied' | 'held' | 'failed'
  /** Notes an orderly end and closes. */
  close(nowMs: number): void
}

/** Rows are added at one end and read at the other: more would only be kept. */
const CACHE_BYTES_MAX = 2 * 1_024 ** 2

/** Opens the file or makes it. Throws when it is damaged, cannot be written, or is a newer program's. */
export function openRows(options: OpenRows): BufferRows {
  const db = openSqlite({
    path: options.path,
    migrations: MIGRATIONS,
    cacheBytesMax: CACHE_BYTES_MAX,
  })
  try {
    db.pragma(`busy_timeout = ${LOCK_WAIT_MS}`)
    db.pragma(`wal_autocheckpoint = ${options.checkpointPages}`)
    // After a reader held the log for long, its file shrinks again.
    db.pragma(`journal_size_limit = ${options.checkpointPages * 4_096 * 2}`)
    checkWhole(db)
    return readRows(db, options.nowMs)
  } catch (error) {
    db.close()
    throw error
  }
}

function readRows(db: Sqlite, nowMs: number): BufferRows {
  const stream = openStream(db, nowMs)
  const byClass = EVENT_CLASSES.map((eventClass) => classStatements(db, eventClass))
  const statementsOf = (eventClass: EventClass) => byClass[eventClass] as ReturnType<typeof classStatements>
  const classes = EVENT_CLASSES.map((eventClass) => readClass(db, eventClass))
  const state = (eventClass: EventClass) => classes[eventClass] as ClassState
  const noteCommit = db.prepare<[number]>('UPDATE stream SET last_commit_ms = ?, clean = 0')
  const noteClass = db.prepare<[number, Buffer, number, number]>(
    'UPDATE class SET next_sequence = ?, last_hash = ?, acknowledged = ? WHERE class = ?',
  )
  const seamAt = db.prepare<[number, number], { hash: Buffer }>(
    'SELECT hash FROM seam WHERE class = ? AND sequence = ?',
  )
  const pages = db.prepare<[], { used: number }>(
    'SELECT page_count - freelist_count AS used FROM pragma_page_count, pragma_freelist_count',
  )
  const noteState = (time: number) => {
    noteCommit.run(time)
    for (const eventClass of EVENT_CLASSES) {
      const { next, lastHash, acknowledged } = state(eventClass)
      noteClass.run(next, lastHash, acknowledged, eventClass)
    }
  }

  const hashOf = (eventClass: EventClass, sequence: number): Buffer | null => {
    if (sequence === 0) return CHAIN_START
    const row = statementsOf(eventClass).hash.get(sequence) ?? seamAt.get(eventClass, sequence)
    return row?.hash ?? null
  }

  // One scratch for all rows: previous hash, then the body's bytes, hashed in one call.
  const scratch = Buffer.alloc(CHAIN_HASH_BYTES + EVENT_BYTES_MAX)
  const append = (eventClass: EventClass, rows: readonly PendingRow[]) => {
    const { insert } = statementsOf(eventClass)
    const current = state(eventClass)
    for (const row of rows) {
      current.lastHash.copy(scratch, 0)
      const bytes = scratch.write(row.body, CHAIN_HASH_BYTES)
      const value = hash('sha256', scratch.subarray(0, CHAIN_HASH_BYTES + bytes), 'buffer')
      insert.run(current.next, row.timeMs, row.body, value)
      current.lastHash = value
      current.next += 1
    }
  }

  const transact = <Result>(time: number, change: () => Result): Result => {
    const before = classes.map((entry) => ({ ...entry }))
    try {
      return db
        .transaction(() => {
          const result = change()
          noteState(time)
          return result
        })
        .immediate()
    } catch (error) {
      before.forEach((entry, index) => {
        Object.assign(classes[index] as ClassState, entry)
      })
      throw error
    }
  }

  return {
    db,
    ...stream,
    classes,
    state,
    transact,
    append,
    hashOf,
    read(eventClass, after, rowsMax, bytesMax) {
      const range = readContiguous(statementsOf(eventClass).read, after, rowsMax, bytesMax)
      if (!range) return null
      const previous = hashOf(eventClass, range.firstSequence - 1)
      const last = hashOf(eventClass, range.lastSequence)
      if (!previous || !last) {
        throw new DamagedBuffer(`class ${eventClass} has no hash before ${range.firstSequence}`)
      }
      return { ...range, previousHash: previous.toString('hex'), lastHash: last.toString('hex') }
    },
    firstAfter: (eventClass, sequence) => statementsOf(eventClass).firstAfter.get(sequence)?.first ?? null,
    emptyLog: () => emptyLog(db),
    pagesInUse: () => pages.get()?.used ?? 0,
    close(time) {
      try {
        transact(time, () => undefined)
        db.exec('UPDATE stream SET clean = 1')
      } finally {
        db.close()
      }
    },
  }
}

function emptyLog(db: Sqlite): 'emptied' | 'held' | 'failed' {
  // Without waiting: the reader may stay for hours.
  db.pragma('busy_timeout = 0')
  try {
    return db.pragma('wal_checkpoint(TRUNCATE)', { simple: true }) === 0 ? 'emptied' : 'held'
  } catch {
    return 'failed'
  } finally {
    db.pragma(`busy_timeout = ${LOCK_WAIT_MS}`)
  }
}

function classStatements(db: Sqlite, eventClass: EventClass) {
  const table = `class_${eventClass}`
  return {
    insert: db.prepare<[number, number, string, Buffer]>(`INSERT INTO ${table} VALUES (?, ?, ?, ?)`),
    hash: db.prepare<[number], { hash: Buffer }>(`SELECT hash FROM ${table} WHERE sequence = ?`),
    firstAfter: db.prepare<[number], { first: number | null }>(
      `SELECT min(sequence) AS first FROM ${table} WHERE sequence > ?`,
    ),
    read: db
      .prepare<[number, number], readonly [sequence: number, body: string]>(
        `SELECT sequence, body FROM ${table} WHERE sequence > ? ORDER BY sequence LIMIT ?`,
      )
      .raw(),
  }
}

type ReadStatement = ReturnType<typeof classStatements>['read']

/** Takes rows until one does not follow on the one before, or the batch is full. */
function readContiguous(
  statement: ReadStatement,
  after: number,
  rowsMax: number,
  bytesMax: number,
): Omit<RowRange, 'previousHash' | 'lastHash'> | null {
  const bodies: Buffer[] = []
  let bytes = 0
  let last: number | null = null
  const found = (full: boolean) =>
    last === null ? null : { firstSequence: last - bodies.length + 1, lastSequence: last, bodies, full }
  while (bodies.length < rowsMax) {
    const chunk = statement.all(last ?? after, Math.min(READ_CHUNK_ROWS, rowsMax - bodies.length))
    for (const [sequence, text] of chunk) {
      // As text and then bytes: half the cost of a blob per row.
      const body = Buffer.from(text)
      if (last !== null && (sequence !== last + 1 || bytes + body.length > bytesMax)) return found(true)
      bodies.push(body)
      bytes += body.length
      last = sequence
    }
    if (chunk.length === 0) return found(false)
  }
  return found(true)
}
