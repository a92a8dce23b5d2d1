/**
 * The buffer's file through all its fates: opened, written, full, without a disk, damaged, replaced. Nothing
 * here throws for what a disk does; `trouble` says what is wrong while something is.
 */
import { CLASS_CRITICAL, EVENT_CLASSES, type EventClass } from '../../shared/events/delivery-class.ts'
import type { Logger } from '../../shared/node/logger.ts'
import { growBallast, shrinkBallast } from './ballast.ts'
import {
  createDelivery,
  type Delivery,
  gapRow,
  type Lease,
  type ResumeResult,
  type Watermark,
} from './delivery.ts'
import { bornMs, diskBytes, fileIdentity, lastAliveMs, setFileAside } from './file.ts'
import { CapReached, commitGroup } from './group-commit.ts'
import { type Loss, tamperEvent } from './own-events.ts'
import type { Pending } from './pending.ts'
import { createRoom, type Room } from './room.ts'
import { type BufferRows, openRows, type PendingRow } from './rows.ts'
import { PAGE_BYTES, type SpacePlan } from './size.ts'
import { isDamage } from './stream-state.ts'

export interface StorageOptions {
  readonly path: string
  readonly bytesMax: number
  readonly reservedBytes: number
  readonly logger: Logger
  readonly clock: () => number
  readonly plan: SpacePlan
  readonly pending: Pending
}

const CRASH_REASON =
  'the agent stopped without warning: what it had seen and not yet committed is lost, and until now it saw nothing'

/** How long the disk counts as full after it refused a write: meanwhile new rows take the place of old ones. */
const FULL_DISK_MS = 30_000
const BALLAST_STEPS = 4

export function createStorage(options: StorageOptions): Storage {
  return new Storage(options)
}

/** The opened file, as one thing: it comes and goes whole. */
interface OpenFile {
  readonly rows: BufferRows
  readonly room: Room
  readonly delivery: Delivery
  readonly identity: string | null
}

export class Storage {
  readonly #options: StorageOptions
  readonly #ballastPath: string
  #file: OpenFile | null = null
  #trouble: { readonly sinceMs: number; readonly reason: string } | null = null
  /** Pages the file had when the disk refused to give more, and when. */
  #full: { readonly pages: number; readonly sinceMs: number } | null = null
  #dropped = 0
  #streamId = '0'.repeat(32)
  #opened = false
  /** After a crash: the last time from which on all that was seen is numbered. Null once it sees again. */
  #blindSinceMs: number | null = null

  constructor(options: StorageOptions) {
    this.#options = options
    this.#ballastPath = `${options.path}.reserve`
  }

  /** What keeps events from the disk at the moment, or null. */
  get trouble(): { readonly sinceMs: number; readonly reason: string } | null {
    return this.#trouble
  }

  get droppedRows(): number {
    return this.#dropped
  }

  get streamId(): string {
    return this.#streamId
  }

