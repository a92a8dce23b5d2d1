/** Stored events for tests, and a store and tail that keep them in a list. */

import { CLASS_OF_ACTION } from '../../../shared/events/delivery-class.ts'
import type { CordonEvent, DetectionEvent, EventOf } from '../../../shared/events/event.ts'
import { entity, HOST_A, NOW_MS } from '../../correlate/testing/findings.ts'
import type { Cursor, EventQuery, EventStore, EventTail, StoredEvent } from '../../store/event-store.ts'
import type { Weigh } from '../../store/events/tail.ts'
import { createWeigh } from '../examiner.ts'

export function cursorOf(index: number): Cursor {
  return index.toString().padStart(12, '0')
}

function storedEvent(index: number, event: CordonEvent, agentId = HOST_A): StoredEvent {
  return {
    cursor: cursorOf(index),
    agentId,
    streamId: '5'.repeat(32),
    class: CLASS_OF_ACTION[event['event.action']],
    sequence: index,
    receivedMs: NOW_MS + 1_000,
    event,
  }
}

export const at = (offsetMs: number) => new Date(NOW_MS + offsetMs).toISOString()

export function execEvent(pid: number, overrides: Partial<EventOf<'exec'>> = {}): EventOf<'exec'> {
  return {
    '@timestamp': at(0),
    'event.kind': 'event',
    'event.category': 'process',
    'event.type': 'start',
    'event.action': 'exec',
    'process.entity_id': entity(HOST_A, pid),
    'process.pid': pid,
    'process.executable': '/usr/bin/true',
    ...overrides,
  }
}

export function detectionEvent(id: string, overrides: Partial<DetectionEvent> = {}): DetectionEvent {
  return {
    '@timestamp': at(100),
    'event.kind': 'alert',
    'event.category': 'threat',
    'event.type': 'indicator',
    'event.action': 'detection',
    'cordon.detection.id': id.padStart(32, '0'),
    'cordon.detection.engine': 'yara',
    'cordon.detection.severity': 'high',
    'cordon.detection.matched': {},
    'rule.id': 'test.rule',
    'rule.name': 'Test rule',
    'cordon.detection.event_action': 'exec',
    'process.entity_id': entity(HOST_A, 500),
    'process.name': 'sh',
    ...overrides,
  }
}

export interface MemoryStore extends Pick<EventStore, 'query'>, EventTail {
  readonly events: StoredEvent[]
  add(event: CordonEvent, agentId?: string): StoredEvent
}

const withoutIndicators = createWeigh(
  () => [],
  () => undefined,
)

export function createMemoryStore(weigh: Weigh = withoutIndicators): MemoryStore {
  const events: StoredEvent[] = []
  const wake = new Set<() => void>()
  const field = (event: CordonEvent, name: string) => (event as Readonly<Record<string, unknown>>)[name]
  const fits = (query: EventQuery, { agentId, event }: StoredEvent) =>
    (query.agentId === undefined || query.agentId === agentId) &&
    (query.action === undefined || query.action === event['event.action']) &&
    (query.entityId === undefined || query.entityId === field(event, 'process.entity_id')) &&
    (query.parentEntityId === undefined ||
      query.parentEntityId === field(event, 'process.parent.entity_id')) &&
    (query.actions === undefined || query.actions.includes(event['event.action'])) &&
    (query.entityIds === undefined ||
      query.entityIds.some((id) => id === field(event, 'process.entity_id'))) &&
    (query.parentEntityIds === undefined ||
      query.parentEntityIds.some((id) => id === field(event, 'process.parent.entity_id'))) &&
    (query.fromMs === undefined || Date.parse(event['@timestamp']) >= query.fromMs)
  return {
    events,
    add(event, agentId) {
      const stored = storedEvent(events.length + 1, event, agentId)
      events.push(stored)
      for (const resolve of wake) resolve()
      return stored
    },
    query: (query) => Promise.resolve(events.filter((stored) => fits(query, stored)).slice(0, query.limit)),
    async next(cursor, rowsMax, signal) {
      for (;;) {
        const found = events.filter((stored) => stored.cursor > cursor).slice(0, rowsMax)
        if (found.length > 0 || signal.aborted) {
          const weighed = found.flatMap((stored) => {
            const detections = weigh(stored.event, stored.agentId)
            return detections === null ? [] : [{ ...stored, detections }]
          })
          return { events: weighed, cursor: found.at(-1)?.cursor ?? cursor }
        }
        await new Promise<void>((resolve) => {
          wake.add(resolve)
          signal.addEventListener('abort', () => resolve(), { once: true })
        })
      }
    },
  }
}
