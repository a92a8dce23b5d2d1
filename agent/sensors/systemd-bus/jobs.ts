/**
 * What the jobs do that systemd announces: those of `systemctl` run by root, which speaks to systemd past the bus,
 * and those that systemd begins by itself. Most jobs are over before they can be asked what they are; then the
 * times tell at which the unit last came up and went down.
 */
import type { ConfigurationChange } from '../records.ts'
import type { BusConnection } from './bus-connection.ts'
import { changeOfJob, isToldJob, pathOfUnit, SYSTEMD } from './unit-calls.ts'
import type { Value } from './wire-format.ts'

/** The announcement comes a little after the job began. */
const LATE_MS = 1_000
const ASKED_MAX = 256

const properties = { destination: SYSTEMD, interface: 'org.freedesktop.DBus.Properties' } as const

export interface Jobs {
  /** The body of the signal JobNew (u id, o job, s unit). Null: nothing that is told. */
  changeOf(body: readonly Value[], nowMs: number): Promise<ConfigurationChange | null>
}

export function createJobs(asking: Pick<BusConnection, 'call'>): Jobs {
  let asked = 0

  async function ask(job: string, unit: string, nowMs: number): Promise<ConfigurationChange | null> {
    const type = await asking.call({
      ...properties,
      path: job,
      member: 'Get',
      signature: 'ss',
      body: [`${SYSTEMD}.Job`, 'JobType'],
    })
    // The second half of a restart is a start.
    if (type.ok && type.body[0] !== 'start') return changeOfJob(unit, String(type.body[0]))
    const all = await asking.call({
      ...properties,
      path: pathOfUnit(unit),
      member: 'GetAll',
      signature: 's',
      body: [`${SYSTEMD}.Unit`],
    })
    const byTimes = all.ok ? jobByTimes(all.body[0], nowMs - LATE_MS) : null
    const done = type.ok && byTimes !== 'restart' ? 'start' : byTimes
    return done === null ? null : changeOfJob(unit, done)
  }

  return {
    async changeOf([, job, unit], nowMs) {
      if (typeof job !== 'string' || typeof unit !== 'string' || !isToldJob(unit)) return null
      // A daemon-reload can announce hundreds at once.
      if (asked >= ASKED_MAX) return null
      asked += 1
      try {
        return await ask(job, unit, nowMs)
      } finally {
        asked -= 1
      }
    },
  }
}

/** Type of the job that a unit's times, in microseconds since 1970, tell of; null: none since then. */
function jobByTimes(all: Value | undefined, sinceMs: number): string | null {
  const times = new Map<string, number>()
  for (const property of Array.isArray(all) ? (all as readonly Value[]) : []) {
    const [name, value] = Array.isArray(property) ? (property as readonly Value[]) : []
    if (typeof name === 'string' && typeof value === 'bigint') times.set(name, Number(value / 1_000n))
  }
  const at = (name: string) => times.get(name) ?? 0
  const wentUpMs = at('InactiveExitTimestamp')
  const wentDownMs = at('ActiveExitTimestamp')
  const hasGoneUp = wentUpMs >= sinceMs
  const hasGoneDown = Math.max(wentDownMs, at('InactiveEnterTimestamp')) >= sinceMs
  if (hasGoneUp) return wentDownMs >= sinceMs && wentDownMs <= wentUpMs ? 'restart' : 'start'
  return hasGoneDown ? 'stop' : null
}
