/** What the store knows of a stream's hash chain at a sequence that was stored some time ago. */
import { chainOver } from '../../../shared/node/chain.ts'
import type { Sqlite } from '../../../shared/node/sqlite.ts'
import { readBodies } from './stored-bodies.ts'

export type StoredHash =
  | { readonly kind: 'known'; readonly hash: Buffer }
  /** Later rows of the stream are here and this one is not: it was told as lost when the stream went on. */
  | { readonly kind: 'never' }
  /** Not in this file; an older one may have it. */
  | { readonly kind: 'older' }
  /** The disk changed it since. */
  | { readonly kind: 'unreadable' }

interface BatchRow {
  readonly id: number
  readonly first_sequence: number
  readonly rows: number
  readonly previous_hash: Buffer
  readonly last_hash: Buffer
}

/** The chain after `sequence` of the stream with row id `stream`. Reads at most one batch of bodies. */
export function storedHashAt(db: Sqlite, stream: number, sequence: number): StoredHash {
  const batch = db
    .prepare<[number, number], BatchRow>(
      `SELECT id, first_sequence, rows, previous_hash, last_hash FROM batch
       WHERE stream = ? AND first_sequence <= ? ORDER BY first_sequence DESC LIMIT 1`,
    )
    .get(stream, sequence)
  if (batch === undefined) return { kind: 'older' }
  const rows = sequence - batch.first_sequence + 1
  if (rows > batch.rows) return { kind: 'never' }
  if (rows === batch.rows) return { kind: 'known', hash: batch.last_hash }
  const hash = hashOfBodies(db, batch, rows)
  return hash ? { kind: 'known', hash } : { kind: 'unreadable' }
}

/**
 * Ids of the batches whose stored bodies do not lead from their first hash to their last: bytes that changed on
 * disk. SQLite's own integrity check does not see a flipped bit inside a payload.
 */
export function findChangedBatches(db: Sqlite): number[] {
  return db
    .prepare<[], BatchRow>('SELECT id, first_sequence, rows, previous_hash, last_hash FROM batch')
    .all()
    .filter((batch) => !hashOfBodies(db, batch, batch.rows)?.equals(batch.last_hash))
    .map((batch) => batch.id)
}

/** Null when the stored payload cannot be unpacked. */
function hashOfBodies(db: Sqlite, batch: BatchRow, rows: number): Buffer | null {
  const bodies = readBodies(db, batch.id)
  return bodies && chainOver(batch.previous_hash, bodies.slice(0, rows))
}
