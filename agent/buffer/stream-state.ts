/** What a buffer file says of itself: its stream, where its classes stand, and whether it is whole. */
import { randomBytes } from 'node:crypto'
import { EVENT_CLASSES, type EventClass } from '../../shared/events/delivery-class.ts'
import { CHAIN_START } from '../../shared/node/chain.ts'
import type { Sqlite } from '../../shared/node/sqlite.ts'

export interface ClassState {
  /** Oldest row that is there; `next` when there is none. */
  first: number
  next: number
  acknowledged: number
  lastHash: Buffer
}

/** An error that says the file is damaged, as against a full disk or a lock. */
export function isDamage(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  return code.startsWith('SQLITE_CORRUPT') || code === 'SQLITE_NOTADB' || error instanceof DamagedBuffer
}

/** The file reads, and contradicts itself. */
export class DamagedBuffer extends Error {
  override readonly name = 'DamagedBuffer'
}

/** Throws when SQLite finds the file damaged. Reads all of it: about 3 ms per MB. */
export function checkWhole(db: Sqlite): void {
  const verdict = db.pragma('quick_check(1)', { simple: true })
  if (verdict !== 'ok') throw new DamagedBuffer(String(verdict))
}

export function openStream(db: Sqlite, nowMs: number) {
  const select = db.prepare<
    [],
    { stream_id: string; created_ms: number; last_commit_ms: number; clean: number }
  >('SELECT stream_id, created_ms, last_commit_ms, clean FROM stream')
  const present = select.get()
  if (present) {
    markUnclean(db)
    return {
      streamId: present.stream_id,
      createdMs: present.created_ms,
      uncleanSinceMs: present.clean === 1 ? null : present.last_commit_ms,
    }
  }
  const streamId = randomBytes(16).toString('hex')
  db.transaction(() => {
    db.prepare('INSERT INTO stream VALUES (1, ?, ?, ?, 0)').run(streamId, nowMs, nowMs)
    const insert = db.prepare('INSERT INTO class VALUES (?, 1, ?, 0)')
    for (const eventClass of EVENT_CLASSES) insert.run(eventClass, CHAIN_START)
  }).immediate()
  return { streamId, createdMs: nowMs, uncleanSinceMs: null }
}

/** From now on an end without `close` is a crash. */
function markUnclean(db: Sqlite): void {
  try {
    db.exec('UPDATE stream SET clean = 0')
  } catch (error) {
    // On a full disk the file is still opened: its reserve may make room for what must be written.
    if (isDamage(error)) throw error
  }
}

export function readClass(db: Sqlite, eventClass: EventClass): ClassState {
  const row = db
    .prepare<
      [number],
      { next_sequence: number; last_hash: Buffer; acknowledged: number; first: number | null }
    >(
      `SELECT next_sequence, last_hash, acknowledged, (SELECT min(sequence) FROM class_${eventClass}) AS first
       FROM class WHERE class = ?`,
    )
    .get(eventClass)
  if (!row) throw new DamagedBuffer(`class ${eventClass} has no state`)
  const last = db
    .prepare<[], { sequence: number; hash: Buffer }>(
      `SELECT sequence, hash FROM class_${eventClass} ORDER BY sequence DESC LIMIT 1`,
    )
    .get()
  if (last && (last.sequence >= row.next_sequence || !isEnd(last, row))) {
    throw new DamagedBuffer(`class ${eventClass} does not end as its state says`)
  }
  return {
    first: row.first ?? row.next_sequence,
    next: row.next_sequence,
    acknowledged: row.acknowledged,
    lastHash: row.last_hash,
  }
}

function isEnd(
  last: { readonly sequence: number; readonly hash: Buffer },
  state: { readonly next_sequence: number; readonly last_hash: Buffer },
): boolean {
  // Rows at the end may have been dropped; then a seam holds the last hash.
  return last.sequence < state.next_sequence - 1 || last.hash.equals(state.last_hash)
}
