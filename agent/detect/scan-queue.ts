/**
 * Files waiting to be examined: bounded, one entry for each content. Programs that are run come first, then files
 * that were just written, then those that were examined a moment ago and have rested, then what was asked for.
 */
import type { ScanTarget } from './open-target.ts'
import type { ScanOutcome } from './scan-outcome.ts'

export type OutcomeListener = (outcome: ScanOutcome) => void

export interface ScanJob {
  readonly key: string
  readonly target: ScanTarget
  readonly listeners: OutcomeListener[]
  readonly addedMs: number
  /** Not to be taken before this time: a file that is written without end must not hold up new ones. */
  readonly restsUntilMs: number
  /** Children that were lost while they examined it. */
  lostCount: number
}

type JobTimes = { readonly nowMs: number } & Pick<ScanJob, 'restsUntilMs'>

export interface ScanQueue {
  readonly size: number
  /** A program that is run waits, or what was put back. */
  readonly hasExecuted: boolean
  /** Adds, joins what waits already, or drops the oldest to make room: the dropped jobs are returned. */
  add(key: string, target: ScanTarget, listener: OutcomeListener, times: JobTimes): readonly ScanJob[]
  /** Puts back what was taken, in front. */
  putBack(job: ScanJob): void
  take(nowMs: number): ScanJob | null
  /** When the next job may be taken: minus infinity for now, infinity when none waits. */
  nextDueMs(): number
  /** How long the oldest job that may be taken has waited; 0 when there is none. */
  oldestWaitMs(nowMs: number): number
  takeAll(): ScanJob[]
}

/** Events that may wait for one content; beyond this a listener is dropped as its job would be. */
const LISTENERS_MAX = 256

export function createScanQueue(jobsMax: number): ScanQueue {
  // Maps keep the order of insertion: the first entry is the oldest.
  const executed = new Map<string, ScanJob>()
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

  const mapFor = (why: ScanTarget['why'], restsUntilMs: number) => {
    if (why === 'asked') return asked
    if (why === 'executed') return executed
    return restsUntilMs > 0 ? resting : fresh
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
      return executed.size + fresh.size + resting.size + asked.size + (front === null ? 0 : 1)
    },
    get hasExecuted() {
      return front !== null || executed.size > 0
    },
    add(key, target, listener, { nowMs, restsUntilMs }) {
      const jobs = mapFor(target.why, restsUntilMs)
      const present = jobs.get(key)
      if (present !== undefined && present.listeners.length < LISTENERS_MAX) {
        present.listeners.push(listener)
        return []
      }
      const job: ScanJob = { key, target, listeners: [listener], addedMs: nowMs, restsUntilMs, lostCount: 0 }
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
      front !== null || executed.size > 0 || fresh.size > 0 || asked.size > 0
        ? Number.NEGATIVE_INFINITY
        : [...resting.values()].reduce(
            (least, job) => Math.min(least, job.restsUntilMs),
            Number.POSITIVE_INFINITY,
          ),
    take(nowMs) {
      const job = front ?? firstOf(executed) ?? firstOf(fresh) ?? firstRested(nowMs) ?? firstOf(asked)
      front = null
      return job
    },
    oldestWaitMs(nowMs) {
      const firsts = [executed, fresh, asked].map((jobs) => jobs.values().next().value?.addedMs)
      // A file that rests waits for nothing until it has rested.
      const rested = [...resting.values()].map((job) => job.restsUntilMs)
      const sinceMs = [front?.addedMs, ...firsts, ...rested].filter((ms) => ms !== undefined)
      return Math.max(0, ...sinceMs.map((ms) => nowMs - ms))
    },
    takeAll() {
      const all = [
        ...(front === null ? [] : [front]),
        ...executed.values(),
        ...fresh.values(),
        ...resting.values(),
        ...asked.values(),
      ]
      front = null
      executed.clear()
      fresh.clear()
      resting.clear()
      asked.clear()
      return all
    },
  }
}
