/**
 * Takes the agents' batches: decodes, holds every body against the schema and the hash chain, stores, answers.
 * What an agent says is stored under the identity of its certificate, and nothing it says can change that.
 */
import { isUtf8 } from 'node:buffer'
import {
  CLASS_CRITICAL,
  CLASS_OF_ACTION,
  type CordonEvent,
  type EventClass,
} from '../../shared/events/event.ts'
import { decodeBatch, verifyChain } from '../../shared/node/batch.ts'
import type { Logger } from '../../shared/node/logger.ts'
import type { AgentMessage, BatchHeader, ControllerMessage } from '../../shared/protocol/messages.ts'
import { parseEvent } from '../../shared/protocol/parse.ts'
import type { AppendResult, EventStore, IncomingBatch } from '../store/event-store.ts'

export type Hello = Extract<AgentMessage, { kind: 'hello' }>
export type BatchAnswer = Extract<ControllerMessage, { kind: 'acknowledgement' | 'batchRefused' }>
type Refusal = Extract<ControllerMessage, { kind: 'batchRefused' }>

/** What an agent did that it should not; the words go into the audit log. */
export type IngestAlert =
  /** Stored sequences came again with other content. */
  | 'historyRewritten'
  /** The bodies of a batch do not lead to the hash it says. */
  | 'chainBroken'
  /** The controller has more of the stream than the agent: its buffer was rolled back, or the agent cloned. */
  | 'watermarkAhead'
  /** A known agent starts over with a new stream: its buffer was deleted or set aside. */
  | 'streamReplaced'
  /** A body speaks of processes of another agent. */
  | 'foreignEntity'

/** One connection's place in its stream. */
export interface StreamPosition {
  readonly agentId: string
  readonly streamId: string
  /** Oldest sequence that can still come, by class, as hello and GAP events told it. */
  readonly oldest: Map<EventClass, number>
}

export type TakeResult =
  | { readonly kind: 'answer'; readonly message: BatchAnswer }
  /** Not a batch of this connection at all: there is nothing to answer, the connection ends. */
  | { readonly kind: 'malformed'; readonly reason: string }

export interface IngestOptions {
  readonly store: Pick<EventStore, 'append' | 'watermarks' | 'streams'>
  /** After the commit; rows that had been stored before are in `batch` too, `result` counts them. */
  readonly onStored?: (batch: IncomingBatch, result: Extract<AppendResult, { kind: 'stored' }>) => void
  readonly onAlert: (kind: IngestAlert, agentId: string, detail: string) => void
  readonly logger: Logger
  readonly clock?: () => number
}

export interface Ingest {
  /** Where the stream of this hello stands, for the welcome. Rejects when the store cannot say. */
  open(
    agentId: string,
    hello: Hello,
  ): Promise<{
    readonly position: StreamPosition
    readonly watermarks: readonly { readonly class: EventClass; readonly sequence: number }[]
  }>
  /** Resolves after the commit. Batches of one connection are stored in the order of the calls. Never rejects. */
  take(position: StreamPosition, frame: Uint8Array): Promise<TakeResult>
}

