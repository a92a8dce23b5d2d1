/**
 * What of the buffer is delivered, on its way, or still to send. Leases live in memory alone: after a crash or
 * a lost connection everything that is not acknowledged is sent again, and the controller stores it once.
 *
 * Invariant: before rows are sent that follow on dropped ones, the drop is in the rows of class 0.
 */
import { CLASS_CRITICAL, EVENT_CLASSES, type EventClass } from '../../shared/events/delivery-class.ts'
import { gapEvent, type Loss } from './own-events.ts'
import type { Room, TakenRange } from './room.ts'
import type { BufferRows, PendingRow, RowRange } from './rows.ts'

export interface Watermark {
  readonly class: EventClass
  /**
   * Oldest row that is not acknowledged; one past `last` when there is none. Rows before it that the controller
   * does not have will not come: they were delivered to it once, or a gap event tells them.
   */
  readonly first: number
  readonly last: number
  readonly acknowledged: number
}

export interface Lease extends RowRange {
  readonly streamId: string
  readonly class: EventClass
}

export type ResumeResult =
  | { readonly kind: 'resumed' }
  /** The controller has rows that this file never had: it was rolled back, or its identity is used twice. */
  | { readonly kind: 'ahead'; readonly class: EventClass; readonly sequence: number; readonly last: number }

/** Rows that the controller refused, kept for a person. */
const REFUSED_ROWS_KEPT = 500

/** Calls throw SQLite's errors, and have changed nothing then. */
export interface Delivery {
  /** Last sequence on its way, by class. */
  readonly leased: readonly number[]
  lease(eventClass: EventClass, rowsMax: number, bytesMax: number): Lease | null
  acknowledge(eventClass: EventClass, sequence: number): void
  rewind(eventClass: EventClass, sequence: number): void
  resume(marks: readonly { readonly class: number; readonly sequence: number }[]): ResumeResult
  /** Returns how many rows were given up. */
  setAside(eventClass: EventClass, from: number, to: number, reason: string): number
  waiting(eventClass: EventClass): number
  watermarks(): readonly Watermark[]
  /** Rows were dropped, or lost before they had a sequence: events tell it before the next lease. */
  noteLosses(): void
  /** Writes what was lost and no event tells yet as events. */
  tellLosses(): void
  /** What the controller does not have. */
  undelivered(reason: string, nowMs: number): Loss[]
}

