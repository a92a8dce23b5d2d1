/** The bodies of a stored batch, from its payload. */
import { crc32 } from 'node:zlib'
import { decompress, unpackPayload } from '../../../shared/node/payload.ts'
import type { Sqlite } from '../../../shared/node/sqlite.ts'

interface PayloadRow {
  readonly payload: Buffer
  readonly payload_bytes: number
  readonly payload_crc: number
  readonly first_row: number
  readonly rows: number
}

const SELECT = 'SELECT payload, payload_bytes, payload_crc, first_row, rows FROM batch WHERE id = ?'

/** Null when there is no such batch, or its payload is not what was stored. */
export function readBodies(db: Sqlite, batch: number): readonly Buffer[] | null {
  return unpackRow(db.prepare<[number], PayloadRow>(SELECT).get(batch))
}

export interface StoredBodies {
  /** The body of the batch's row, 0 first; null when the batch's payload is not what was stored. */
  body(batch: number, row: number): Buffer | null
}

/** Unpacks each batch once for rows that are asked for one after the other, and keeps the last one. */
export function createStoredBodies(db: Sqlite, onUnreadable: (batch: number) => void): StoredBodies {
  const select = db.prepare<[number], PayloadRow>(SELECT)
  let last: { readonly batch: number; readonly bodies: readonly Buffer[] | null } | null = null
  return {
    body(batch, row) {
      if (last?.batch !== batch) {
        last = { batch, bodies: unpackRow(select.get(batch)) }
        if (last.bodies === null) onUnreadable(batch)
      }
      return last.bodies?.[row] ?? null
    },
  }
}

/** For SQL: 0 when no body of the payload has the text. Of one that cannot be read, the rows have to be looked at. */
export function payloadHolds(payload: unknown, payloadBytes: unknown, text: unknown): number {
  if (!(payload instanceof Buffer)) return 0
  const content = decompress(payload, Number(payloadBytes))
  return content === null || content.includes(String(text)) ? 1 : 0
}

function unpackRow(stored: PayloadRow | undefined): readonly Buffer[] | null {
  if (!stored || crc32(stored.payload) !== stored.payload_crc) return null
  const { payload, payload_bytes, first_row, rows } = stored
  const unpacked = unpackPayload({ bytes: payload, rows: first_row + rows, payloadBytes: payload_bytes })
  return unpacked.ok ? unpacked.bodies.slice(first_row) : null
}
