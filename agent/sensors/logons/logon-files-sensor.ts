/**
 * Logons as login programs write them down: failed ones in btmp, sessions that begin and end in wtmp (utmp(5)).
 * wtmpdb and lastlog2, the databases of newer systems, are not read: there, PAM or audit tells the logons.
 */
import type { FileRecord, KernelText, LogonRecord, Sensor, SensorRecord } from '../records.ts'
import { type AppendedRows, followRows } from './appended-rows.ts'
import { readUtmpRow, UTMP_ROW_BYTES, UTMP_TYPES, type UtmpRow } from './utmp.ts'

export interface LogonFilesOptions {
  readonly clock: () => number
  readonly btmpPath?: string
  readonly wtmpPath?: string
  /** How often the files are looked at when nobody says that they changed. */
  readonly pollIntervalMs?: number
  /** As `process.arch` says. */
  readonly architecture?: string
}

export interface LogonFilesSensor extends Sensor {
  /** A record of the file layers: one that concerns btmp or wtmp has them read soon. Cheap; never throws. */
  observe(record: FileRecord): void
}

const name = 'logon-files'
const POLL_INTERVAL_MS = 10_000
/** Logons come in bursts; the first of one waits this long. */
const SOON_MS = 20
/** Sessions that are remembered, to say whose ended. */
const LINES_MAX = 4_096
/** How far the time in a row may be off before the agent's own is told instead. */
const TIME_TOLERANCE_MS = 60_000
const NAME_CHARACTERS_MAX = 64

export function probeLogonFiles(architecture: string = process.arch): {
  readonly ok: boolean
  readonly reason: string
} {
  return architecture === 'x64'
    ? { ok: true, reason: 'failed logons from btmp, sessions from wtmp' }
    : { ok: false, reason: `rows of btmp and wtmp are read on x86-64 only, and this is ${architecture}` }
}

export function createLogonFilesSensor(options: LogonFilesOptions): LogonFilesSensor {
  const { clock, btmpPath = '/var/log/btmp', wtmpPath = '/var/log/wtmp' } = options
  const { pollIntervalMs = POLL_INTERVAL_MS } = options
  const sessions = createSessions()
  let lookSoon: () => void = () => undefined

  function look(btmp: AppendedRows, wtmp: AppendedRows): SensorRecord[] {
    const records: SensorRecord[] = []
    const failed = btmp.read()
    for (const row of parsed(failed.rows))
      if (row.type !== UTMP_TYPES.bootTime) records.push(failure(row, clock()))
    const sessionRows = wtmp.read()
    for (const row of parsed(sessionRows.rows)) {
      const record = sessions.next(row, clock())
      if (record !== null) records.push(record)
    }
    const lost = failed.lost + sessionRows.lost
    if (lost > 0) records.push({ kind: 'loss', timestampMs: clock(), source: name, count: lost })
    return records
  }

  return {
    name,
    observe({ path, previousPath }) {
      if (path === btmpPath || path === wtmpPath || previousPath === btmpPath || previousPath === wtmpPath)
        lookSoon()
    },
    async run(sink, signal, attached) {
      const btmp = followRows(btmpPath, UTMP_ROW_BYTES)
      const wtmp = followRows(wtmpPath, UTMP_ROW_BYTES)
      btmp.readLast(0)
      for (const row of parsed(wtmp.readLast(LINES_MAX))) sessions.next(row, clock())
      let timer: NodeJS.Timeout | undefined
      let isSoon = false
      const plan = (delayMs: number) => {
        clearTimeout(timer)
        timer = setTimeout(tick, delayMs)
      }
      const tick = () => {
        isSoon = false
        const records = look(btmp, wtmp)
        if (records.length > 0) sink(records)
        // A burst can leave rows for the next look.
        plan(records.length > 0 ? SOON_MS : pollIntervalMs)
      }
      lookSoon = () => {
        if (isSoon) return
        isSoon = true
        plan(SOON_MS)
      }
      plan(pollIntervalMs)
      attached()
      await new Promise<void>((resolve) => {
        if (signal.aborted) resolve()
        else signal.addEventListener('abort', () => resolve(), { once: true })
      })
      clearTimeout(timer)
      lookSoon = () => undefined
      const records = look(btmp, wtmp)
      if (records.length > 0) sink(records)
      btmp.close()
      wtmp.close()
    },
  }
}

function parsed(rows: readonly Buffer[]): UtmpRow[] {
  return rows.flatMap((bytes) => readUtmpRow(bytes) ?? [])
}

function failure(row: UtmpRow, nowMs: number): LogonRecord {
  return logon('logon-failed', 'btmp', row, row.user, nowMs)
}

/** Whose session a line of wtmp begins or ends. */
function createSessions() {
  const users = new Map<string, Pick<UtmpRow, 'user' | 'host'>>()
  return {
    /** Null: nothing that is told. */
    next(row: UtmpRow, nowMs: number): LogonRecord | null {
      switch (row.type) {
        case UTMP_TYPES.bootTime:
          users.clear()
          return null
        case UTMP_TYPES.userProcess:
          if (users.size >= LINES_MAX) users.clear()
          users.set(row.line, { user: row.user, host: row.host })
          return logon('logon', 'wtmp', row, row.user, nowMs)
        case UTMP_TYPES.deadProcess: {
          const session = users.get(row.line)
          users.delete(row.line)
          // Without a user it is the end of something that nobody logged on to.
          if (session === undefined && row.user.length === 0) return null
          const host = row.host ?? session?.host ?? null
          return logon('logoff', 'wtmp', { ...row, host }, session?.user ?? row.user, nowMs)
        }
        default:
          return null
      }
    },
  }
}

function logon(
  action: LogonRecord['action'],
  source: 'btmp' | 'wtmp',
  row: UtmpRow,
  account: KernelText,
  nowMs: number,
): LogonRecord {
  return {
    kind: 'logon',
    timestampMs: Math.abs(row.timeMs - nowMs) <= TIME_TOLERANCE_MS ? row.timeMs : nowMs,
    process: row.pid > 0 ? { pid: row.pid, startTicks: null } : null,
    action,
    account,
    source,
    service: row.line.startsWith('ssh') ? 'sshd' : null,
    terminal: row.line === '' ? null : row.line.slice(0, NAME_CHARACTERS_MAX),
    remote: row.host,
  }
}
