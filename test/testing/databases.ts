/**
 * The two ends' databases, read as they lie on disk, past every program: what the agent made, and what the
 * controller has of it.
 */
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { vi } from 'vitest'
import { createStoredBodies } from '../../controller/store/events/stored-bodies.ts'
import { CLASS_OF_ACTION, EVENT_CLASSES, type EventClass } from '../../shared/events/delivery-class.ts'
import type { CordonEvent, EventAction } from '../../shared/events/event.ts'

type Fields = Readonly<Record<string, unknown>>

export interface Row {
  readonly class: number
  readonly sequence: number
  readonly body: string
  readonly event: Fields
}

export interface Marks {
  readonly streamId: string
  /** Sequences that were made so far, by class. */
  readonly made: readonly number[]
  /** What the agent knew on disk to be acknowledged; memory may know more. */
  readonly acknowledged: readonly number[]
}

export interface Buffer extends Marks {
  readonly rows: readonly Row[]
}

function withDatabase<Value>(path: string, read: (db: Database.Database) => Value): Value {
  const db = new Database(path, { readonly: true, fileMustExist: true, timeout: 2_000 })
  try {
    return db.transaction(() => read(db))()
  } finally {
    db.close()
  }
}

const rowOf = (row: { class: number; sequence: number; body: string }): Row => ({
  ...row,
  event: JSON.parse(row.body) as CordonEvent,
})

function marksIn(db: Database.Database): Marks {
  const states = db
    .prepare<[], { next: number; acknowledged: number }>(
      'SELECT next_sequence AS next, acknowledged FROM class ORDER BY class',
    )
    .all()
  return {
    streamId: String(db.prepare('SELECT stream_id FROM stream').pluck().get()),
    made: states.map(({ next }) => next - 1),
    acknowledged: states.map(({ acknowledged }) => acknowledged),
  }
}

function rowsIn(db: Database.Database, eventClass: EventClass): Row[] {
  return db
    .prepare<[], { class: number; sequence: number; body: string }>(
      `SELECT ${eventClass} AS class, sequence, body FROM class_${eventClass} ORDER BY sequence`,
    )
    .all()
    .map(rowOf)
}

/** Where the agent's stream stands: cheap, however much the buffer holds. */
export function readMarks(agentFolder: string): Marks {
  return withDatabase(join(agentFolder, 'buffer.db'), marksIn)
}

export function readBuffer(agentFolder: string): Buffer {
  return withDatabase(join(agentFolder, 'buffer.db'), (db) => ({
    ...marksIn(db),
    rows: EVENT_CLASSES.flatMap((eventClass) => rowsIn(db, eventClass)),
  }))
}

/** Events of an action in the agent's buffer, oldest first. */
export function bufferedEvents(agentFolder: string, action: EventAction): readonly Fields[] {
  return withDatabase(join(agentFolder, 'buffer.db'), (db) =>
    rowsIn(db, CLASS_OF_ACTION[action])
      .map(({ event }) => event)
      .filter((event) => event['event.action'] === action),
  )
}

/** Asks each of the controller's event files, oldest first. */
function askEventFiles<Value>(controllerFolder: string, ask: (db: Database.Database) => Value[]): Value[] {
  const folder = join(controllerFolder, 'events')
  const files = existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith('.db')) : []
  return files.sort().flatMap((name) => withDatabase(join(folder, name), ask))
}

const STORED = `FROM event e JOIN batch b ON b.id = e.batch JOIN stream s ON s.id = b.stream
  JOIN agent a ON a.id = s.agent WHERE a.agent_id = ? AND s.stream_id = ?`

/** Every row that the controller stored of one stream, in the order in which it stored them. */
export function readStored(controllerFolder: string, agentId: string, streamId: string): readonly Row[] {
  return askEventFiles(controllerFolder, (db) => {
    const bodies = createStoredBodies(db, (batch) => {
      throw new Error(`the payload of batch ${batch} is not what was stored`)
    })
    return db
      .prepare<[string, string], { class: number; sequence: number; batch: number; row: number }>(
        `SELECT s.class, b.first_sequence + e.id - b.first_event AS sequence, e.batch, e.id - b.first_event AS row
         ${STORED} ORDER BY e.id`,
      )
      .all(agentId, streamId)
      .map(({ batch, row, ...place }) => rowOf({ ...place, body: String(bodies.body(batch, row)) }))
  })
}

/** Highest stored sequence of one stream by class. */
export function storedUpTo(controllerFolder: string, agentId: string, streamId: string): readonly number[] {
  const found = askEventFiles(controllerFolder, (db) =>
    db
      .prepare<[string, string], { class: number; last: number }>(
        `SELECT s.class, max(b.first_sequence + e.id - b.first_event) AS last ${STORED} GROUP BY s.class`,
      )
      .all(agentId, streamId),
  )
  return EVENT_CLASSES.map((eventClass) =>
    found.reduce((last, row) => (row.class === eventClass ? Math.max(last, row.last) : last), 0),
  )
}

export interface Balance {
  /** Every sequence from 1 to what was made that is neither stored nor told in a gap, as `class:sequence`. */
  readonly missing: readonly string[]
  readonly storedTwice: readonly string[]
  /** Rows that both ends have, with another content. */
  readonly different: readonly string[]
  readonly storedRows: number
}

/** Holds what the agent made against what the controller has: made = stored + gaps, each once, unchanged. */
export function balance(made: Buffer, stored: readonly Row[]): Balance {
  const known = new Map(made.rows.map((row) => [`${row.class}:${row.sequence}`, row.body]))
  const counts = new Map<string, number>()
  const different: string[] = []
  for (const row of stored) {
    const key = `${row.class}:${row.sequence}`
    counts.set(key, (counts.get(key) ?? 0) + 1)
    const body = known.get(key)
    if (body !== undefined && body !== row.body) different.push(key)
  }
  const told = new Set(
    stored.flatMap(({ event }) => {
      const [from, to] = [event['cordon.gap.from'], event['cordon.gap.to']]
      if (event['event.action'] !== 'gap' || typeof from !== 'number' || typeof to !== 'number') return []
      return Array.from(
        { length: to - from + 1 },
        (_, index) => `${event['cordon.gap.class']}:${from + index}`,
      )
    }),
  )
  const missing = made.made.flatMap((last, eventClass) =>
    Array.from({ length: last }, (_, index) => `${eventClass}:${index + 1}`).filter(
      (key) => !counts.has(key) && !told.has(key),
    ),
  )
  const storedTwice = [...counts].filter(([, count]) => count > 1).map(([key]) => key)
  return { missing, storedTwice, different, storedRows: stored.length }
}

/** Waits until the controller has everything that the agent had made at the time of the call, and reads it. */
export async function awaitDelivery(
  agentFolder: string,
  controllerFolder: string,
  agentId: string,
  timeoutMs = 60_000,
) {
  const { streamId, made } = readMarks(agentFolder)
  await vi.waitFor(
    () => {
      const upTo = storedUpTo(controllerFolder, agentId, streamId)
      const behind = made.filter((last, eventClass) => (upTo[eventClass] ?? 0) < last)
      if (behind.length > 0) throw new Error(`made up to ${made}, stored up to ${upTo}`)
    },
    { timeout: timeoutMs, interval: 200 },
  )
  return readStored(controllerFolder, agentId, streamId)
}
