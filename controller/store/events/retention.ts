/**
 * Keeps the event files within their age and, where it is set, within their bytes: whole files go, the oldest
 * first, never the one that is written. Watermarks live on in the newest file, incidents in the state. What is
 * gone is told in the audit log and in the timelines of incidents that reach so far back.
 */
import { statSync } from 'node:fs'
import { runEvery } from '../../../shared/node/loop.ts'
import type { AuditLog } from '../../api/services.ts'
import { isDatabaseFailure } from '../../state/database-failure.ts'
import type { State } from '../../state/state.ts'
import type { EmbeddedEventStore } from './embedded-event-store.ts'
import { endOfHourMs, eventFilePath, type FileHour, listHours } from './event-file.ts'

const CHECK_INTERVAL_MS = 300_000
const DAY_MS = 24 * 3_600_000
/** Of the consumer that forms incidents. */
const CONSUMER = 'detect'

export interface RetentionOptions {
  readonly store: Pick<EmbeddedEventStore, 'dropBefore'>
  readonly state: Pick<State, 'retention' | 'consumer' | 'run'>
  readonly audit: Pick<AuditLog, 'record'>
  readonly settings: { readonly retentionDays: number; readonly retentionBytesMax: number | null }
  readonly folder: string
  readonly nowMs: () => number
}

export async function keepWithinRetention(options: RetentionOptions, signal: AbortSignal): Promise<void> {
  await runEvery(CHECK_INTERVAL_MS, signal, async () => {
    try {
      await applyRetention(options)
    } catch (error) {
      // The files are gone; that it could not be written down is met at the next check.
      if (!isDatabaseFailure(error)) throw error
    }
  })
}

/** Returns how many files were dropped. */
export async function applyRetention(options: RetentionOptions): Promise<number> {
  const { store, settings, nowMs } = options
  const beforeMs = nowMs() - settings.retentionDays * DAY_MS
  const old = await dropAndTell(options, `they were kept for ${settings.retentionDays} days`, beforeMs, () =>
    store.dropBefore(beforeMs),
  )
  const { retentionBytesMax } = settings
  const cutMs = retentionBytesMax === null ? null : cutFor(options.folder, retentionBytesMax)
  if (cutMs === null) return old
  const why = `the events took more than the ${retentionBytesMax} bytes of retentionBytesMax`
  return old + (await dropAndTell(options, why, cutMs, () => store.dropBefore(cutMs)))
}

/** Before when files have to go, so that the rest fits; null when all fits, or only the open file is left. */
function cutFor(folder: string, bytesMax: number): number | null {
  const hours = listHours(folder)
  let bytes = hours.reduce((sum, hour) => sum + bytesOf(folder, hour), 0)
  let cutMs: number | null = null
  for (const hour of hours.slice(0, -1)) {
    if (bytes <= bytesMax) break
    bytes -= bytesOf(folder, hour)
    cutMs = endOfHourMs(hour)
  }
  return cutMs
}

function bytesOf(folder: string, hour: FileHour): number {
  const path = eventFilePath(folder, hour)
  return ['', '-wal'].reduce(
    (sum, suffix) => sum + (statSync(`${path}${suffix}`, { throwIfNoEntry: false })?.size ?? 0),
    0,
  )
}

async function dropAndTell(
  { state, audit, folder }: RetentionOptions,
  why: string,
  beforeMs: number,
  drop: () => Promise<number>,
): Promise<number> {
  const before = listHours(folder)
  const sizes = new Map(before.map((hour) => [hour, bytesOf(folder, hour)]))
  const cursor = state.consumer.cursor(CONSUMER)
  const count = await drop()
  if (count === 0) return 0
  const kept = new Set(listHours(folder))
  const gone = before.filter((hour) => !kept.has(hour))
  const newest = gone.at(-1)
  if (newest === undefined) return count
  const bytes = gone.reduce((sum, hour) => sum + (sizes.get(hour) ?? 0), 0)
  const until = new Date(endOfHourMs(newest)).toISOString()
  const unseen = cursor.slice(0, newest.length) <= newest ? '; not all of them had been examined' : ''
  state.run(() => {
    state.retention.raise(Math.min(beforeMs, endOfHourMs(newest)))
    audit.record(
      'controller',
      'events.dropped',
      'events',
      `events that arrived before ${until} are gone (${count} files, ${bytes} bytes): ${why}${unseen}; queries and timelines are blind before that`,
    )
  })
  return count
}
