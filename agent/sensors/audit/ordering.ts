/**
 * Brings the records of two sources into one order. The process events come at once and with exact times; audit's
 * come later, by a thread of the kernel's, with a clock that is coarse to some milliseconds. So forks and exits
 * wait a moment for what audit has to say of the time before them: an exec is told before the exit of its process
 * and before the forks that its program made.
 */
import type { ProcessKey, SensorRecord } from '../records.ts'

const waitingMax = 16_384
/** How long an exec is waited for that audit may never tell, as of a program that ran before audit was on. */
const expectedMsMax = 500
/** What is further ahead than this comes of a clock that was set back: it is not waited for. */
const aheadMsMax = 5_000

export interface Ordering {
  /** From the process events, in the order of their time. */
  addProcessEvent(record: SensorRecord): void
  /** The process events told of an exec: what comes after it waits until audit has told it too. */
  expectExec(pid: number, timeMs: number): void
  /** From audit. */
  addObserved(record: SensorRecord): void
  /** Everything that happened up to this time, in order. */
  release(untilMs: number): SensorRecord[]
}

interface Waiting {
  readonly timeMs: number
  readonly record: SensorRecord
}

export function createOrdering(): Ordering {
  let events: Waiting[] = []
  let observed: Waiting[] = []
  /** When a process began, as long as its fork waits. */
  const forked = new Map<number, number>()
  /** In the order of their time. */
  const expected = new Map<number, { readonly timeMs: number; count: number }>()

  /** No later than the oldest exec that is still to come. */
  function limitOf(untilMs: number): number {
    for (const [pid, { timeMs }] of expected) {
      if (timeMs > untilMs - expectedMsMax) return Math.min(untilMs, timeMs - 1)
      expected.delete(pid)
    }
    return untilMs
  }

  return {
    addProcessEvent(record) {
      events.push({ timeMs: record.timestampMs, record })
      if (record.kind === 'fork') forked.set(record.process.pid, record.timestampMs)
    },
    expectExec(pid, timeMs) {
      const known = expected.get(pid)
      if (known) known.count += 1
      else expected.set(pid, { timeMs, count: 1 })
    },
    addObserved(record) {
      if (record.kind === 'exec') {
        const known = expected.get(record.process.pid)
        if (known && --known.count <= 0) expected.delete(record.process.pid)
      }
      const pid = processOf(record)?.pid
      // The coarse clock may lag behind: nothing is done by a process before it is there.
      const begunMs = pid === undefined ? 0 : (forked.get(pid) ?? 0)
      const timeMs = Math.max(record.timestampMs, begunMs)
      observed.push({
        timeMs,
        record: timeMs === record.timestampMs ? record : { ...record, timestampMs: timeMs },
      })
    },
    release(untilMs) {
      const isFull = events.length + observed.length > waitingMax
      if (isFull) expected.clear()
      const isStranded = ({ timeMs }: Waiting) => timeMs > untilMs + aheadMsMax
      const isSetBack = events.some(isStranded) || observed.some(isStranded)
      const limitMs = isFull || isSetBack ? Number.POSITIVE_INFINITY : limitOf(untilMs)
      const isDue = ({ timeMs }: Waiting) => timeMs <= limitMs
      // At the same time: a fork, then what was observed, then an exit.
      const due = [...events.filter(isDue), ...observed.filter(isDue)].sort(
        (one, other) => one.timeMs - other.timeMs || rank(one.record) - rank(other.record),
      )
      if (due.length === 0) return []
      events = events.filter((waiting) => !isDue(waiting))
      observed = observed.filter((waiting) => !isDue(waiting))
      for (const { record, timeMs } of due) {
        if (record.kind === 'fork' && forked.get(record.process.pid) === timeMs)
          forked.delete(record.process.pid)
      }
      return due.map(({ record }) => record)
    },
  }
}

function rank(record: SensorRecord): number {
  return record.kind === 'fork' ? 0 : record.kind === 'exit' ? 2 : 1
}

function processOf(record: SensorRecord): Pick<ProcessKey, 'pid'> | null {
  return 'process' in record ? record.process : null
}
