/** Puts rows into the form that crosses to the writer's thread. */
import type { CordonEvent } from '../../../shared/events/event.ts'
import type { Payload } from '../../../shared/node/payload.ts'
import type { PackedRows } from '../event-store.ts'
import { addColumns, type ColumnValue } from './columns.ts'

/** `payload` holds the events' bodies; its bytes are copied, because the packed rows give theirs away. */
export function packRows(payload: Payload, events: readonly CordonEvent[]): PackedRows {
  const columns: ColumnValue[] = []
  for (const event of events) addColumns(columns, event)
  return {
    count: payload.rows,
    payload: new Uint8Array(payload.bytes),
    payloadBytes: payload.payloadBytes,
    columns: JSON.stringify(columns),
  }
}
