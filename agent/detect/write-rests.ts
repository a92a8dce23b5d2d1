/**
 * Lets files rest that are written without end: one that was examined more than three times within ten seconds
 * rests twenty times as long as that took, and at least a second. A log or a database takes a twentieth of the
 * scanner, and new files do not wait behind it. What it holds in the end is examined all the same.
 */
import { createLru } from './lru.ts'

export interface WriteRests {
  /** Until when the file rests, in milliseconds since 1970; 0: it does not. */
  untilMs(key: string): number
  /** It was examined because it was written, which took so long. */
  note(key: string, tookMs: number): void
}

const BURST_MAX = 3
const BURST_MS = 10_000
const REST_FACTOR = 20
const REST_MS_MIN = 1_000
const REST_MS_MAX = 60_000
const FILES_MAX = 4_096

export function createWriteRests(clock: () => number): WriteRests {
  const recent = createLru<{ sinceMs: number; count: number; restsUntilMs: number }>(FILES_MAX)
  return {
    untilMs(key) {
      const untilMs = recent.get(key)?.restsUntilMs ?? 0
      return untilMs > clock() ? untilMs : 0
    },
    note(key, tookMs) {
      const nowMs = clock()
      const before = recent.get(key)
      const count = before !== undefined && nowMs - before.sinceMs < BURST_MS ? before.count + 1 : 1
      const restMs = Math.min(REST_MS_MAX, Math.max(REST_MS_MIN, REST_FACTOR * tookMs))
      recent.set(key, {
        sinceMs: count === 1 || before === undefined ? nowMs : before.sinceMs,
        count,
        restsUntilMs: count > BURST_MAX ? nowMs + restMs : 0,
      })
    },
  }
}
