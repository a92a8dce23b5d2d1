/** Made-up but valid batches of one agent's stream, chained as an agent chains them. */
import type { EventClass } from '../../../../shared/events/delivery-class.ts'
import type { CordonEvent } from '../../../../shared/events/event.ts'
import { CHAIN_START, chainHash } from '../../../../shared/node/chain.ts'
import { packPayload } from '../../../../shared/node/payload.ts'
import type { IncomingBatch } from '../../event-store.ts'
import { packRows } from '../packed-rows.ts'

export const HOUR_MS = 3_600_000
/** 10:00:00 of some day. */
export const START_MS = Date.UTC(2026, 0, 1, 10)

export function sampleAgentId(number: number): string {
  return number.toString(16).padStart(8, '0').padEnd(32, 'a')
}

export function sampleExec(agentId: string, number: number, timeMs = START_MS + number): CordonEvent {
  const prefix = `${agentId.slice(0, 8)}.0badb007`
  return {
    '@timestamp': new Date(timeMs).toISOString(),
    'event.kind': 'event',
    'event.category': 'process',
    'event.type': 'start',
    'event.action': 'exec',
    'process.entity_id': `${prefix}.${number}.1`,
    'process.pid': number,
    'process.executable': `/usr/bin/tool-${number % 7}`,
    'process.command_line': `tool --number ${number}`,
    'process.parent.entity_id': `${prefix}.${number >> 2}.1`,
  }
}

export interface SampleBatch extends IncomingBatch {
  readonly bodies: readonly Uint8Array[]
  readonly events: readonly CordonEvent[]
}

/** Rows of a stream by sequence, 1 first; `batch(2, 3)` is the batch of rows 2, 3 and 4. */
export function createSampleStream(agentId: string, streamId = agentId, eventClass: EventClass = 2) {
  const events: CordonEvent[] = []
  const bodies: Buffer[] = []
  const hashes: Buffer[] = [CHAIN_START]
  return {
    add(event: CordonEvent): void {
      const body = Buffer.from(JSON.stringify(event))
      events.push(event)
      bodies.push(body)
      hashes.push(chainHash(hashes.at(-1) ?? CHAIN_START, body))
    },
    batch(firstSequence: number, rows: number, receivedMs = START_MS, allowFrom = 1): SampleBatch {
      while (bodies.length < firstSequence + rows - 1) this.add(sampleExec(agentId, bodies.length + 1))
      const batchBodies = bodies.slice(firstSequence - 1, firstSequence - 1 + rows)
      const batchEvents = events.slice(firstSequence - 1, firstSequence - 1 + rows)
      return {
        agentId,
        streamId,
        class: eventClass,
        firstSequence,
        allowFrom,
        bodies: batchBodies,
        events: batchEvents,
        /** Packed anew for each look: the store takes the bytes with it. */
        get rows() {
          return packRows(packPayload(batchBodies), batchEvents)
        },
        notable: batchEvents.map((event, row) => ({ row, event, detections: [] })),
        previousHash: hashes[firstSequence - 1]?.toString('hex') ?? '',
        lastHash: hashes[firstSequence - 1 + rows]?.toString('hex') ?? '',
        receivedMs,
      }
    },
  }
}
