/**
 * Looks at events with the fleet's indicators: the same code, and the same ids, as on the agents. It looks when an
 * event arrives, in the thread that checks it; and once more at what was stored while nobody followed the store.
 */
import { buildDetection, indicatorFinding } from '../../shared/events/detection.ts'
import type { CordonEvent, DetectionEvent } from '../../shared/events/event.ts'
import type { IndicatorMatcher } from '../../shared/ioc/matcher.ts'
import { detectionDigest } from '../../shared/node/detection-digest.ts'

const NONE: readonly DetectionEvent[] = []

export type Examine = (event: CordonEvent, agentId: string) => readonly DetectionEvent[]

/** `matcher` is asked for each event, so that a newer list counts from the next one on. */
export function createExaminer(matcher: () => Pick<IndicatorMatcher, 'match'>): Examine {
  return (event, agentId) => {
    const matches = matcher().match(event)
    if (matches.length === 0) return NONE
    return matches.map((match) =>
      buildDetection({
        source: event,
        finding: indicatorFinding(match),
        context: null,
        file: {},
        agentId,
        // The host's own time of what was found: the agent, if it finds it too, says when it did.
        timestamp: event['@timestamp'],
        digest: detectionDigest,
      }),
    )
  }
}

/** Actions of events that always have an effect. */
const HANDLED: ReadonlySet<string> = new Set<CordonEvent['event.action']>([
  'detection',
  'action-state',
  'tamper',
  'agent-started',
])

/** Tells ordinary events, which most are, from those that have an effect on incidents, actions or hosts. */
export function createWeigh(
  examine: Examine,
  onFault: (error: unknown, action: string) => void,
): (event: CordonEvent, agentId: string) => readonly DetectionEvent[] | null {
  return (event, agentId) => {
    const action = event['event.action']
    if (HANDLED.has(action)) return NONE
    try {
      const detections = examine(event, agentId)
      return detections.length === 0 ? null : detections
    } catch (error) {
      // A fault of the matcher with one event must not stop all others; it is a programmer's error.
      onFault(error, action)
      return null
    }
  }
}
