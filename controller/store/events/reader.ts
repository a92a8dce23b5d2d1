/** Reads the hourly files over read-only connections. Runs in a worker thread; everything here is synchronous. */
import { existsSync, statSync } from 'node:fs'
import type { EventClass } from '../../../shared/events/delivery-class.ts'
import type { Sqlite } from '../../../shared/node/sqlite.ts'
import type { Cursor, EventQuery } from '../event-store.ts'
import {
  cursorOf,
  eventFilePath,
  type FileHour,
  isCorruption,
  listHours,
  openEventFile,
  positionOf,
} from './event-file.ts'
import { type FileFacts, isOutside, planSearch, queryProblem } from './search-plan.ts'
import { createStoredBodies, payloadHolds, type StoredBodies } from './stored-bodies.ts'
import type { ClassCount, PackedRow, SearchAnswer, SearchRequest, WorkerLog } from './worker-protocol.ts'

/** Connections kept open; an hour's file each. */
const OPEN_FILES_MAX = 16
/** Body characters of one answer: the main thread holds them all at once. */
const ANSWER_CHARACTERS_MAX = 32 * 1024 * 1024
/** Calls of `within_budget`, one per 64 rows, between two looks at the clock. */
const CALLS_PER_CLOCK_LOOK = 4

export interface ReaderOptions {
  readonly folder: string
  readonly log: WorkerLog
}

export interface EventReader {
  readAfter(cursor: Cursor, rowsMax: number): readonly PackedRow[]
  search(request: SearchRequest): SearchAnswer
  counts(): readonly ClassCount[]
  /** Lets go of files that are about to be removed. */
  forget(hours: readonly FileHour[]): void
  close(): void
}

interface FoundRow {
  readonly id: number
  readonly batch: number
  /** Within its batch. */
  readonly row: number
  readonly first_sequence: number
  readonly received_ms: number
  readonly stream_id: string
  readonly class: EventClass
  readonly agent_id: string
}

interface ReadFile {
  readonly db: Sqlite
  readonly inode: number
  readonly bodies: StoredBodies
  facts: FileFacts
}

class BudgetSpent extends Error {}

const READ_ALL: EventQuery = { limit: 1 }

