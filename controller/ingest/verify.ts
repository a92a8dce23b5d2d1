/**
 * From the bytes of a frame to rows that may be stored: decodes, holds the bodies against the hash chain and the
 * schema, looks at each event once. Costs most of what an event costs, so it runs in a thread of its own.
 */
import { isUtf8 } from 'node:buffer'
import { CLASS_CRITICAL, CLASS_OF_ACTION, type EventClass } from '../../shared/events/delivery-class.ts'
import type { CordonEvent } from '../../shared/events/event.ts'
import { decodeBatch } from '../../shared/node/batch.ts'
import { verifyChain } from '../../shared/node/chain.ts'
import type { BatchHeader } from '../../shared/protocol/messages.ts'
import { parseEvent } from '../../shared/protocol/parse.ts'
import type { NotableRow, PackedRows } from '../store/event-store.ts'
import { packRows } from '../store/events/packed-rows.ts'
import type { Weigh } from '../store/events/tail.ts'

export interface VerifiedBatch {
  readonly header: BatchHeader
  readonly rows: PackedRows
  readonly notable: readonly NotableRow[]
  /** What GAP events tell: rows of the class up to `to` will not come. */
  readonly gaps: readonly { readonly class: EventClass; readonly to: number }[]
  /** The first body that speaks of processes of another agent. */
  readonly foreign: { readonly action: string; readonly entityId: string } | null
}

export type Verdict =
  | { readonly kind: 'verified'; readonly batch: VerifiedBatch }
  /** Not a batch of this connection at all. */
  | { readonly kind: 'malformed'; readonly reason: string }
  | { readonly kind: 'chainBroken'; readonly header: BatchHeader }
  | { readonly kind: 'invalidEvent'; readonly header: BatchHeader; readonly reason: string }

/** Whose connection a frame came over, and the stream that its hello named. */
export interface FrameOrigin {
  readonly agentId: string
  readonly streamId: string
}

/** Never throws, whatever the bytes. */
export function verifyFrame(frame: Uint8Array, origin: FrameOrigin, weigh: Weigh): Verdict {
  const decoded = decodeBatch(frame)
  if (!decoded.ok) return { kind: 'malformed', reason: decoded.reason }
  const { header, bodies, payload } = decoded
  if (header.streamId !== origin.streamId) {
    return { kind: 'malformed', reason: 'the batch is of another stream than the hello' }
  }
  if (!verifyChain(header, bodies)) return { kind: 'chainBroken', header }
  const read = readEvents(header, bodies)
  if (!read.ok) return { kind: 'invalidEvent', header, reason: read.reason }
  const { events } = read
  const notable: NotableRow[] = []
  for (const [row, event] of events.entries()) {
    const detections = weigh(event, origin.agentId)
    if (detections !== null) notable.push({ row, event, detections })
  }
  return {
    kind: 'verified',
    batch: {
      header,
      rows: packRows(payload, events),
      notable,
      gaps: header.class === CLASS_CRITICAL ? gapsOf(events) : [],
      foreign: foreignOf(events, origin.agentId),
    },
  }
}

type EventsRead =
  | { readonly ok: true; readonly events: readonly CordonEvent[] }
  | { readonly ok: false; readonly reason: string }

function readEvents(header: BatchHeader, bodies: readonly Buffer[]): EventsRead {
  const events: CordonEvent[] = []
  for (const [row, body] of bodies.entries()) {
    const refused = (reason: string): EventsRead => ({
      ok: false,
      reason: `sequence ${header.firstSequence + row}: ${reason}`,
    })
    // Decoding is lossy, and what is stored must be what was checked.
    if (!isUtf8(body)) return refused('not UTF-8')
    const parsed = parseEvent(body.toString('utf8'))
    if (!parsed.ok)
      return refused(`${parsed.error.reason}${parsed.error.path ? ` at ${parsed.error.path}` : ''}`)
    const event = parsed.value
    if (CLASS_OF_ACTION[event['event.action']] !== header.class) return refused('not an event of this class')
    if (Number.isNaN(Date.parse(event['@timestamp']))) return refused('no such time')
    events.push(event)
  }
  return { ok: true, events }
}

/** A GAP event says that rows before its end will not come; it is of class 0, which is sent first. */
function gapsOf(events: readonly CordonEvent[]): VerifiedBatch['gaps'] {
  return events.flatMap((event) => {
    if (event['event.action'] !== 'gap' || event['cordon.gap.to'] === undefined) return []
    const eventClass = event['cordon.gap.class'] as EventClass
    // Class 0 is never dropped, so nothing may tell that it was.
    return eventClass === CLASS_CRITICAL ? [] : [{ class: eventClass, to: event['cordon.gap.to'] }]
  })
}

function foreignOf(events: readonly CordonEvent[], agentId: string): VerifiedBatch['foreign'] {
  const own = agentId.slice(0, 8)
  for (const event of events) {
    const entityId = 'process.entity_id' in event ? event['process.entity_id'] : undefined
    if (entityId !== undefined && !entityId.startsWith(own))
      return { action: event['event.action'], entityId }
  }
  return null
}
