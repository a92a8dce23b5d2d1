/** Puts rows into the form that crosses to the writer's thread. */
import type { CordonEvent } from '../../../shared/events/event.ts'
import type { PackedRows } from '../event-store.ts'
import { addColumns, type ColumnValue } from './columns.ts'

export function packRows(bodies: readonly Uint8Array[], events: readonly CordonEvent[]): PackedRows {
  const lengths = Uint32Array.from(bodies, (body) => body.length)
  const joined = new Uint8Array(lengths.reduce((sum, length) => sum + length, 0))
  let offset = 0
  for (const body of bodies) {
    joined.set(body, offset)
    offset += body.length
  }
  const columns: ColumnValue[] = []
  for (const event of events) addColumns(columns, event)
  return { bodies: joined, lengths, columns: JSON.stringify(columns) }
}
