/**
 * Files waiting to be examined: bounded, one entry for each content. What just happened comes first, then files
 * that were examined a moment ago and have rested, then what was asked for.
 */
import type { ScanTarget } from './open-target.ts'
import type { ScanOutcome } from './scanner.ts'

export type OutcomeListener = (outcome: ScanOutcome) => void

export interface ScanJob {
  readonly key: string
  readonly target: ScanTarget
  readonly listeners: OutcomeListener[]
  /** Not to be taken before this time: a file that is written without end must not hold up new ones. */
  readonly restsUntilMs: number
  /** Children that were lost while they examined it. */
  lostCount: number
}

export interface ScanQueue {
  readonly size: number
  /** Adds, joins what waits already, or drops the oldest to make room: the dropped jobs are returned. */
  add(key: string, target: ScanTarget, listener: OutcomeListener, restsUntilMs: number): readonly ScanJob[]
  /** Puts back what was taken, in front. */
  putBack(job: ScanJob): void
  take(nowMs: number): ScanJob | null
  /** When the next job may be taken: minus infinity for now, infinity when none waits. */
  nextDueMs(): number
  takeAll(): ScanJob[]
}

/** Events that may wait for one content; beyond this a listener is dropped as its job would be. */
const LISTENERS_MAX = 256

export function createScanQueue(jobsMax: number): ScanQueue {
  // Maps keep the order of insertion: the first entry is the oldest.
  const fresh = new Map<string, ScanJob>()
  const resting = new Map<string, ScanJob>()
  const asked = new Map<string, ScanJob>()
  let front: ScanJob | null = null

  const firstOf = (jobs: Map<string, ScanJob>): ScanJob | null => {
    const first = jobs.values().next()
    if (first.done) return null
    jobs.delete(first.value.key)
    return first.value
  }

  const firstRested = (nowMs: number): ScanJob | null => {
    for (const job of resting.values()) {
      if (job.restsUntilMs > nowMs) continue
      resting.delete(job.key)
      return job
    }
    return null
  }

  return {
    get size() {
      return fresh.size + resting.size + asked.size + (front === null ? 0 : 1)
    },
    add(key, target, listener, restsUntilMs) {
      const jobs = target.why === 'asked' ? asked : restsUntilMs > 0 ? resting : fresh
      const present = jobs.get(key)
      if (present !== undefined && present.listeners.length < LISTENERS_MAX) {
        present.listeners.push(listener)
        return []
      }
      const job: ScanJob = { key, target, listeners: [listener], restsUntilMs, lostCount: 0 }
      if (present !== undefined) return [job]
      jobs.set(key, job)
      if (jobs.size <= jobsMax) return []
      const oldest = firstOf(jobs)
      return oldest === null ? [] : [oldest]
    },
    putBack(job) {
      front = job
    },
    nextDueMs: () =>
      front !== null || fresh.size > 0 || asked.size > 0
        ? Number.NEGATIVE_INFINITY
        : [...resting.values()].reduce(
            (least, job) => Math.min(least, job.restsUntilMs),
            Number.POSITIVE_INFINITY,
          ),
    take(nowMs) {
      const job = front ?? firstOf(fresh) ?? firstRested(nowMs) ?? firstOf(asked)
      front = null
      return job
    },
    takeAll() {
      const all = [
        ...(front === null ? [] : [front]),
        ...fresh.values(),
        ...resting.values(),
        ...asked.values(),
      ]
      front = null
      fresh.clear()
      resting.clear()
      asked.clear()
      return all
    },
  }
}
