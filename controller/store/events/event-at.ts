/** One stored event by its place in the order of arrival. */
import type { Cursor, EventStore, StoredEvent } from '../event-store.ts'
import { cursorOf, isCursor, positionOf } from './event-file.ts'

/** Undefined when nothing stands there (any more), or when the text is no cursor. */
export async function eventAt(
  store: Pick<EventStore, 'readAfter'>,
  cursor: Cursor,
): Promise<StoredEvent | undefined> {
  if (cursor === '' || !isCursor(cursor)) return undefined
  const { hour, id } = positionOf(cursor)
  const [event] = await store.readAfter(cursorOf(hour, Math.max(0, id - 1)), 1)
  return event?.cursor === cursor ? event : undefined
}
