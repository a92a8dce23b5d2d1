/** Puts a batch into the form that crosses to the writer's thread. */
import type { IncomingBatch } from '../event-store.ts'
import { addColumns, type ColumnValue } from './columns.ts'
import type { PackedBatch } from './worker-protocol.ts'

export function packBatch(batch: IncomingBatch): PackedBatch {
  const lengths = Uint32Array.from(batch.bodies, (body) => body.length)
  const bodies = new Uint8Array(lengths.reduce((sum, length) => sum + length, 0))
  let offset = 0
  for (const body of batch.bodies) {
    bodies.set(body, offset)
    offset += body.length
  }
  const columns: ColumnValue[] = []
  for (const event of batch.events) addColumns(columns, event)
  return {
    agentId: batch.agentId,
    streamId: batch.streamId,
    class: batch.class,
    firstSequence: batch.firstSequence,
    allowFrom: batch.allowFrom,
    receivedMs: batch.receivedMs,
    previousHash: batch.previousHash,
    lastHash: batch.lastHash,
    bodies,
    lengths,
    columns: JSON.stringify(columns),
  }
}
