/** The one file that is being written: its prepared statements and its next ids. */
import { crc32 } from 'node:zlib'
import type { Sqlite } from '../../../shared/node/sqlite.ts'
import { type FileHour, type OpenEventFile, openEventFile, writeFileHeader } from './event-file.ts'
import { createEventInserter, type EventInserter } from './event-inserter.ts'
import type { StreamState, StreamTable } from './stream-table.ts'
import type { PackedBatch } from './worker-protocol.ts'

export interface OpenFile {
  readonly hour: FileHour
  readonly db: Sqlite
  /** Id of the newest event, or the one before the file's first. */
  lastEvent: number
  lastBatch: number
  rows(): number
  /** Writes the rows from index `skip` on and the stream's new watermark, inside a transaction. */
  write(packed: PackedBatch, skip: number, stream: StreamState, previousHash: Buffer): void
}

/**
 * Opens the file for writing. A new one gets its header and the watermarks of `carry` in one transaction: a
 * crash in between leaves a file without a header, which is filled when it is opened again.
 */
export function openForWriting(options: OpenEventFile, carry: () => StreamTable): OpenFile {
  const db = openEventFile(options, 'write')
  try {
    if (db.prepare('SELECT id FROM file').get() === undefined) {
      db.transaction(() => {
        writeFileHeader(db, options.folder, options.hour)
        carry().writeAll(db)
      }).immediate()
    }
    // Only when a newer file was set aside and the clock went back is a sealed file written again.
    if (db.prepare('SELECT sealed FROM file').pluck().get() === 1) db.exec('UPDATE file SET sealed = 0')
    return prepare(db, options.hour)
  } catch (error) {
    db.close()
    throw error
  }
}

function prepare(db: Sqlite, hour: FileHour): OpenFile {
  const insertEvents: EventInserter = createEventInserter(db)
  const insertAgent = db.prepare('INSERT INTO agent (id, agent_id) VALUES (?, ?) ON CONFLICT DO NOTHING')
  const putStream = db.prepare(
    `INSERT INTO stream (id, agent, stream_id, class, sequence, hash, rows) VALUES (?, ?, ?, ?, ?, ?, ?)
     ON CONFLICT (id) DO UPDATE SET sequence = excluded.sequence, hash = excluded.hash, rows = excluded.rows`,
  )
  const insertBatch = db.prepare(
    `INSERT INTO batch (id, stream, first_sequence, rows, first_event, received_ms, previous_hash, last_hash,
       first_row, payload_bytes, payload_crc, payload)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
  )
  const firstEvent = Number(db.prepare('SELECT first_event FROM file').pluck().get())
  const newest = db.prepare('SELECT max(id) FROM event').pluck().get()

  const file: OpenFile = {
    hour,
    db,
    lastEvent: typeof newest === 'number' ? newest : firstEvent - 1,
    lastBatch: Number(db.prepare('SELECT coalesce(max(id), 0) FROM batch').pluck().get()),
    rows: () => file.lastEvent - firstEvent + 1,
    write(packed, skip, stream, previousHash) {
      const rows = packed.count - skip
      const batch = file.lastBatch + 1
      const first = file.lastEvent + 1
      insertAgent.run(stream.agent, stream.agentId)
      putStream.run(
        stream.id,
        stream.agent,
        stream.streamId,
        stream.class,
        stream.sequence,
        stream.hash,
        stream.rows,
      )
      insertBatch.run(
        batch,
        stream.id,
        packed.firstSequence + skip,
        rows,
        first,
        packed.receivedMs,
        previousHash,
        stream.hash,
        skip,
        packed.payloadBytes,
        crc32(packed.payload),
        packed.payload,
      )
      insertEvents(packed, skip, { firstEvent: first, batch })
      file.lastBatch = batch
      file.lastEvent += rows
    },
  }
  return file
}
