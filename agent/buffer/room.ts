/**
 * Makes room in a buffer file: delivered rows leave first, oldest first; then undelivered ones of the least
 * worthy class. A class only ever pushes out rows of its own or a lesser one, and never a row that is on its
 * way to the controller. Runs inside a transaction of `rows.ts`.
 */
import {
  CLASS_ACTIVITY,
  CLASS_CRITICAL,
  EVENT_CLASSES,
  type EventClass,
} from '../../shared/events/delivery-class.ts'
import type { Sqlite } from '../../shared/node/sqlite.ts'
import type { Loss } from './own-events.ts'
import type { BufferRows } from './rows.ts'
import { PAGE_BYTES, type SpacePlan } from './size.ts'

const DROP_REASON = 'the buffer was full: the oldest events of the least worthy class made room'

/** Rows that one step deletes at most: the agent's thread stands still while it does. */
const STEP_ROWS = 2_048
/** What a row takes beside its body, and how much of a page stays empty. */
const ROW_OVERHEAD_BYTES = 64
const PAGE_FILL = 1.25

export interface Room {
  /**
   * True when rows of the class fit now. `leased` is the last sequence on its way, by class; `limitBytes` the
   * pages that may be in use, less than the plan says while the disk is full.
   */
  make(
    eventClass: EventClass,
    bodyBytes: number,
    rowCount: number,
    leased: readonly number[],
    limitBytes: number,
  ): boolean
  /** Lets delivered rows go while more than a quarter of the cap is in use. */
  retire(leased: readonly number[]): void
  /** Takes a contiguous range out, undelivered, and returns what went. */
  take(eventClass: EventClass, from: number, to: number): TakenRange | null
  /** Rows dropped so far. Who rolls the transaction back sets it back. */
  droppedRows: number
  /** Notes events that were lost before they had a sequence. */
  noteLoss(loss: Loss): void
  /** What was lost and no event tells yet. */
  openGaps(): Loss[]
  closeGaps(): void
}

export interface TakenRange {
  readonly from: number
  readonly to: number
  readonly count: number
  readonly bytes: number
  readonly startedMs: number
  readonly endedMs: number
}

export function createRoom(rows: BufferRows, plan: SpacePlan): Room {
  const { db } = rows
  const byClass = EVENT_CLASSES.map((eventClass) => roomStatements(db, eventClass))
  const of = (eventClass: EventClass) => byClass[eventClass] as ReturnType<typeof roomStatements>
  const gaps = gapStatements(db)
  const insertSeam = db.prepare<[number, number, Buffer]>('INSERT OR REPLACE INTO seam VALUES (?, ?, ?)')
  const deleteSeams = db.prepare<[number, number, number]>(
    'DELETE FROM seam WHERE class = ? AND sequence BETWEEN ? AND ?',
  )
  const usedBytes = () => rows.pagesInUse() * PAGE_BYTES

  const remove = (eventClass: EventClass, from: number, to: number) => {
    const state = rows.state(eventClass)
    const last = rows.hashOf(eventClass, to)
    const front = from <= state.first
    of(eventClass).remove.run(from, to)
    deleteSeams.run(eventClass, front ? 0 : from - 1, to - 1)
    if (last) insertSeam.run(eventClass, to, last)
    if (front) state.first = rows.firstAfter(eventClass, 0) ?? state.next
  }

  const take = (eventClass: EventClass, from: number, to: number): TakenRange | null => {
    const found = of(eventClass).measure.get(from, to)
    if (!found || found.count === 0) return null
    remove(eventClass, from, to)
    return { from, to, ...found }
  }

  /** Deletes delivered rows of one class, at most a step; false when there are none. */
  const retireStep = (eventClass: EventClass, needBytes: number, leased: readonly number[]): boolean => {
    const state = rows.state(eventClass)
    const upTo = Math.min(state.acknowledged, leased[eventClass] ?? 0)
    if (state.first > upTo) return false
    const rowsWanted = of(eventClass).rowsFor.get(state.first, upTo, STEP_ROWS, needBytes)?.count ?? 1
    remove(eventClass, state.first, Math.min(upTo, state.first + Math.max(1, rowsWanted) - 1))
    return true
  }

  const retireAny = (needBytes: number, leased: readonly number[]) =>
    dropOrder(CLASS_CRITICAL).some((entry) => retireStep(entry, needBytes, leased))

  /** Drops the oldest undelivered rows of one class, at most a step; false when there are none. */
  const dropStep = (eventClass: EventClass, needBytes: number, leased: readonly number[]): boolean => {
    const first = rows.firstAfter(eventClass, leased[eventClass] ?? 0)
    if (first === null) return false
    // A range that was taken out of the middle ends where a seam is; the run ends before it.
    const seam = of(eventClass).seamAfter.get(eventClass, first)?.sequence
    const runEnd =
      seam === undefined || seam === null
        ? rows.state(eventClass).next - 1
        : (of(eventClass).rowBefore.get(seam)?.sequence ?? first)
    const rowsWanted = of(eventClass).rowsFor.get(first, runEnd, STEP_ROWS, needBytes)?.count ?? 1
    const to = Math.min(runEnd, first + Math.max(1, rowsWanted) - 1)
    const taken = take(eventClass, first, to)
    if (!taken) return false
    gaps.add(eventClass, taken)
    room.droppedRows += taken.count
    return true
  }

  const room: Room = {
    take,
    droppedRows: 0,
    noteLoss: gaps.addUnnumbered,
    openGaps: gaps.list,
    closeGaps: () => gaps.clear.run(),
    retire(leased) {
      // A few steps at a time: a long backlog that was acknowledged at once leaves over several commits.
      for (let step = 0; step < 2; step += 1) {
        const tooMuch = usedBytes() - plan.retainedBytes
        if (tooMuch <= 0 || !retireAny(tooMuch, leased)) return
      }
    },
    make(eventClass, bodyBytes, rowCount, leased, limitBytes) {
      const needBytes = Math.ceil((bodyBytes + rowCount * ROW_OVERHEAD_BYTES) * PAGE_FILL)
      if (usedBytes() + needBytes <= limitBytes) return true
      // More than is needed at once, so that a full buffer does not delete at every commit.
      const wantedBytes = Math.min(limitBytes, needBytes + plan.dropBytes)
      const tooMuch = () => usedBytes() + wantedBytes - limitBytes
      while (tooMuch() > 0 && retireAny(tooMuch(), leased)) {}
      const lowest = Math.max(eventClass, 1)
      for (const victim of dropOrder(lowest)) {
        while (tooMuch() > 0 && dropStep(victim, tooMuch(), leased)) {}
      }
      return usedBytes() + needBytes <= limitBytes
    },
  }
  return room
}

