/**
 * What detection and correlation have not seen yet. Rows were looked at when they arrived, before they were
 * stored: a consumer that keeps up gets from memory what is notable among the committed ones, and never touches
 * the disk; one that lags, or starts anew, reads the disk and looks again until it has caught up.
 */
import type { CordonEvent, DetectionEvent } from '../../../shared/events/event.ts'
import type { Cursor, EventStore, EventTail, NotableEvent, Stretch } from '../event-store.ts'
import { positionOf } from './event-file.ts'

/** The new rows of one batch, after their commit. */
export interface CommittedBatch {
  /** Of the last row. */
  readonly cursor: Cursor
  readonly notable: readonly NotableEvent[]
}

export interface TailSource extends Pick<EventStore, 'readAfter'> {
  /** Position of the newest event when the store was opened. */
  readonly head: Cursor
  /** Calls back after each commit, in order. The listener must not throw or block. */
  subscribe(listener: (batch: CommittedBatch) => void): void
}

/** Null: the event is an ordinary one. */
export type Weigh = (event: CordonEvent, agentId: string) => readonly DetectionEvent[] | null

export interface TailOptions {
  /** For rows from the disk; the same that was asked about those in memory. */
  readonly weigh: Weigh
  /** Notable events in memory. An event takes up to some hundred KiB, and one KiB as a rule. */
  readonly eventsMax?: number
}

/** Follows the store from now on. Make it before the first append. */
export function createTail(source: TailSource, options: TailOptions): EventTail {
  const { weigh } = options
  const eventsMax = options.eventsMax ?? 1_000
  const notable: NotableEvent[] = []
  /** Everything notable after it, up to the head, is in memory. */
  let floor = source.head
  let head = source.head
  let wake = Promise.withResolvers<void>()

  source.subscribe((batch) => {
    head = batch.cursor
    notable.push(...batch.notable)
    if (notable.length > eventsMax) {
      const [newestGone] = notable.splice(0, notable.length - eventsMax).slice(-1)
      if (newestGone) floor = newestGone.cursor
    }
    wake.resolve()
    wake = Promise.withResolvers()
  })

  const fromMemory = (cursor: Cursor, wanted: number): Stretch => {
    const start = firstAfter(notable, cursor)
    const events = notable.slice(start, start + wanted)
    const isAll = start + events.length === notable.length
    return { events, cursor: isAll ? head : (events.at(-1)?.cursor ?? head) }
  }

  const fromDisk = async (cursor: Cursor, rowsMax: number): Promise<Stretch | null> => {
    const rows = await source.readAfter(cursor, rowsMax)
    const last = rows.at(-1)
    if (!last) return null
    const events = rows.flatMap((row) => {
      const detections = weigh(row.event, row.agentId)
      return detections === null ? [] : [{ ...row, detections }]
    })
    return { events, cursor: last.cursor }
  }

  return {
    async next(cursor, rowsMax, signal) {
      // Text that is no cursor is a mistake of the program: say so now, not after the next commit.
      positionOf(cursor)
      const stop = Promise.withResolvers<void>()
      const onAbort = () => stop.resolve()
      signal.addEventListener('abort', onAbort, { once: true })
      try {
        while (!signal.aborted) {
          const floorBefore = floor
          if (cursor < floorBefore) {
            const stretch = await fromDisk(cursor, rowsMax)
            if (stretch) return stretch
            // Nothing is left on disk before memory begins: retention was faster than the consumer. Unless
            // memory moved on meanwhile; then the rows it gave up are on disk.
            if (floor !== floorBefore) continue
          }
          const changed = wake.promise
          if (head > cursor) return fromMemory(cursor, rowsMax)
          await Promise.race([changed, stop.promise])
        }
        return { cursor, events: [] }
      } finally {
        signal.removeEventListener('abort', onAbort)
      }
    },
  }
}

/** Index of the first event after the position. */
function firstAfter(events: readonly NotableEvent[], cursor: Cursor): number {
  let low = 0
  let high = events.length
  while (low < high) {
    const middle = (low + high) >> 1
    if ((events[middle]?.cursor ?? '') > cursor) high = middle
    else low = middle + 1
  }
  return low
}
