/**
 * One event for one change of a unit, though the bus, systemd's job and the link in the file system all tell it.
 * What systemd itself did, or nobody known, waits a moment for whoever had it done.
 */
import { createElapsed } from '../elapsed.ts'
import type { ConfigurationRecord, RecordSink } from '../records.ts'

export interface ServiceStateMergeOptions {
  readonly sink: RecordSink
  readonly clock: () => number
  /** Within this time the same change of a unit is told once. */
  readonly windowMs?: number
}

export interface ServiceStateMerge {
  /** Records of the configuration from all sources; those of other changes pass at once. Never throws. */
  observe(record: ConfigurationRecord): void
  /** Lets through what still waits, and ends. */
  close(): void
}

interface Entry {
  record: ConfigurationRecord
  readonly arrivedMs: number
  isThrough: boolean
}

const WINDOW_MS = 2_000
const ENTRIES_MAX = 4_096
/** systemd. */
const FIRST_PID = 1

export function createServiceStateMerge(options: ServiceStateMergeOptions): ServiceStateMerge {
  const { sink, windowMs = WINDOW_MS } = options
  const elapsed = createElapsed(options.clock)
  /** In the order of their arrival. */
  const entries = new Map<string, Entry>()
  let timer: NodeJS.Timeout | undefined

  function letThrough(entry: Entry): void {
    if (entry.isThrough) return
    entry.isThrough = true
    sink([entry.record])
  }

  function sweep(): void {
    timer = undefined
    for (const [key, entry] of entries) {
      if (elapsed() - entry.arrivedMs < windowMs) break
      entries.delete(key)
      letThrough(entry)
    }
    schedule()
  }

  function schedule(): void {
    const oldest = entries.values().next().value
    if (timer !== undefined || oldest === undefined) return
    timer = setTimeout(sweep, Math.max(1, oldest.arrivedMs + windowMs - elapsed()))
  }

  return {
    observe(record) {
      const key = keyOf(record)
      if (key === null) {
        sink([record])
        return
      }
      const known = entries.get(key)
      if (known !== undefined && elapsed() - known.arrivedMs < windowMs) {
        if (!isByCaller(record)) return
        if (known.isThrough) {
          // Somebody else had it done, too; the same one is told by the bus and by the link.
          if (record.process?.pid !== known.record.process?.pid) sink([record])
          return
        }
        known.record = withPath(record, known.record)
        letThrough(known)
        return
      }
      if (known !== undefined) {
        entries.delete(key)
        letThrough(known)
      }
      const oldest = entries.entries().next().value
      if (entries.size >= ENTRIES_MAX && oldest !== undefined) {
        entries.delete(oldest[0])
        letThrough(oldest[1])
      }
      const entry: Entry = { record, arrivedMs: elapsed(), isThrough: false }
      entries.set(key, entry)
      if (isByCaller(record)) letThrough(entry)
      schedule()
    },
    close() {
      clearTimeout(timer)
      timer = undefined
      for (const entry of entries.values()) letThrough(entry)
      entries.clear()
    },
  }
}

/** Null: of no unit. */
function keyOf({ change }: ConfigurationRecord): string | null {
  switch (change['event.action']) {
    case 'service-state-changed':
      return `${change['cordon.operation']} ${change['service.name']}`
    case 'service-created':
      return `created ${change['service.name']}`
    case 'scheduled-task-changed': {
      const path = change['file.path']
      const isUnit = change['cordon.persistence.kind'] === 'timer' && change['event.type'] === 'creation'
      return isUnit ? `created ${path.slice(path.lastIndexOf('/') + 1)}` : null
    }
    default:
      return null
  }
}

function isByCaller({ process }: ConfigurationRecord): boolean {
  return process !== null && process.pid !== FIRST_PID
}

/** The link that came of a call is told with it. */
function withPath(record: ConfigurationRecord, earlier: ConfigurationRecord): ConfigurationRecord {
  const { change } = record
  if (change['event.action'] !== 'service-state-changed' || change['file.path'] !== undefined) return record
  const path = 'file.path' in earlier.change ? earlier.change['file.path'] : undefined
  return path === undefined ? record : { ...record, change: { ...change, 'file.path': path } }
}
