/** Looks at stored events with the fleet's indicators: the same code, and the same ids, as on the agents. */

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