export function createIngest(options: IngestOptions): Ingest {
  const { store, onAlert, logger } = options
  const clock = options.clock ?? Date.now

  const append = async (batch: IncomingBatch): Promise<BatchAnswer> => {
    const { agentId } = batch
    const result = await store.append(batch)
    switch (result.kind) {
      case 'stored':
        if (result.skipped > 0) {
          const { streamId, class: eventClass, firstSequence } = batch
          logger.info(
            { agentId, streamId, class: eventClass, firstSequence, skipped: result.skipped },
            'a stream goes on after rows that its agent lost',
          )
        }
        options.onStored?.(batch, result)
        return {
          kind: 'acknowledgement',
          streamId: batch.streamId,
          class: batch.class,
          sequence: result.sequence,
        }
      case 'gap':
        return refusal(batch, 'gap', `sequence ${result.expectedSequence} is next`, result.expectedSequence)
      case 'hashMismatch':
        onAlert(
          'historyRewritten',
          agentId,
          `class ${batch.class}, sequences ${batch.firstSequence} to ${lastOf(batch)}: other content than before`,
        )
        return refusal(
          batch,
          'hashMismatch',
          'this is not how the stored stream goes on',
          result.expectedSequence,
        )
      case 'failed':
        logger.error({ agentId, error: result.cause.message }, 'a batch could not be stored')
        return refusal(batch, 'storeFailed', 'the event store took nothing')
    }
  }

  return {
    async open(agentId, hello) {
      const { streamId } = hello
      const [stored, streams] = await Promise.all([
        store.watermarks(agentId, streamId),
        store.streams(agentId),
      ])
      if (streams.length > 0 && !streams.includes(streamId)) {
        onAlert(
          'streamReplaced',
          agentId,
          `stream ${streamId} is new; the agent had ${streams.length} before`,
        )
      }
      for (const { class: eventClass, sequence } of stored) {
        const last = hello.watermarks.find((mark) => mark.class === eventClass)?.last ?? 0
        if (sequence <= last) continue
        onAlert(
          'watermarkAhead',
          agentId,
          `class ${eventClass}: sequence ${sequence} is stored, the agent's newest is ${last}`,
        )
      }
      const oldest = new Map(
        hello.watermarks.map(({ class: eventClass, first }) => [eventClass as EventClass, first]),
      )
      return {
        position: { agentId, streamId, oldest },
        watermarks: stored.map(({ class: eventClass, sequence }) => ({ class: eventClass, sequence })),
      }
    },

    async take(position, frame) {
      const decoded = decodeBatch(frame)
      if (!decoded.ok) return { kind: 'malformed', reason: decoded.reason }
      const { header, bodies } = decoded
      if (header.streamId !== position.streamId) {
        return { kind: 'malformed', reason: 'the batch is of another stream than the hello' }
      }
      const { agentId } = position
      if (!verifyChain(header, bodies)) {
        onAlert('chainBroken', agentId, `class ${header.class}, sequence ${header.firstSequence} on`)
        return answer(refusal(header, 'malformed', 'the bodies do not lead to the hash of the batch'))
      }
      const read = readEvents(header, bodies)
      if (!read.ok) return answer(refusal(header, 'invalidEvent', read.reason))
      const foreign = read.events.find((event) => isForeign(event, agentId))
      if (foreign) {
        onAlert('foreignEntity', agentId, `${foreign['event.action']} event of entity ${entityOf(foreign)}`)
      }
      noteGaps(position, read.events)
      const eventClass = header.class as EventClass
      return answer(
        await append({
          agentId,
          streamId: header.streamId,
          class: eventClass,
          firstSequence: header.firstSequence,
          allowFrom: position.oldest.get(eventClass) ?? 1,
          bodies,
          events: read.events,
          previousHash: header.previousHash,
          lastHash: header.lastHash,
          receivedMs: clock(),
        }),
      )
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
function noteGaps(position: StreamPosition, events: readonly CordonEvent[]): void {
  for (const event of events) {
    if (event['event.action'] !== 'gap' || event['cordon.gap.to'] === undefined) continue
    const eventClass = event['cordon.gap.class'] as EventClass
    // Class 0 is never dropped, so nothing may tell that it was.
    if (eventClass === CLASS_CRITICAL) continue
    const known = position.oldest.get(eventClass) ?? 1
    position.oldest.set(eventClass, Math.max(known, event['cordon.gap.to'] + 1))
  }
}

function entityOf(event: CordonEvent): string | undefined {
  return 'process.entity_id' in event ? event['process.entity_id'] : undefined
}

function isForeign(event: CordonEvent, agentId: string): boolean {
  const entity = entityOf(event)
  return entity !== undefined && !entity.startsWith(agentId.slice(0, 8))
}

function lastOf(batch: IncomingBatch): number {
  return batch.firstSequence + batch.bodies.length - 1
}

function answer(message: BatchAnswer): TakeResult {
  return { kind: 'answer', message }
}

function refusal(
  batch: Pick<BatchHeader, 'streamId' | 'class' | 'firstSequence'>,
  code: Refusal['code'],
  reason: string,
  expectedSequence = batch.firstSequence,
): Refusal {
  return {
    kind: 'batchRefused',
    streamId: batch.streamId,
    class: batch.class,
    firstSequence: batch.firstSequence,
    expectedSequence,
    code,
    reason: reason.slice(0, 512),
  }
}