/** `commitClock`: what a commit notes as its time. */
export function createDelivery(
  rows: BufferRows,
  room: Room,
  clock: () => number,
  commitClock: () => number,
): Delivery {
  const leased: number[] = EVENT_CLASSES.map((eventClass) => rows.state(eventClass).acknowledged)
  const leasedOf = (eventClass: EventClass) => leased[eventClass] ?? 0
  const refused = refusedStatements(rows)
  let untold = true

  const tell = (losses: readonly Loss[]) => {
    rows.append(
      CLASS_CRITICAL,
      losses.map((loss) => gapRow(loss, clock())),
    )
  }
  const tellLosses = () => {
    if (!untold) return
    const drops = room.openGaps()
    if (drops.length > 0) {
      rows.transact(commitClock(), () => {
        tell(drops)
        room.closeGaps()
      })
    }
    untold = false
  }
  const resumeClass = (eventClass: EventClass, sequence: number) => {
    const state = rows.state(eventClass)
    const goneUpTo = Math.min(state.acknowledged, state.first - 1)
    if (sequence < goneUpTo) {
      const range = { from: sequence + 1, to: goneUpTo }
      const reason = 'the controller lost events that it had acknowledged, and the buffer has them no more'
      const times = { startedMs: rows.createdMs, endedMs: clock() }
      tell([{ class: eventClass, range, count: goneUpTo - sequence, bytes: null, ...times, reason }])
    }
    state.acknowledged = sequence
  }

  return {
    leased,
    tellLosses,
    noteLosses() {
      untold = true
    },
    lease(eventClass, rowsMax, bytesMax) {
      tellLosses()
      const range = rows.read(eventClass, leasedOf(eventClass), rowsMax, bytesMax)
      leased[eventClass] = range?.lastSequence ?? rows.state(eventClass).next - 1
      return range && { ...range, streamId: rows.streamId, class: eventClass }
    },
    acknowledge(eventClass, sequence) {
      const state = rows.state(eventClass)
      // Noted on disk with the next commit: after a crash some rows are sent twice, and stored once.
      state.acknowledged = Math.max(state.acknowledged, Math.min(sequence, state.next - 1))
      leased[eventClass] = Math.max(leasedOf(eventClass), state.acknowledged)
    },
    rewind(eventClass, sequence) {
      leased[eventClass] = Math.max(
        rows.state(eventClass).acknowledged,
        Math.min(leasedOf(eventClass), sequence),
      )
    },
    resume(marks) {
      const sequences = EVENT_CLASSES.map(
        (entry) => marks.find((mark) => mark.class === entry)?.sequence ?? 0,
      )
      for (const eventClass of EVENT_CLASSES) {
        const sequence = sequences[eventClass] ?? 0
        const last = rows.state(eventClass).next - 1
        if (sequence > last) return { kind: 'ahead', class: eventClass, sequence, last }
      }
      rows.transact(commitClock(), () => {
        for (const eventClass of EVENT_CLASSES) resumeClass(eventClass, sequences[eventClass] ?? 0)
      })
      for (const eventClass of EVENT_CLASSES) leased[eventClass] = rows.state(eventClass).acknowledged
      return { kind: 'resumed' }
    },
    setAside(eventClass, from, to, reason) {
      const taken = rows.transact(commitClock(), () => {
        refused.keep(eventClass, from, to, reason)
        const range = room.take(eventClass, from, to)
        if (range) tell([lossOfRange(eventClass, range, reason)])
        return range
      })
      leased[eventClass] = Math.max(leasedOf(eventClass), to)
      return taken?.count ?? 0
    },
    waiting: (eventClass) => Math.max(0, rows.state(eventClass).next - 1 - leasedOf(eventClass)),
    watermarks: () =>
      EVENT_CLASSES.map((eventClass) => {
        const { next, acknowledged } = rows.state(eventClass)
        const first = rows.firstAfter(eventClass, acknowledged) ?? next
        return { class: eventClass, first, last: next - 1, acknowledged }
      }),
    undelivered: (reason, nowMs) =>
      EVENT_CLASSES.flatMap((entry) => undeliveredOf(rows, entry, reason, nowMs)),
  }
}

export function gapRow(loss: Loss, nowMs: number): PendingRow {
  return { body: JSON.stringify(gapEvent(loss, nowMs)), timeMs: nowMs }
}

function refusedStatements(rows: BufferRows) {
  const prune = rows.db.prepare<[number]>('DELETE FROM refused WHERE id <= (SELECT max(id) FROM refused) - ?')
  const copies = EVENT_CLASSES.map((eventClass) =>
    rows.db.prepare<[number, string, number, number]>(
      `INSERT INTO refused (class, sequence, time_ms, body, hash, reason)
       SELECT ?, sequence, time_ms, body, hash, ? FROM class_${eventClass} WHERE sequence BETWEEN ? AND ?`,
    ),
  )
  return {
    keep(eventClass: EventClass, from: number, to: number, reason: string) {
      copies[eventClass]?.run(eventClass, reason, from, to)
      prune.run(REFUSED_ROWS_KEPT)
    },
  }
}

function undeliveredOf(rows: BufferRows, eventClass: EventClass, reason: string, nowMs: number): Loss[] {
  try {
    const found = rows.db
      .prepare<[number], { count: number; bytes: number; startedMs: number; endedMs: number }>(
        `SELECT count(*) AS count, coalesce(sum(octet_length(body)), 0) AS bytes,
           coalesce(min(time_ms), 0) AS startedMs, coalesce(max(time_ms), 0) AS endedMs
         FROM class_${eventClass} WHERE sequence > ?`,
      )
      .get(rows.state(eventClass).acknowledged)
    return found && found.count > 0 ? [{ class: eventClass, ...found, reason }] : []
  } catch {
    return [
      { class: eventClass, count: null, bytes: null, startedMs: rows.createdMs, endedMs: nowMs, reason },
    ]
  }
}

function lossOfRange(eventClass: EventClass, taken: TakenRange, reason: string): Loss {
  const { from, to, count, bytes, startedMs, endedMs } = taken
  return { class: eventClass, range: { from, to }, count, bytes, startedMs, endedMs, reason }
}
