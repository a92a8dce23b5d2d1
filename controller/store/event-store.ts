/**
 * The event store as the rest of the controller sees it. The embedded one keeps hourly SQLite files in a
 * worker thread; a larger fleet puts another engine behind the same interface.
 */
import type { EventClass } from '../../shared/events/delivery-class.ts'
import type { CordonEvent, DetectionEvent, EventAction } from '../../shared/events/event.ts'

/** Opaque position in the order of arrival. Compares as text; `''` is before the first event. */
export type Cursor = string

/** A query that was given up: the store is asked by many, and none of them may hold up the others. */
export class QueryTooLong extends Error {
  readonly code = 'CORDON_QUERY_TOO_LONG'
  constructor() {
    super('the query took too long: ask for a shorter time or fewer events')
  }
}

/** Rows in the form that crosses threads cheaply: one buffer, and one text. */
export interface PackedRows {
  readonly count: number
  /** As the agent packed them (shared/node/payload.ts), already validated. Its buffer is moved to the writer. */
  readonly payload: Uint8Array<ArrayBuffer>
  /** Of what the payload holds. */
  readonly payloadBytes: number
  /** JSON of a flat list, `COLUMNS_PER_EVENT` values per event: cheaper to pass than a cloned list. */
  readonly columns: string
}

/** A row that has an effect on more than the store, and what the fleet's own indicators find in it. */
export interface NotableRow {
  readonly row: number
  readonly event: CordonEvent
  readonly detections: readonly DetectionEvent[]
}

export interface IncomingBatch {
  readonly agentId: string
  readonly streamId: string
  readonly class: EventClass
  readonly firstSequence: number
  /**
   * Oldest sequence the agent can still send, as its hello or a GAP event of the stream tells; 1 when it lost
   * nothing. The stream may go on at most here although rows before it never came.
   */
  readonly allowFrom: number
  readonly rows: PackedRows
  /** For whoever follows the store, in order; the other rows are of no interest to them. */
  readonly notable: readonly NotableRow[]
  /** Hash chain before the first and after the last row, lower-case hex, already verified against the bodies. */
  readonly previousHash: string
  readonly lastHash: string
  readonly receivedMs: number
}

export type AppendResult =
  /**
   * Committed to disk. `duplicates` of the batch's rows had been stored before and were left out; `skipped`
   * sequences before it never came and, because of `allowFrom`, never will.
   */
  | {
      readonly kind: 'stored'
      readonly sequence: number
      readonly duplicates: number
      readonly skipped: number
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
  /** Any of these. One query for many is one walk through an hour that has no indexes yet, instead of many. */
  readonly actions?: readonly EventAction[]
  readonly entityIds?: readonly string[]
  readonly parentEntityIds?: readonly string[]
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
  /** Ids of the streams the agent ever sent. More than one: its buffer was lost or set aside at some time. */
  streams(agentId: string): Promise<readonly string[]>
  /** Events after the cursor in order of arrival, at most `rowsMax`. */
  readAfter(cursor: Cursor, rowsMax: number): Promise<readonly StoredEvent[]>
  /** Rejects when the answer would take longer than the store's time budget for one query. */
  query(query: EventQuery): Promise<readonly StoredEvent[]>
  /** Number of stored events, by class. */
  counts(): Promise<readonly { class: EventClass; rows: number }[]>
  close(): Promise<void>
}

export interface NotableEvent extends StoredEvent {
  readonly detections: readonly DetectionEvent[]
}

/** A part of the store in order of arrival. Everything up to the cursor that is not among the events is ordinary. */
export interface Stretch {
  /** Where it ends. */
  readonly cursor: Cursor
  readonly events: readonly NotableEvent[]
}

/** How detection and correlation follow the store: what they have not seen yet, in order of arrival. */
export interface EventTail {
  /**
   * What comes after the cursor, with at most `rowsMax` events; waits for the next commit when there is nothing
   * yet. Resolves with the same cursor and no events only when `signal` aborts.
   */
  next(cursor: Cursor, rowsMax: number, signal: AbortSignal): Promise<Stretch>
}
