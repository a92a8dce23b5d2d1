/**
 * Events that are not on disk yet. Small while the disk works; while it does not, bounded, and what does not
 * fit is counted so that a gap event can tell it.
 */
import {
  CLASS_ACTIVITY,
  CLASS_CRITICAL,
  EVENT_CLASSES,
  type EventClass,
} from '../../shared/events/delivery-class.ts'
import type { Loss } from './own-events.ts'
import type { PendingRow } from './rows.ts'

const OVERFLOW_REASON = 'the buffer could not be written and memory for events that wait was full'

interface Queue {
  rows: PendingRow[]
  characters: number
}

export interface Pending {
  add(eventClass: EventClass, row: PendingRow): void
  rowsOf(eventClass: EventClass): readonly PendingRow[]
  /** The first `count` rows of the class are on disk, or told as lost. */
  remove(eventClass: EventClass, count: number): void
  lose(loss: Loss): void
  losses(): readonly Loss[]
  /** The losses are on disk as gap events. */
  clearLosses(): void
  readonly rowCount: number
  /** UTF-16 units, which are the bytes of most events. */
  readonly characters: number
  readonly lostRows: number
}

export function createPending(rowsMax: number, charactersMax: number): Pending {
  const queues = EVENT_CLASSES.map((): Queue => ({ rows: [], characters: 0 }))
  const losses = new Map<string, Loss>()
  let rowCount = 0
  let characters = 0
  let lostRows = 0

  const remove = (eventClass: EventClass, count: number): PendingRow[] => {
    const queue = queues[eventClass] as Queue
    const removed = count >= queue.rows.length ? queue.rows : queue.rows.splice(0, count)
    if (removed === queue.rows) queue.rows = []
    const removedCharacters = charactersOf(removed)
    queue.characters -= removedCharacters
    characters -= removedCharacters
    rowCount -= removed.length
    return removed
  }

  const lose = (loss: Loss) => {
    lostRows += loss.count ?? 0
    const key = `${loss.class} ${loss.reason}`
    const known = losses.get(key)
    losses.set(key, known ? merged(known, loss) : loss)
  }

  /** Half of the least worthy class goes, its oldest events: never one that is worth more than the new one. */
  const makeRoom = (eventClass: EventClass): boolean => {
    for (let victim: number = CLASS_ACTIVITY; victim >= eventClass && victim > CLASS_CRITICAL; victim -= 1) {
      const queue = queues[victim] as Queue
      if (queue.rows.length === 0) continue
      const gone = remove(victim as EventClass, Math.ceil(queue.rows.length / 2))
      lose(lossOf(victim as EventClass, gone, OVERFLOW_REASON))
      return true
    }
    return false
  }

  return {
    add(eventClass, row) {
      while (rowCount >= rowsMax || characters + row.body.length > charactersMax) {
        if (makeRoom(eventClass)) continue
        lose(lossOf(eventClass, [row], OVERFLOW_REASON))
        return
      }
      const queue = queues[eventClass] as Queue
      queue.rows.push(row)
      queue.characters += row.body.length
      rowCount += 1
      characters += row.body.length
    },
    rowsOf: (eventClass) => (queues[eventClass] as Queue).rows,
    remove,
    lose,
    losses: () => [...losses.values()],
    clearLosses: () => losses.clear(),
    get rowCount() {
      return rowCount
    },
    get characters() {
      return characters
    },
    get lostRows() {
      return lostRows
    },
  }
}

/** What is lost with rows that never had a sequence. */
export function lossOf(eventClass: EventClass, rows: readonly PendingRow[], reason: string): Loss {
  let startedMs = Number.MAX_SAFE_INTEGER
  let endedMs = 0
  for (const row of rows) {
    startedMs = Math.min(startedMs, row.timeMs)
    endedMs = Math.max(endedMs, row.timeMs)
  }
  return { class: eventClass, count: rows.length, bytes: charactersOf(rows), startedMs, endedMs, reason }
}

function charactersOf(rows: readonly PendingRow[]): number {
  let sum = 0
  for (const row of rows) sum += row.body.length
  return sum
}

function merged(a: Loss, b: Loss): Loss {
  return {
    class: a.class,
    count: a.count === null || b.count === null ? null : a.count + b.count,
    bytes: a.bytes === null || b.bytes === null ? null : a.bytes + b.bytes,
    startedMs: Math.min(a.startedMs, b.startedMs),
    endedMs: Math.max(a.endedMs, b.endedMs),
    reason: a.reason,
  }
}
