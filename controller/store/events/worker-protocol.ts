/** Messages between the store on the main thread and its worker threads. */
import type { EventClass } from '../../../shared/events/delivery-class.ts'
import type { Cursor, EventQuery, PackedRows, StoredEvent, StreamWatermark } from '../event-store.ts'
import type { FileHour } from './event-file.ts'

export interface PackedBatch extends PackedRows {
  readonly agentId: string
  readonly streamId: string
  readonly class: EventClass
  readonly firstSequence: number
  readonly allowFrom: number
  readonly receivedMs: number
  readonly previousHash: string
  readonly lastHash: string
}

export type PackedResult =
  | {
      readonly kind: 'stored'
      readonly sequence: number
      readonly duplicates: number
      readonly skipped: number
      readonly hour: FileHour
      /** Id of the newest event of the file; the batch's new rows end at it. */
      readonly lastEvent: number
    }
  | { readonly kind: 'gap'; readonly expectedSequence: number }
  | { readonly kind: 'hashMismatch'; readonly expectedSequence: number }
  | { readonly kind: 'failed'; readonly message: string }

/** A stored row as the reader finds it; the main thread parses the body. */
export interface PackedRow extends Omit<StoredEvent, 'event'> {
  readonly body: string
}

export interface SearchRequest {
  readonly query: EventQuery
  readonly budgetMs: number
}

export interface SearchAnswer {
  readonly rows: readonly PackedRow[]
  /** False when time or bytes ran out before the limit was reached or the files ended. */
  readonly complete: boolean
}

export interface Dropped {
  readonly hours: readonly FileHour[]
  /** When the oldest batch that is left arrived; null when nothing is left, or it cannot be read. */
  readonly oldestMs: number | null
}

export type ClassCount = { class: EventClass; rows: number }

/** Every call a worker answers, with what it takes and gives. */
export interface WorkerCalls {
  append: { takes: PackedBatch; gives: PackedResult }
  watermarks: { takes: { agentId: string; streamId: string }; gives: readonly StreamWatermark[] }
  streams: { takes: { agentId: string }; gives: readonly string[] }
  drop: { takes: { hours: readonly FileHour[] }; gives: Dropped }
  readAfter: { takes: { cursor: Cursor; rowsMax: number }; gives: readonly PackedRow[] }
  search: { takes: SearchRequest; gives: SearchAnswer }
  counts: { takes: null; gives: readonly ClassCount[] }
  forget: { takes: { hours: readonly FileHour[] }; gives: null }
  seal: { takes: { hour: FileHour }; gives: null }
  close: { takes: null; gives: null }
}

export type WorkerCall = keyof WorkerCalls
export type WorkerRequest = {
  [Call in WorkerCall]: {
    readonly id: number
    readonly call: Call
    readonly takes: WorkerCalls[Call]['takes']
  }
}[WorkerCall]

export type WorkerReply =
  | { readonly id: number; readonly ok: true; readonly gives: unknown }
  | { readonly id: number; readonly ok: false; readonly message: string }

export type WorkerMessage =
  | { readonly kind: 'ready'; readonly head: Cursor; readonly unsealed: readonly FileHour[] }
  | { readonly kind: 'replies'; readonly replies: readonly WorkerReply[] }
  | {
      readonly kind: 'log'
      readonly level: 'info' | 'warn' | 'error'
      readonly text: string
      readonly detail: Record<string, unknown>
    }
  /** The writer moved on: this file will not be written again. */
  | { readonly kind: 'rolled'; readonly hour: FileHour }

export type WorkerRole = 'writer' | 'reader' | 'sealer'

export interface WorkerOptions {
  readonly role: WorkerRole
  readonly folder: string
  readonly groupMs: number
  readonly fileRowsMax?: number
}

export type WorkerLog = (
  level: 'info' | 'warn' | 'error',
  text: string,
  detail?: Record<string, unknown>,
) => void
