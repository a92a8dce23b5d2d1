/**
 * Walks the hash chain of a buffer file without changing it. `PRAGMA integrity_check` says "ok" after a bit of
 * a body has flipped; the chain does not.
 */
import { Buffer } from 'node:buffer'
import Database from 'better-sqlite3'
import { EVENT_CLASSES, type EventClass } from '../../shared/events/delivery-class.ts'
import { CHAIN_START, chainHash } from '../../shared/node/chain.ts'
import { type Sqlite, sqliteBinding } from '../../shared/node/sqlite.ts'

export type BufferVerdict =
  | {
      readonly kind: 'whole'
      readonly streamId: string
      readonly rows: number
      /** Sequences that are not in the file: delivered and retired, or dropped and told by gap events. */
      readonly absentRows: number
    }
  | {
      readonly kind: 'broken'
      readonly class: EventClass
      readonly sequence: number
      readonly reason: string
    }
  | { readonly kind: 'unreadable'; readonly reason: string }

/** Reads every row. The file may belong to a running agent, or be a copy. Never throws. */
export function verifyBuffer(path: string): BufferVerdict {
  let db: Sqlite | undefined
  try {
    db = new Database(path, {
      readonly: true,
      fileMustExist: true,
      ...sqliteBinding(),
    })
    // One snapshot for all tables: a running agent writes on meanwhile.
    db.exec('BEGIN')
    const stream = db.prepare<[], { stream_id: string }>('SELECT stream_id FROM stream').get()
    if (!stream) return { kind: 'unreadable', reason: 'the file has no stream' }
    let rows = 0
    let absentRows = 0
    for (const eventClass of EVENT_CLASSES) {
      const result = verifyClass(db, eventClass)
      if (result.kind === 'broken') return { ...result, class: eventClass }
      rows += result.rows
      absentRows += result.absentRows
    }
    return { kind: 'whole', streamId: stream.stream_id, rows, absentRows }
  } catch (error) {
    return { kind: 'unreadable', reason: error instanceof Error ? error.message : String(error) }
  } finally {
    db?.close()
  }
}

type ClassVerdict =
  | { readonly kind: 'whole'; readonly rows: number; readonly absentRows: number }
  | { readonly kind: 'broken'; readonly sequence: number; readonly reason: string }

function verifyClass(db: Sqlite, eventClass: EventClass): ClassVerdict {
  const state = db
    .prepare<[number], { next_sequence: number; last_hash: Buffer }>(
      'SELECT next_sequence, last_hash FROM class WHERE class = ?',
    )
    .get(eventClass)
  if (!state) return { kind: 'broken', sequence: 0, reason: 'the class has no state' }
  const seamAt = db.prepare<[number, number], { hash: Buffer }>(
    'SELECT hash FROM seam WHERE class = ? AND sequence = ?',
  )
  const all = db.prepare<[], { sequence: number; body: string; hash: Buffer }>(
    `SELECT sequence, body, hash FROM class_${eventClass} ORDER BY sequence`,
  )
  let sequence = 0
  let rows = 0
  let value: Buffer = CHAIN_START
  for (const row of all.iterate()) {
    if (row.sequence !== sequence + 1) {
      const seam = seamAt.get(eventClass, row.sequence - 1)
      if (!seam) return broken(row.sequence, 'rows before it are missing and nothing tells of it')
      value = seam.hash
    }
    value = chainHash(value, Buffer.from(row.body))
    if (!value.equals(row.hash)) return broken(row.sequence, 'the row is not what was written')
    sequence = row.sequence
    rows += 1
  }
  const last = state.next_sequence - 1
  if (sequence > last) return broken(sequence, 'there are more rows than the class made')
  const end = sequence === last ? value : seamAt.get(eventClass, last)?.hash
  if (!end?.equals(state.last_hash)) return broken(last, 'the last rows are missing')
  return { kind: 'whole', rows, absentRows: last - rows }
}

function broken(sequence: number, reason: string): ClassVerdict {
  return { kind: 'broken', sequence, reason }
}
