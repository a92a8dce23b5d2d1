/** Counts what rules of a telemetry list dropped, by rule and action, told once a minute. */
import type { EventAction } from '../../../shared/events/event.ts'
import type { SuppressedRecord } from '../records.ts'

interface Drops {
  readonly counts: Map<EventAction, number>
  readonly startedMs: number
  endedMs: number
}

const tellIntervalMs = 60_000

export function createRuleDrops() {
  const byRule = new Map<string, Drops>()
  let tellMs = 0

  function takeAll(): SuppressedRecord[] {
    const records = [...byRule].map(
      ([name, { counts, startedMs, endedMs }]): SuppressedRecord => ({
        kind: 'suppressed',
        timestampMs: endedMs,
        process: null,
        counts: Object.fromEntries(counts),
        startedMs: Math.min(startedMs, endedMs),
        endedMs,
        reason: `the telemetry rule "${name}" drops them`,
      }),
    )
    byRule.clear()
    return records
  }

  return {
    /** Bounded: rules and actions are. */
    count(name: string, action: EventAction, timestampMs: number, nowMs: number): void {
      if (byRule.size === 0) tellMs = nowMs + tellIntervalMs
      let drops = byRule.get(name)
      if (drops === undefined) {
        drops = { counts: new Map(), startedMs: timestampMs, endedMs: timestampMs }
        byRule.set(name, drops)
      }
      drops.endedMs = timestampMs
      drops.counts.set(action, (drops.counts.get(action) ?? 0) + 1)
    },
    takeDue: (nowMs: number): SuppressedRecord[] => (byRule.size > 0 && nowMs >= tellMs ? takeAll() : []),
    takeAll,
    isWaiting: () => byRule.size > 0,
  }
}
