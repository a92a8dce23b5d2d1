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
  readonly store: Pick<EmbeddedEventStore, 'drop'>
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
  const { settings, folder, nowMs } = options
  const { retentionDays, retentionBytesMax } = settings
  const beforeMs = nowMs() - retentionDays * DAY_MS
  const old = listHours(folder).filter((hour) => endOfHourMs(hour) <= beforeMs)
  const aged = await dropAndTell(options, old, `they were kept for ${retentionDays} days`)
  if (retentionBytesMax === null) return aged
  const why = `the events took more than the ${retentionBytesMax} bytes of retentionBytesMax`
  return aged + (await dropAndTell(options, filesBeyond(folder, retentionBytesMax), why))
}

/** The oldest files, without which the rest fits; never the newest one, which is written. */
function filesBeyond(folder: string, bytesMax: number): FileHour[] {
  const hours = listHours(folder)
  let bytes = hours.reduce((sum, hour) => sum + bytesOf(folder, hour), 0)
  return hours.slice(0, -1).filter((hour) => {
    if (bytes <= bytesMax) return false
    bytes -= bytesOf(folder, hour)
    return true
  })
}

function bytesOf(folder: string, hour: FileHour): number {
  const path = eventFilePath(folder, hour)
  return ['', '-wal'].reduce(
    (sum, suffix) => sum + (statSync(`${path}${suffix}`, { throwIfNoEntry: false })?.size ?? 0),
    0,
  )
}

async function dropAndTell(
  { store, state, audit, folder }: RetentionOptions,
  hours: readonly FileHour[],
  why: string,
): Promise<number> {
  if (hours.length === 0) return 0
  const sizes = new Map(hours.map((hour) => [hour, bytesOf(folder, hour)]))
  const cursor = state.consumer.cursor(CONSUMER)
  const dropped = await store.drop(hours)
  const newest = dropped.hours.at(-1)
  if (newest === undefined) return 0
  const bytes = dropped.hours.reduce((sum, hour) => sum + (sizes.get(hour) ?? 0), 0)
  // Later files of the same hour may be left.
  const untilMs = Math.min(endOfHourMs(newest), dropped.oldestMs ?? Number.POSITIVE_INFINITY)
  const until = new Date(untilMs).toISOString()
  const unseen = cursor.slice(0, newest.length) <= newest ? '; not all of them had been examined' : ''
  state.run(() => {
    state.retention.raise(untilMs)
    audit.record(
      'controller',
      'events.dropped',
      'events',
      `events that arrived before ${until} are gone (${dropped.hours.length} files, ${bytes} bytes): ${why}${unseen}; queries and timelines are blind before that`,
    )
  })
  return dropped.hours.length
}