/** Classes from the least worthy up to `lowest`. */
function dropOrder(lowest: number): EventClass[] {
  return EVENT_CLASSES.filter(
    (eventClass) => eventClass >= lowest && eventClass <= CLASS_ACTIVITY,
  ).toReversed()
}

function roomStatements(db: Sqlite, eventClass: EventClass) {
  const table = `class_${eventClass}`
  return {
    rowBefore: db.prepare<[number], { sequence: number }>(
      `SELECT sequence FROM ${table} WHERE sequence < ? ORDER BY sequence DESC LIMIT 1`,
    ),
    seamAfter: db.prepare<[number, number], { sequence: number | null }>(
      'SELECT min(sequence) AS sequence FROM seam WHERE class = ? AND sequence > ?',
    ),
    /** How many rows from the first on hold the bytes; octet_length reads no overflow page. */
    rowsFor: db.prepare<[number, number, number, number], { count: number }>(
      `SELECT count(*) AS count FROM (
         SELECT sum(octet_length(body) + ${ROW_OVERHEAD_BYTES}) OVER (ORDER BY sequence
           ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
         FROM (SELECT sequence, body FROM ${table} WHERE sequence BETWEEN ? AND ? ORDER BY sequence LIMIT ?)
       ) WHERE coalesce(before, 0) < ?`,
    ),
    measure: db.prepare<[number, number], Omit<TakenRange, 'from' | 'to'>>(
      `SELECT count(*) AS count, coalesce(sum(octet_length(body)), 0) AS bytes,
         coalesce(min(time_ms), 0) AS startedMs, coalesce(max(time_ms), 0) AS endedMs
       FROM ${table} WHERE sequence BETWEEN ? AND ?`,
    ),
    remove: db.prepare<[number, number]>(`DELETE FROM ${table} WHERE sequence BETWEEN ? AND ?`),
  }
}

interface OpenGapRow {
  readonly class: EventClass
  readonly first: number
  readonly last: number
  readonly count: number | null
  readonly bytes: number | null
  readonly started_ms: number
  readonly ended_ms: number
  readonly reason: string
}

function gapStatements(db: Sqlite) {
  const select = db.prepare<[], OpenGapRow>('SELECT * FROM open_gap ORDER BY class, first')
  const merge = (change: string, where: string) =>
    db.prepare<[OpenGapRow]>(
      `UPDATE open_gap SET ${change} count = count + @count, bytes = bytes + @bytes,
         started_ms = min(started_ms, @started_ms), ended_ms = max(ended_ms, @ended_ms)
       WHERE class = @class AND reason = @reason AND ${where}`,
    )
  const mergeAfter = merge('last = @last,', 'first > 0 AND last = @first - 1')
  const mergeBefore = merge('first = @first,', 'first = @last + 1')
  const mergeUnnumbered = merge('', 'first = 0')
  const insert = db.prepare<[OpenGapRow]>(
    `INSERT INTO open_gap (class, first, last, count, bytes, started_ms, ended_ms, reason)
     VALUES (@class, @first, @last, @count, @bytes, @started_ms, @ended_ms, @reason)`,
  )
  return {
    clear: db.prepare('DELETE FROM open_gap'),
    add(eventClass: EventClass, taken: TakenRange) {
      const { from, to, count, bytes, startedMs, endedMs } = taken
      const times = { started_ms: startedMs, ended_ms: endedMs }
      const row = { class: eventClass, first: from, last: to, count, bytes, ...times, reason: DROP_REASON }
      if (mergeAfter.run(row).changes === 1) return
      // Rows that were on their way came back, and are older than what was dropped meanwhile.
      if (mergeBefore.run(row).changes === 1) return
      insert.run(row)
    },
    addUnnumbered(loss: Loss) {
      const { class: eventClass, count, bytes, startedMs, endedMs, reason } = loss
      const times = { started_ms: startedMs, ended_ms: endedMs }
      const row = { class: eventClass, first: 0, last: 0, count, bytes, ...times, reason }
      if (mergeUnnumbered.run(row).changes === 0) insert.run(row)
    },
    list: (): Loss[] =>
      select.all().map((row) => ({
        class: row.class,
        ...(row.first === 0 ? {} : { range: { from: row.first, to: row.last } }),
        count: row.count,
        bytes: row.bytes,
        startedMs: row.started_ms,
        endedMs: row.ended_ms,
        reason: row.reason,
      })),
  }
}
