/**
 * The buffer: every event of the agent goes through this file before it goes anywhere else. It numbers events
 * per class, chains their hashes, keeps them over crashes and weeks without a controller, and stays within its
 * share of the disk by dropping the least worthy, which it tells in gap events.
 *
 * Invariants: for every class, sequences = delivered or deliverable rows + gap events; `add` never throws,
 * whatever the disk does; events of class 0 are on disk when `add` returns unless the disk takes nothing.
 */
import { Buffer } from 'node:buffer'
import {
  CLASS_CRITICAL,
  CLASS_DETECTION,
  CLASS_OF_ACTION,
  EVENT_CLASSES,
  type EventClass,
} from '../../shared/events/delivery-class.ts'
import type { CordonEvent } from '../../shared/events/event.ts'
import type { Logger } from '../../shared/node/logger.ts'
import { EVENT_BYTES_MAX } from '../../shared/protocol/limits.ts'
import type { Lease, ResumeResult, Watermark } from './delivery.ts'
import { touchAlive } from './file.ts'
import { fitEvent } from './fit.ts'
import { createPending, type Pending } from './pending.ts'
import { planSpace } from './size.ts'
import { createStorage, type Storage } from './storage.ts'

export interface BufferOptions {
  /** The database; `-wal`, `-shm`, `.reserve` and `.alive` lie beside it. */
  readonly path: string
  /** Cap for all of them together (`bufferBytesMax`). */
  readonly bytesMax: number
  /** Part of it for class 0 alone (`reservedBytesFor`). */
  readonly reservedBytes: number
  readonly logger: Logger
  readonly clock?: () => number
  /** Longest time an ordinary event waits for its group's commit. */
  readonly groupMs?: number
  /** Pause between attempts while the disk takes nothing. */
  readonly retryMs?: number
  readonly pendingRowsMax?: number
}

export interface BufferStats {
  readonly streamId: string
  /** Rows on disk or in memory that the controller has not acknowledged. */
  readonly bufferedRows: number
  /** Bytes of database and write-ahead log. */
  readonly bufferedBytes: number
  readonly pendingRows: number
  /** Events lost to a full buffer or a dead disk since this process started. */
  readonly droppedRows: number
  readonly addedRows: number
  /** Why events are not being stored at the moment, or null. */
  readonly trouble: { readonly sinceMs: number; readonly reason: string } | null
  readonly watermarks: readonly Watermark[]
}

const GROUP_ROWS = 1_000
const PENDING_ROWS_MAX = 20_000
const PENDING_CHARACTERS_MAX = 16 * 1024 ** 2
/** Under a storm of detections commits are this far apart: a slow disk must not stop the sensors. */
const URGENT_SPACING_MS = 20
const HEARTBEAT_MS = 1_000
/** While the disk takes nothing, events of class 0 try again this soon. */
const CRITICAL_RETRY_MS = 200

/** Opens or makes the buffer. Throws only when the file was written by a newer program. */
export function openBuffer(options: BufferOptions): EventBuffer {
  return new EventBuffer(options)
}

export class EventBuffer implements Disposable {
  readonly #storage: Storage
  readonly #pending: Pending
  readonly #clock: () => number
  readonly #groupMs: number
  readonly #retryMs: number
  readonly #groupCharacters: number
  readonly #alivePath: string
  readonly #listeners = new Set<() => void>()
  readonly #heartbeat: NodeJS.Timeout
  #timer: { readonly handle: NodeJS.Timeout; readonly dueMs: number } | null = null
  #lastAttemptMs = Number.NEGATIVE_INFINITY
  #added = 0
  #closed = false

