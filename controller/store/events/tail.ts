/**
 * The newest events in memory, for detection and correlation: a consumer that keeps up never touches the disk,
 * and one that lags reads it until it has caught up. What is kept is bounded in rows and bytes.
 */
import type { CordonEvent, EventClass } from '../../../shared/events/event.ts'
import type { Cursor, EventStore, EventTail, StoredEvent } from '../event-store.ts'
import { cursorOf, type FileHour, positionOf } from './event-file.ts'

/** New rows of one batch, after their commit, in order of arrival. */
export interface CommittedBatch {
  readonly hour: FileHour
  /** File id of the first row; the others follow without holes. */
  readonly firstEvent: number
  readonly agentId: string
  readonly streamId: string
  readonly class: EventClass
  readonly firstSequence: number
  readonly receivedMs: number
  readonly bytes: number
  readonly events: readonly CordonEvent[]
}

export interface TailSource extends Pick<EventStore, 'readAfter'> {
  /** Position of the newest event when the store was opened. */
  readonly head: Cursor
  /** Calls back after each commit, in order. The listener must not throw or block. */
  subscribe(listener: (batch: CommittedBatch) => void): void
}

export interface TailOptions {
  readonly rowsMax?: number
  readonly bytesMax?: number
}

/** Follows the store from now on. Make it before the first append. */
export function createTail(source: TailSource, options: TailOptions = {}): EventTail {
  const rowsMax = options.rowsMax ?? 50_000
  const bytesMax = options.bytesMax ?? 32 * 1024 * 1024
  const batches: CommittedBatch[] = []
  /** Everything after it is in memory. */
  let floor = source.head
  let rows = 0
  let bytes = 0
  let wake = Promise.withResolvers<void>()

  source.subscribe((batch) => {
    batches.push(batch)
    rows += batch.events.length
    bytes += batch.bytes
    // The newest batch stays whatever its size, so that waiting consumers have something to find.
    while (batches.length > 1 && (rows > rowsMax || bytes > bytesMax)) {
      const oldest = batches.shift()
      if (!oldest) break
      rows -= oldest.events.length
      bytes -= oldest.bytes
      floor = cursorOf(oldest.hour, lastEventOf(oldest))
    }
    wake.resolve()
    wake = Promise.withResolvers()
  })

  const fromMemory = (cursor: Cursor, wanted: number): StoredEvent[] => {
    const after = positionOf(cursor)
    const found: StoredEvent[] = []
    for (
      let index = firstAfter(batches, after);
      index < batches.length && found.length < wanted;
      index += 1
    ) {
      const batch = batches[index]
      if (!batch) break
      const skip = batch.hour === after.hour ? Math.max(0, after.id - batch.firstEvent + 1) : 0
      const end = Math.min(batch.events.length, skip + wanted - found.length)
      for (let row = skip; row < end; row += 1) {
        const event = batch.events[row]
        if (event) found.push(storedEvent(batch, row, event))
      }
    }
    return found
  }

  return {
    async next(cursor, wanted, signal) {
      // Text that is no cursor is a mistake of the program: say so now, not after the next commit.
      positionOf(cursor)
      const stop = Promise.withResolvers<void>()
      const onAbort = () => stop.resolve()
      signal.addEventListener('abort', onAbort, { once: true })
      try {
        while (!signal.aborted) {
          const floorBefore = floor
          if (cursor < floorBefore) {
            const found = await source.readAfter(cursor, wanted)
            if (found.length > 0) return found
            // Nothing is left on disk before memory begins: retention was faster than the consumer. Unless
            // memory moved on meanwhile; then the rows it gave up are on disk.
            if (floor !== floorBefore) continue
          }
          const changed = wake.promise
          const found = fromMemory(cursor, wanted)
          if (found.length > 0) return found
          await Promise.race([changed, stop.promise])
        }
        return []
      } finally {
        signal.removeEventListener('abort', onAbort)
      }
    },
  }
}

function storedEvent(batch: CommittedBatch, row: number, event: CordonEvent): StoredEvent {
  return {
    cursor: cursorOf(batch.hour, batch.firstEvent + row),
    agentId: batch.agentId,
    streamId: batch.streamId,
    class: batch.class,
    sequence: batch.firstSequence + row,
    receivedMs: batch.receivedMs,
    event,
  }
}

function lastEventOf(batch: CommittedBatch): number {
  return batch.firstEvent + batch.events.length - 1
}

/** Index of the first batch with a row after the position. */
function firstAfter(batches: readonly CommittedBatch[], after: { hour: FileHour; id: number }): number {
  let low = 0
  let high = batches.length
  while (low < high) {
    const middle = (low + high) >> 1
    const batch = batches[middle]
    if (!batch) break
    const isAfter = batch.hour > after.hour || (batch.hour === after.hour && lastEventOf(batch) > after.id)
    if (isAfter) high = middle
    else low = middle + 1
  }
  return low
}
