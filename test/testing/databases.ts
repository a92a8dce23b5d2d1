/**
 * The two ends' databases, read as they lie on disk, past every program: what the agent made, and what the
 * controller has of it.
 */
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { vi } from 'vitest'
import { type CordonEvent, EVENT_CLASSES } from '../../shared/events/event.ts'

type Fields = Readonly<Record<string, unknown>>

export interface Row {
  readonly class: number
  readonly sequence: number
  readonly body: string
  readonly event: Fields
}

export interface Buffer {
  readonly streamId: string
  readonly rows: readonly Row[]
  /** Sequences that were made so far, by class. */
  readonly made: readonly number[]
  /** What the agent knew on disk to be acknowledged; memory may know more. */
  readonly acknowledged: readonly number[]
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

export function readBuffer(agentFolder: string): Buffer {
  return withDatabase(join(agentFolder, 'buffer.db'), (db) => {
    const states = db
      .prepare<[], { next: number; acknowledged: number }>(
        'SELECT next_sequence AS next, acknowledged FROM class ORDER BY class',
      )
      .all()
    const rows = EVENT_CLASSES.flatMap((eventClass) =>
      db
        .prepare<[], { class: number; sequence: number; body: string }>(
          `SELECT ${eventClass} AS class, sequence, body FROM class_${eventClass} ORDER BY sequence`,
        )
        .all(),
    )
    return {
      streamId: String(db.prepare('SELECT stream_id FROM stream').pluck().get()),
      rows: rows.map(rowOf),
      made: states.map(({ next }) => next - 1),
      acknowledged: states.map(({ acknowledged }) => acknowledged),
    }
  })
}

/** Events of an action in the agent's buffer, oldest first. */
export function bufferedEvents(agentFolder: string, action: string): readonly Fields[] {
  return readBuffer(agentFolder)
    .rows.map(({ event }) => event)
    .filter((event) => event['event.action'] === action)
}

/** Every row that the controller stored of one stream, in the order in which it stored them. */
export function readStored(controllerFolder: string, agentId: string, streamId: string): readonly Row[] {
  const folder = join(controllerFolder, 'events')
  const files = existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith('.db')) : []
  return files.sort().flatMap((name) =>
    withDatabase(join(folder, name), (db) =>
      db
        .prepare<[string, string], { class: number; sequence: number; body: string }>(
          `SELECT s.class, b.first_sequence + e.id - b.first_event AS sequence, CAST(e.body AS TEXT) AS body
           FROM event e JOIN batch b ON b.id = e.batch JOIN stream s ON s.id = b.stream
             JOIN agent a ON a.id = s.agent
           WHERE a.agent_id = ? AND s.stream_id = ? ORDER BY e.id`,
        )
        .all(agentId, streamId)
        .map(rowOf),
    ),
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

/** Highest stored sequence by class. */
export function storedUpTo(stored: readonly Row[]): readonly number[] {
  return EVENT_CLASSES.map((eventClass) =>
    stored.reduce((last, row) => (row.class === eventClass ? Math.max(last, row.sequence) : last), 0),
  )
}

/** Waits until the controller has everything that the agent had made at the time of the call. */
export async function awaitDelivery(agentFolder: string, controllerFolder: string, agentId: string) {
  const { streamId, made } = readBuffer(agentFolder)
  return await vi.waitFor(
    () => {
      const stored = readStored(controllerFolder, agentId, streamId)
      const upTo = storedUpTo(stored)
      const behind = made.filter((last, eventClass) => (upTo[eventClass] ?? 0) < last)
      if (behind.length > 0) throw new Error(`made up to ${made}, stored up to ${upTo}`)
      return stored
    },
    { timeout: 60_000, interval: 200 },
  )
}
