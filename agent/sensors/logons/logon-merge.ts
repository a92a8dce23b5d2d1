/**
 * Lets each logon through once, though PAM, audit and the files of utmp(5) all tell it. PAM knows most and is let
 * through at once; the others wait a moment for it, and lend it what it did not know.
 */
import { createElapsed } from '../elapsed.ts'
import { lossy } from '../kernel-text.ts'
import type { LogonRecord, RecordSink } from '../records.ts'

export interface LogonMergeOptions {
  readonly sink: RecordSink
  readonly clock: () => number
  /** How long a lesser source waits for a better one. */
  readonly waitMs?: number
  /** How far apart two sources may tell the same logon. */
  readonly windowMs?: number
}

export interface LogonMerge {
  /** Never throws. */
  observe(record: LogonRecord): void
  /** Lets through what still waits, and ends. */
  close(): void
}

type Source = LogonRecord['source']

/** The best first. */
const RANKS: Readonly<Record<Source, number>> = { pam: 0, audit: 1, journal: 2, wtmp: 3, btmp: 3 }
const ENTRIES_MAX = 4_096

interface Entry {
  record: LogonRecord
  readonly key: string
  readonly arrivedMs: number
  /** Sources that told it: each tells one logon once. */
  readonly sources: Set<Source>
  isThrough: boolean
}

export function createLogonMerge(options: LogonMergeOptions): LogonMerge {
  const { sink, waitMs = 1_500, windowMs = 3_000 } = options
  const elapsed = createElapsed(options.clock)
  let entries: Entry[] = []
  let timer: NodeJS.Timeout | undefined

  function letThrough(entry: Entry): void {
    if (entry.isThrough) return
    entry.isThrough = true
    sink([entry.record])
  }

  function sweep(): void {
    timer = undefined
    const nowMs = elapsed()
    for (const entry of entries) if (nowMs - entry.arrivedMs >= waitMs) letThrough(entry)
    entries = entries.filter(({ arrivedMs }) => nowMs - arrivedMs < windowMs + waitMs)
    schedule()
  }

  function schedule(): void {
    if (timer !== undefined || entries.length === 0) return
    const waiting = entries.find(({ isThrough }) => !isThrough)
    const first = entries[0]
    if (first === undefined) return
    const dueMs = waiting === undefined ? first.arrivedMs + windowMs + waitMs : waiting.arrivedMs + waitMs
    timer = setTimeout(sweep, Math.max(1, dueMs - elapsed()))
    // Nothing waits: the process may end.
    if (waiting === undefined) timer.unref()
  }

  function isSame(entry: Entry, record: LogonRecord, key: string): boolean {
    return (
      entry.key === key &&
      !entry.sources.has(record.source) &&
      Math.abs(entry.record.timestampMs - record.timestampMs) <= windowMs &&
      agree(entry.record.service, record.service) &&
      agree(terminalOf(entry.record.terminal), terminalOf(record.terminal))
    )
  }

  return {
    observe(record) {
      const key = `${record.action}\0${lossy(record.account)}`
      const known = entries.find((entry) => isSame(entry, record, key))
      if (known === undefined) {
        // The oldest goes first; it has waited longest.
        if (entries.length >= ENTRIES_MAX) {
          const oldest = entries.shift()
          if (oldest !== undefined) letThrough(oldest)
        }
        const entry = {
          record,
          key,
          arrivedMs: elapsed(),
          sources: new Set([record.source]),
          isThrough: false,
        }
        entries.push(entry)
        if (RANKS[record.source] === 0) letThrough(entry)
      } else {
        known.sources.add(record.source)
        if (!known.isThrough) known.record = joined(known.record, record)
        if (RANKS[record.source] === 0) letThrough(known)
      }
      clearTimeout(timer)
      timer = undefined
      schedule()
    },
    close() {
      clearTimeout(timer)
      for (const entry of entries) letThrough(entry)
      entries = []
    },
  }
}

/** The better one, with what only the other knows. */
function joined(one: LogonRecord, other: LogonRecord): LogonRecord {
  const [better, lesser] = RANKS[other.source] < RANKS[one.source] ? [other, one] : [one, other]
  const attribution = better.process === null ? lesser.attribution : better.attribution
  return {
    ...better,
    process: better.process ?? lesser.process,
    ...(attribution === undefined ? {} : { attribution }),
    service: better.service ?? lesser.service,
    terminal: terminalOf(better.terminal) === null ? (lesser.terminal ?? better.terminal) : better.terminal,
    remote: better.remote ?? lesser.remote,
  }
}

function agree(one: string | null, other: string | null): boolean {
  return one === null || other === null || one === other
}

/** What sshd and cron write where there is no terminal names none. */
function terminalOf(terminal: string | null): string | null {
  if (terminal === null) return null
  const line = terminal.replace(/^\/dev\//, '')
  return /^(?:|ssh|cron|\?|.*notty)$/.test(line) ? null : line
}
