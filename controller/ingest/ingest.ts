/**
 * Takes the agents' batches: has every body held against the schema and the hash chain, stores, answers.
 * What an agent says is stored under the identity of its certificate, and nothing it says can change that.
 */
import type { EventClass } from '../../shared/events/delivery-class.ts'
import type { Logger } from '../../shared/node/logger.ts'
import type { AgentMessage, BatchHeader, ControllerMessage } from '../../shared/protocol/messages.ts'
import type { AppendResult, EventStore, IncomingBatch } from '../store/event-store.ts'
import type { Verify } from './verifier.ts'
import type { VerifiedBatch } from './verify.ts'

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
  /** The agent knows as stored what the controller does not have: its folder was put back, or lost. */
  | 'controllerBehind'
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
  /** Gives verdicts in the order of the calls. */
  readonly verify: Verify
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
  /**
   * Resolves after the commit. Batches of one connection are stored in the order of the calls. Rejects only when
   * there is nobody to check them any more.
   */
  take(position: StreamPosition, frame: Uint8Array): Promise<TakeResult>
}

export function createIngest(options: IngestOptions): Ingest {
  const { store, verify, onAlert, logger } = options
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

  const place = (position: StreamPosition, batch: VerifiedBatch): IncomingBatch => {
    const { agentId } = position
    const { header, foreign, rows, notable } = batch
    if (foreign) onAlert('foreignEntity', agentId, `${foreign.action} event of entity ${foreign.entityId}`)
    noteGaps(position, batch.gaps)
    const eventClass = header.class as EventClass
    return {
      agentId,
      streamId: header.streamId,
      class: eventClass,
      firstSequence: header.firstSequence,
      allowFrom: position.oldest.get(eventClass) ?? 1,
      rows,
      notable,
      previousHash: header.previousHash,
      lastHash: header.lastHash,
      receivedMs: clock(),
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
      for (const { class: eventClass, acknowledged } of hello.watermarks) {
        const sequence = stored.find((mark) => mark.class === eventClass)?.sequence ?? 0
        if (sequence >= acknowledged) continue
        onAlert(
          'controllerBehind',
          agentId,
          `class ${eventClass}: the agent has ${acknowledged} acknowledged, stored is up to ${sequence}; it sends again what it still has`,
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
      const { agentId } = position
      const verdict = await verify(frame, position)
      switch (verdict.kind) {
        case 'malformed':
          return { kind: 'malformed', reason: verdict.reason }
        case 'chainBroken': {
          const { header } = verdict
          onAlert('chainBroken', agentId, `class ${header.class}, sequence ${header.firstSequence} on`)
          return answer(refusal(header, 'malformed', 'the bodies do not lead to the hash of the batch'))
        }
        case 'invalidEvent':
          return answer(refusal(verdict.header, 'invalidEvent', verdict.reason))
        case 'verified':
          return answer(await append(place(position, verdict.batch)))
      }
    },
  }
}

/** A GAP event says that rows before its end will not come. */
function noteGaps(position: StreamPosition, gaps: VerifiedBatch['gaps']): void {
  for (const { class: eventClass, to } of gaps) {
    const known = position.oldest.get(eventClass) ?? 1
    position.oldest.set(eventClass, Math.max(known, to + 1))
  }
}

function lastOf(batch: IncomingBatch): number {
  return batch.firstSequence + batch.rows.count - 1
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
