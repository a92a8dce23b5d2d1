/**
 * Finds two histories of one stream that go on side by side: the work of two hosts with one identity.
 *
 * A buffer that was rolled back, or a restored snapshot, shows once that its history is not the stored one, and
 * begins a new stream; nobody is left to carry the stored history on. When somebody does after that, by its hash
 * chain, there is a second host. Marks are in memory: after a restart the next divergence makes them anew.
 */
import type { EventClass } from '../../shared/events/delivery-class.ts'
import type { AppendResult, IncomingBatch } from '../store/event-store.ts'
import type { Ingest, IngestOptions } from './ingest.ts'

const MARKS_MAX = 10_000

export interface HistoryWatch {
  /** The store, with its answers looked at. */
  store(store: IngestOptions['store']): IngestOptions['store']
  /** Ingest, with what a hello says held against what is stored. */
  sink(ingest: Ingest): Ingest
}

export function createHistoryWatch(options: {
  readonly onForked: (agentId: string, detail: string) => void
  /** How each attempt to store ended: null when it worked. */
  readonly noteStorage: (part: 'events', cause: unknown) => void
}): HistoryWatch {
  /** The next sequence of the stored history, by agent, stream and class, where another was shown. */
  const marks = new Map<string, number>()

  const mark = (key: string, expectedSequence: number) => {
    marks.delete(key)
    marks.set(key, expectedSequence)
    const oldest = marks.keys().next().value
    if (marks.size > MARKS_MAX && oldest !== undefined) marks.delete(oldest)
  }

  const look = (batch: Pick<IncomingBatch, 'agentId' | 'streamId' | 'class'>, result: AppendResult) => {
    if (result.kind === 'failed') options.noteStorage('events', result.cause)
    if (result.kind === 'stored') options.noteStorage('events', null)
    const key = keyOf(batch.agentId, batch.streamId, batch.class)
    if (result.kind === 'hashMismatch') mark(key, result.expectedSequence)
    const expected = marks.get(key)
    if (result.kind !== 'stored' || expected === undefined || result.sequence < expected) return
    marks.delete(key)
    // After rows that were told as lost the chain goes on from what the agent says: that proves nothing.
    if (result.skipped > 0) return
    options.onForked(
      batch.agentId,
      `class ${batch.class}: another history was shown from sequence ${expected} on, and the stored one goes on`,
    )
  }

  return {
    store: ({ append, watermarks, streams }) => ({
      watermarks,
      streams,
      async append(batch) {
        const { agentId, streamId, class: eventClass } = batch
        const result = await append(batch)
        look({ agentId, streamId, class: eventClass }, result)
        return result
      },
    }),
    sink: (ingest) => ({
      take: ingest.take,
      async open(agentId, hello) {
        const opened = await ingest.open(agentId, hello)
        for (const { class: eventClass, sequence } of opened.watermarks) {
          const last = hello.watermarks.find((one) => one.class === eventClass)?.last ?? 0
          if (sequence > last) mark(keyOf(agentId, hello.streamId, eventClass), sequence + 1)
        }
        return opened
      },
    }),
  }
}

function keyOf(agentId: string, streamId: string, eventClass: EventClass): string {
  return `${agentId} ${streamId} ${eventClass}`
}