  constructor(options: BufferOptions) {
    const plan = planSpace(options.bytesMax, options.reservedBytes)
    this.#clock = options.clock ?? Date.now
    this.#groupMs = options.groupMs ?? 250
    this.#retryMs = options.retryMs ?? 1_000
    this.#groupCharacters = plan.groupBytes
    this.#alivePath = `${options.path}.alive`
    this.#pending = createPending(
      options.pendingRowsMax ?? PENDING_ROWS_MAX,
      Math.min(PENDING_CHARACTERS_MAX, Math.floor(options.bytesMax / 4)),
    )
    this.#storage = createStorage({ ...options, clock: this.#clock, plan, pending: this.#pending })
    this.#storage.open()
    this.flush()
    this.#heartbeat = setInterval(() => this.#beat(), HEARTBEAT_MS)
    this.#heartbeat.unref()
  }

  /** Takes an event. Class 0 is on disk on return, class 1 within 20 ms, others within `groupMs`. */
  add(event: CordonEvent): void {
    if (this.#closed) return
    const eventClass = CLASS_OF_ACTION[event['event.action']]
    this.#added += 1
    this.#enqueue(event, eventClass)
    const sinceAttemptMs = performance.now() - this.#lastAttemptMs
    if (this.#storage.trouble) {
      if (eventClass === CLASS_CRITICAL && sinceAttemptMs > CRITICAL_RETRY_MS) this.flush()
      else this.#schedule(this.#retryMs)
    } else if (eventClass === CLASS_CRITICAL) {
      this.flush()
    } else if (eventClass === CLASS_DETECTION) {
      if (sinceAttemptMs > URGENT_SPACING_MS) this.flush()
      else this.#schedule(URGENT_SPACING_MS)
    } else if (this.#pending.rowCount >= GROUP_ROWS || this.#pending.characters >= this.#groupCharacters) {
      this.flush()
    } else {
      this.#schedule(this.#groupMs)
    }
  }

  /** Commits what waits. On a disk that takes nothing it stays in memory, bounded, and is tried again. */
  flush(): void {
    if (this.#closed) return
    this.#clearTimer()
    const written = this.#storage.commit()
    this.#lastAttemptMs = performance.now()
    if (this.#storage.trouble) this.#schedule(this.#retryMs)
    if (written) for (const listener of [...this.#listeners]) listener()
  }

  /** The sensors are in force. After a crash this is where the blind time ends, which gap events then tell. */
  sees(): void {
    this.#storage.sees()
    this.flush()
  }

  /**
   * Writes what was lost as gap events, which are rows of class 0: they must be sent before rows that follow on
   * lost ones. `lease` does it too.
   */
  tellLosses(): void {
    this.#storage.tellLosses()
  }

  /** The next contiguous rows of a class that are not on their way yet, or null. They are on their way then. */
  lease(eventClass: EventClass, rowsMax: number, bytesMax: number): Lease | null {
    return this.#storage.lease(eventClass, rowsMax, bytesMax)
  }

  /** The controller has everything of the class up to `sequence` on its disk. */
  acknowledge(eventClass: EventClass, sequence: number): void {
    this.#storage.acknowledge(eventClass, sequence)
  }

  /** What is on its way is not any more: the connection ended. */
  rollback(): void {
    for (const eventClass of EVENT_CLASSES) this.rewind(eventClass, 0)
  }

  /** The next lease of the class starts after `sequence`, or after what is acknowledged. */
  rewind(eventClass: EventClass, sequence: number): void {
    this.#storage.rewind(eventClass, sequence)
  }

  /** Starts from what the controller says it has of this stream. `ahead`: it has what this file never had. */
  resume(watermarks: readonly { readonly class: number; readonly sequence: number }[]): ResumeResult {
    const result = this.#storage.resume(watermarks)
    this.flush()
    return result
  }

  /** Gives rows up that the controller refuses for good: they move to the table `refused`, and a gap tells it. */
  setAside(eventClass: EventClass, from: number, to: number, reason: string): void {
    this.#storage.setAside(eventClass, from, to, reason)
    this.flush()
  }

  /** Sets the file aside and starts a stream with a new id, which a tamper event tells with the reason. */
  startNewStream(reason: string): void {
    this.flush()
    this.#storage.replace(reason)
    this.flush()
  }

  /** Rows of a class that wait for a lease; an upper bound where rows were dropped. */
  waiting(eventClass: EventClass): number {
    return this.#storage.waiting(eventClass)
  }

  get streamId(): string {
    return this.#storage.streamId
  }

  watermarks(): readonly Watermark[] {
    return this.#storage.watermarks()
  }

  /** Calls `listener` after each commit of new rows. Returns what ends it. */
  onRows(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  stats(): BufferStats {
    const unacknowledged = this.watermarks().reduce(
      (sum, { last, acknowledged, first }) => sum + Math.max(0, last - Math.max(acknowledged, first - 1)),
      0,
    )
    return {
      streamId: this.streamId,
      bufferedRows: unacknowledged + this.#pending.rowCount,
      bufferedBytes: this.#storage.bytes(),
      pendingRows: this.#pending.rowCount,
      droppedRows: this.#storage.droppedRows + this.#pending.lostRows,
      addedRows: this.#added,
      trouble: this.#storage.trouble,
      watermarks: this.watermarks(),
    }
  }

  /** Commits what waits, notes an orderly end and closes the file. */
  close(): void {
    if (this.#closed) return
    this.sees()
    this.#closed = true
    this.#clearTimer()
    clearInterval(this.#heartbeat)
    this.#listeners.clear()
    this.#storage.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #enqueue(event: CordonEvent, eventClass: EventClass): void {
    const timeMs = Date.parse(event['@timestamp']) || this.#clock()
    let body: string | null = JSON.stringify(event)
    // A UTF-16 unit takes at most three bytes of UTF-8.
    if (body.length * 3 > EVENT_BYTES_MAX && Buffer.byteLength(body) > EVENT_BYTES_MAX) {
      body = fitEvent(event, EVENT_BYTES_MAX)
    }
    if (body !== null) this.#pending.add(eventClass, { body, timeMs })
    else {
      const reason = 'the event was larger than the protocol allows and could not be cut'
      this.#pending.lose({
        class: eventClass,
        count: 1,
        bytes: null,
        startedMs: timeMs,
        endedMs: timeMs,
        reason,
      })
    }
  }

  #beat(): void {
    const keepsUp = this.#pending.rowCount === 0 && !this.#storage.trouble
    if (keepsUp && !this.#storage.isBlind) touchAlive(this.#alivePath, this.#clock())
    if (this.#storage.tend()) this.flush()
  }

  #schedule(delayMs: number): void {
    const dueMs = performance.now() + delayMs
    if (this.#timer && this.#timer.dueMs <= dueMs) return
    this.#clearTimer()
    this.#timer = { handle: setTimeout(() => this.flush(), delayMs).unref(), dueMs }
  }

  #clearTimer(): void {
    if (this.#timer) clearTimeout(this.#timer.handle)
    this.#timer = null
  }
}