  /** Opens the file; a damaged one is set aside. Throws only when a newer program wrote it. */
  open(): void {
    try {
      this.#adopt(this.#openRows())
      growBallast(this.#ballastPath, this.#ballastWanted())
    } catch (error) {
      if (!isDamage(error) && !isSqliteError(error)) throw error
      this.#meet(error)
    }
  }

  /** Commits what is pending. True when rows were written. */
  commit(): boolean {
    const { pending, logger } = this.#options
    if (pending.rowCount === 0 && pending.losses().length === 0 && !this.#trouble) return false
    const hadTrouble = this.#trouble !== null
    for (let attempt = 0; attempt < 2; attempt += 1) {
      try {
        this.#write(EVENT_CLASSES)
        this.#trouble = null
        return true
      } catch (error) {
        this.#meet(error)
        // A damaged file was replaced by a new one, which takes everything.
        if (!isDamage(error)) break
      }
    }
    if (!hadTrouble && this.#trouble) logger.error(this.#trouble, 'the buffer cannot be written')
    return this.#commitCritical()
  }

  lease(eventClass: EventClass, rowsMax: number, bytesMax: number): Lease | null {
    return this.#deliver((delivery) => delivery.lease(eventClass, rowsMax, bytesMax), null)
  }

  tellLosses(): void {
    this.#deliver((delivery) => delivery.tellLosses(), undefined)
  }

  acknowledge(eventClass: EventClass, sequence: number): void {
    this.#file?.delivery.acknowledge(eventClass, sequence)
  }

  rewind(eventClass: EventClass, sequence: number): void {
    this.#file?.delivery.rewind(eventClass, sequence)
  }

  resume(marks: readonly { readonly class: number; readonly sequence: number }[]): ResumeResult {
    return this.#deliver((delivery) => delivery.resume(marks), { kind: 'resumed' })
  }

  setAside(eventClass: EventClass, from: number, to: number, reason: string): void {
    this.#dropped += this.#deliver((delivery) => delivery.setAside(eventClass, from, to, reason), 0)
  }

  /** Sets the file aside, starts a new stream, and leaves the telling of it pending. */
  replace(reason: string): void {
    const { path, pending, logger } = this.#options
    const nowMs = this.#now()
    const losses = this.#undelivered(nowMs)
    this.#closeQuietly()
    try {
      const aside = setFileAside(path, nowMs)
      logger.error({ reason, aside }, 'the buffer was set aside and a new stream begun')
      pending.add(CLASS_CRITICAL, tamperRow(`${reason}; the old buffer is kept as ${aside}`, nowMs))
      for (const loss of losses) pending.lose(loss)
      this.#adopt(this.#openRows())
    } catch (error) {
      this.#fail(error)
    }
  }

  waiting(eventClass: EventClass): number {
    return this.#file?.delivery.waiting(eventClass) ?? 0
  }

  watermarks(): readonly Watermark[] {
    return (
      this.#file?.delivery.watermarks() ??
      EVENT_CLASSES.map((eventClass) => ({ class: eventClass, first: 1, last: 0, acknowledged: 0 }))
    )
  }

  /** Bytes of the database and its log. */
  bytes(): number {
    return diskBytes(this.#options.path)
  }

  /** Once a second: notices a file that was taken away, and takes the reserve back. True: something is to tell. */
  tend(): boolean {
    if (this.#file && fileIdentity(this.#options.path) !== this.#file.identity) {
      this.replace('the buffer file was removed or replaced while the agent ran')
      return true
    }
    if (this.#full && this.#now() - this.#full.sinceMs > FULL_DISK_MS) this.#full = null
    if (this.#file && !this.#trouble && !this.#full) growBallast(this.#ballastPath, this.#ballastWanted())
    return false
  }

  close(): void {
    try {
      this.#file?.delivery.tellLosses()
      this.#file?.rows.close(this.#now())
    } catch (error) {
      this.#options.logger.warn({ error: textOf(error) }, 'the buffer was not closed in order')
      this.#closeQuietly()
    }
    this.#file = null
  }

  #now(): number {
    return this.#options.clock()
  }

  /** What a commit notes as its time: a second crash before it sees again begins where the first one did. */
  readonly #sightClock = (): number => this.#blindSinceMs ?? this.#now()

  #openRows(): BufferRows {
    const { path, plan } = this.#options
    return openRows({
      path,
      nowMs: this.#now(),
      checkpointPages: plan.checkpointPages,
    })
  }

  #adopt(rows: BufferRows): void {
    const room = createRoom(rows, this.#options.plan)
    const delivery = createDelivery(rows, room, this.#options.clock, this.#sightClock)
    this.#file = { rows, room, delivery, identity: fileIdentity(this.#options.path) }
    this.#streamId = rows.streamId
    if (rows.uncleanSinceMs !== null && !this.#opened) {
      this.#blindSinceMs = Math.max(rows.uncleanSinceMs, lastAliveMs(`${this.#options.path}.alive`))
    }
    this.#opened = true
  }

  get isBlind(): boolean {
    return this.#blindSinceMs !== null
  }

  /** After a crash, once it sees again: leaves the telling of the time between pending. */
  sees(): void {
    if (this.#blindSinceMs === null) return
    const nowMs = this.#now()
    const startedMs = Math.min(nowMs, this.#blindSinceMs)
    this.#blindSinceMs = null
    const unknown = { count: null, bytes: null, startedMs, endedMs: nowMs, reason: CRASH_REASON }
    for (const eventClass of EVENT_CLASSES) {
      // Class 0 is on disk before its cause goes on.
      if (eventClass !== CLASS_CRITICAL) {
        this.#options.pending.add(CLASS_CRITICAL, gapRow({ class: eventClass, ...unknown }, nowMs))
      }
    }
  }

  /** Runs a delivery step; `otherwise` when there is no file or the disk refuses. */
  #deliver<Result>(step: (delivery: Delivery) => Result, otherwise: Result): Result {
    if (!this.#file) return otherwise
    try {
      return step(this.#file.delivery)
    } catch (error) {
      this.#meet(error)
      return otherwise
    }
  }

  /** Commits the pending rows of the classes and all that was lost. */
  #write(classes: readonly EventClass[]): void {
    if (!this.#file) this.open()
    const file = this.#file
    if (!file) throw new Error(this.#trouble?.reason ?? 'the buffer is not open')
    const { plan, path, bytesMax, pending } = this.#options
    this.#dropped += commitGroup(file, classes, {
      plan,
      pending,
      clock: this.#sightClock,
      // The log cannot shrink while a reader holds it: what is then written only makes it grow.
      logIsHeld: diskBytes(path) > bytesMax && file.rows.emptyLog() === 'held',
      ordinaryBytes: this.#full
        ? Math.min(plan.ordinaryBytes, this.#full.pages * PAGE_BYTES)
        : plan.ordinaryBytes,
    })
    if (pagesOf(file.rows) * PAGE_BYTES > plan.ordinaryBytes) {
      shrinkBallast(this.#ballastPath, this.#ballastWanted())
    }
  }

  /** On a full disk: gives the reserve back piece by piece until the events of class 0 are written. */
  #commitCritical(): boolean {
    const { pending, reservedBytes } = this.#options
    for (let step = BALLAST_STEPS; step >= 0; step -= 1) {
      if (pending.rowsOf(CLASS_CRITICAL).length === 0 && pending.losses().length === 0) return false
      try {
        this.#write([CLASS_CRITICAL])
        return true
      } catch (error) {
        if (error instanceof CapReached || !isSpent(error)) return false
        shrinkBallast(this.#ballastPath, Math.floor((reservedBytes * (step - 1)) / BALLAST_STEPS))
        // The log's blocks can be written again once it is in the database.
        this.#file?.rows.emptyLog()
      }
    }
    return false
  }

  /** Bytes of reserve that the cap leaves room for, less what class 0 already took of it. */
  #ballastWanted(): number {
    const { plan, reservedBytes } = this.#options
    const pageBytes = this.#file ? pagesOf(this.#file.rows) * PAGE_BYTES : 0
    return Math.max(0, reservedBytes - Math.max(0, pageBytes - plan.ordinaryBytes))
  }

  /** An error of the file: a damaged one is replaced, any other is trouble that may pass. */
  #meet(error: unknown): void {
    if (isDamage(error)) this.replace(`the buffer was damaged (${textOf(error)})`)
    else this.#fail(error)
  }

  #fail(error: unknown): void {
    this.#trouble = { sinceMs: this.#trouble?.sinceMs ?? this.#now(), reason: textOf(error) }
    if (this.#file && isSpent(error)) {
      this.#full = { pages: pagesOf(this.#file.rows), sinceMs: this.#now() }
    }
  }

  #undelivered(nowMs: number): readonly Loss[] {
    const reason = 'events of the buffer that was set aside were not delivered'
    if (this.#file) return this.#file.delivery.undelivered(reason, nowMs)
    const startedMs = Math.min(nowMs, bornMs(this.#options.path))
    return EVENT_CLASSES.map((eventClass) => ({
      class: eventClass,
      count: null,
      bytes: null,
      startedMs,
      endedMs: nowMs,
      reason,
    }))
  }

  #closeQuietly(): void {
    try {
      this.#file?.rows.db.close()
    } catch {
      // It is set aside as it is.
    }
    this.#file = null
  }
}

function tamperRow(reason: string, nowMs: number): PendingRow {
  return { body: JSON.stringify(tamperEvent(reason, nowMs)), timeMs: nowMs }
}

function pagesOf(rows: BufferRows): number {
  try {
    return Number(rows.db.pragma('page_count', { simple: true }))
  } catch {
    return 0
  }
}

/** The disk gave no more blocks, or failed. */
function isSpent(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  return code === 'SQLITE_FULL' || code.startsWith('SQLITE_IOERR') || code === 'SQLITE_CANTOPEN'
}

function isSqliteError(error: unknown): boolean {
  return error instanceof Error && 'code' in error
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