export function createEventReader(options: ReaderOptions): EventReader {
  const { folder, log } = options
  // In order of use: the first is the one to close.
  const files = new Map<FileHour, ReadFile>()
  /** Of files whose connection was let go as well: a query need not open each one to leave it out. */
  const sealedFacts = new Map<FileHour, { readonly inode: number; readonly facts: FileFacts }>()
  let deadline = Number.POSITIVE_INFINITY
  let callsUntilLook = CALLS_PER_CLOCK_LOOK

  const withinBudget = (): number => {
    callsUntilLook -= 1
    if (callsUntilLook > 0) return 1
    callsUntilLook = CALLS_PER_CLOCK_LOOK
    if (performance.now() > deadline) throw new BudgetSpent('the time for this query is up')
    return 1
  }

  const drop = (hour: FileHour): void => {
    files.get(hour)?.db.close()
    files.delete(hour)
  }

  const openFile = (hour: FileHour): ReadFile | null => {
    const path = eventFilePath(folder, hour)
    if (!existsSync(path)) {
      drop(hour)
      return null
    }
    const inode = statSync(path).ino
    const known = files.get(hour)
    if (known && known.inode === inode) {
      files.delete(hour)
      files.set(hour, known)
      if (!known.facts.sealed) known.facts = readFacts(known.db)
      return known
    }
    drop(hour)
    const db = openEventFile({ ...options, hour }, 'read')
    try {
      db.function('within_budget', { varargs: false, deterministic: false }, (_id: unknown) => withinBudget())
      db.function('payload_holds', { deterministic: true }, payloadHolds)
      const bodies = createStoredBodies(db, (batch) =>
        log('error', 'a batch whose bytes changed on disk was left out', { hour, batch }),
      )
      const opened = { db, inode, bodies, facts: readFacts(db) }
      files.set(hour, opened)
      if (opened.facts.sealed) sealedFacts.set(hour, opened)
      const oldest = files.keys().next().value
      if (files.size > OPEN_FILES_MAX && oldest !== undefined) drop(oldest)
      return opened
    } catch (error) {
      db.close()
      throw error
    }
  }

  const isKnownOutside = (hour: FileHour, query: EventQuery): boolean => {
    const known = sealedFacts.get(hour)
    if (!known || !isOutside(query, known.facts)) return false
    return statSync(eventFilePath(folder, hour), { throwIfNoEntry: false })?.ino === known.inode
  }

  /** Runs `read` on a file. One that cannot be read is told and left out: the others still answer. */
  const onFile = <Value>(hour: FileHour, read: (file: ReadFile) => Value): Value | null => {
    try {
      const file = openFile(hour)
      return file && read(file)
    } catch (error) {
      drop(hour)
      // A file that has no schema yet is one the writer is making at this moment.
      if (error instanceof Error && error.message.startsWith('no such table')) return null
      if (!isCorruption(error)) throw error
      log('error', 'a corrupt event file was left out', { hour, error: String(error) })
      return null
    }
  }

  const rowsOf = (
    hour: FileHour,
    file: ReadFile,
    query: EventQuery,
    fromId: number | null,
    take: (row: PackedRow) => boolean,
  ): void => {
    const plan = planSearch(query, file.facts, fromId)
    for (const row of file.db.prepare<(string | number)[], FoundRow>(plan.sql).iterate(...plan.values)) {
      const body = file.bodies.body(row.batch, row.row)
      if (body === null || (query.contains !== undefined && !body.includes(query.contains))) continue
      const more = take({
        cursor: cursorOf(hour, row.id),
        agentId: row.agent_id,
        streamId: row.stream_id,
        class: row.class,
        sequence: row.first_sequence + row.row,
        receivedMs: row.received_ms,
        body: body.toString('utf8'),
      })
      if (!more) break
    }
  }

  /** Walks the files in the query's order until `take` says enough. */
  const walk = (query: EventQuery, take: (row: PackedRow) => boolean): void => {
    const descending = query.order === 'descending'
    const start = query.after === undefined || query.after === '' ? null : positionOf(query.after)
    const hours = listHours(folder)
    if (descending) hours.reverse()
    let wanted = true
    let left = query.limit
    for (const hour of hours) {
      if (!wanted || left <= 0) return
      if (start && (descending ? hour > start.hour : hour < start.hour)) continue
      if (isKnownOutside(hour, query)) continue
      const fromId = start?.hour === hour ? start.id : null
      onFile(hour, (file) => {
        if (isOutside(query, file.facts)) return
        if (performance.now() > deadline) throw new BudgetSpent('the time for this query is up')
        rowsOf(hour, file, { ...query, limit: left }, fromId, (row) => {
          left -= 1
          wanted = take(row)
          return wanted && left > 0
        })
      })
    }
  }

  return {
    readAfter(cursor, rowsMax) {
      const rows: PackedRow[] = []
      let characters = 0
      deadline = Number.POSITIVE_INFINITY
      walk({ ...READ_ALL, after: cursor, limit: rowsMax }, (row) => {
        rows.push(row)
        characters += row.body.length
        return characters < ANSWER_CHARACTERS_MAX
      })
      return rows
    },
    search({ query, budgetMs }) {
      const problem = queryProblem(query)
      if (problem !== null) throw new RangeError(problem)
      const rows: PackedRow[] = []
      let characters = 0
      let complete = true
      deadline = performance.now() + budgetMs
      try {
        walk(query, (row) => {
          rows.push(row)
          characters += row.body.length
          complete = characters < ANSWER_CHARACTERS_MAX
          return complete
        })
      } catch (error) {
        if (!(error instanceof BudgetSpent)) throw error
        complete = false
      }
      return { rows, complete: complete || rows.length === query.limit }
    },
    counts() {
      const byClass = new Map<EventClass, number>()
      for (const hour of listHours(folder)) {
        const found = onFile(hour, ({ db }) =>
          db.prepare<[], ClassCount>('SELECT class, sum(rows) AS rows FROM stream GROUP BY class').all(),
        )
        for (const { class: eventClass, rows } of found ?? []) {
          byClass.set(eventClass, (byClass.get(eventClass) ?? 0) + rows)
        }
      }
      return [...byClass].sort(([a], [b]) => a - b).map(([eventClass, rows]) => ({ class: eventClass, rows }))
    },
    forget(hours) {
      for (const hour of hours) {
        drop(hour)
        sealedFacts.delete(hour)
      }
    },
    close() {
      for (const hour of [...files.keys()]) drop(hour)
    },
  }
}

function readFacts(db: Sqlite): FileFacts {
  const row = db
    .prepare<[], { sealed: number; min_time_ms: number | null; max_time_ms: number | null }>(
      'SELECT sealed, min_time_ms, max_time_ms FROM file',
    )
    .get()
  return {
    sealed: row?.sealed === 1,
    minTimeMs: row?.min_time_ms ?? null,
    maxTimeMs: row?.max_time_ms ?? null,
  }
}
