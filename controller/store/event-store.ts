/**
 * The event store as the rest of the controller sees it. The embedded one keeps hourly SQLite files in a
 * worker thread; a larger fleet puts another engine behind the same interface.
 */
import type { CordonEvent, EventAction, EventClass } from '../../shared/events/event.ts'

/** Opaque position in the order of arrival. Compares as text; `''` is before the first event. */
export type Cursor = string

export interface IncomingBatch {
  readonly agentId: string
  readonly streamId: string
  readonly class: EventClass
  readonly firstSequence: number
  /** Exact bytes as the agent wrote them, already validated, in order. */
  readonly bodies: readonly Uint8Array[]
  /** The same, parsed. */
  readonly events: readonly CordonEvent[]
  /** Hash chain before the first and after the last row, lower-case hex, already verified against the bodies. */
  readonly previousHash: string
  readonly lastHash: string
  readonly receivedMs: number
}

export type AppendResult =
  /** Committed to disk. `duplicates` of the batch's rows had been stored before and were left out. */
  | {
      readonly kind: 'stored'
      readonly sequence: number
      readonly duplicates: number
      readonly cursor: Cursor
    }
  /** The batch does not start where the stream ends. */
  | { readonly kind: 'gap'; readonly expectedSequence: number }
  /** Same sequence, other content: somebody rewrote the agent's history. */
  | { readonly kind: 'hashMismatch'; readonly expectedSequence: number }
  | { readonly kind: 'failed'; readonly cause: Error }

export interface StoredEvent {
  readonly cursor: Cursor
  readonly agentId: string
  readonly streamId: string
  readonly class: EventClass
  readonly sequence: number
  readonly receivedMs: number
  readonly event: CordonEvent
}

/** Every condition given must hold. Times are milliseconds since 1970 of the event's own time stamp. */
export interface EventQuery {
  readonly agentId?: string
  readonly action?: EventAction
  readonly entityId?: string
  readonly parentEntityId?: string
  readonly sha256?: string
  readonly destinationAddress?: string
  readonly path?: string
  /** Substring of the body, case-sensitive. */
  readonly contains?: string
  readonly fromMs?: number
  readonly toMs?: number
  /** Only events that arrived after (or, when descending, before) this position. */
  readonly after?: Cursor
  readonly order?: 'ascending' | 'descending'
  /** At most 10,000. */
  readonly limit: number
}

export interface StreamWatermark {
  readonly class: EventClass
  readonly sequence: number
  readonly hash: string
}

export interface EventStore {
  /** Resolves after the commit is on disk. Batches of one (agent, stream, class) are appended in order. */
  append(batch: IncomingBatch): Promise<AppendResult>
  watermarks(agentId: string, streamId: string): Promise<readonly StreamWatermark[]>
  /** Events after the cursor in order of arrival, at most `rowsMax`. */
  readAfter(cursor: Cursor, rowsMax: number): Promise<readonly StoredEvent[]>
  query(query: EventQuery): Promise<readonly StoredEvent[]>
  /** Number of stored events, by class. */
  counts(): Promise<readonly { class: EventClass; rows: number }[]>
  close(): Promise<void>
}
