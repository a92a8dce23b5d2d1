/**
 * Raises an alert for a host that should be connected and is not: within 90 s of its last sign of life, once per
 * silence, with a word when it is back. One that said farewell is told apart from one that fell silent.
 *
 * Deadlines are on the monotonic clock, so a wall clock that jumps raises and hides nothing. After a start the
 * hosts get as long as their backoff may have grown to while the controller was away.
 */
import { pause } from '../../shared/node/loop.ts'
import { BACKOFF_MAX_MS } from '../../shared/protocol/limits.ts'
import type { Change } from '../api/services.ts'
import type { Alerts } from '../audit/alerts.ts'
import type { State } from '../state/state.ts'

/** Of the 90 s: the rest is for the check and for the ping that may have been on its way. */
const SILENCE_MS = 80_000
const CHECK_INTERVAL_MS = 5_000
/** A check that comes so much later than it should: this process was frozen, and heard nobody meanwhile. */
const FROZEN_MS = 15_000

export interface SilenceOptions {
  readonly state: Pick<State, 'silences' | 'run' | 'afterCommit'>
  readonly alerts: Alerts
  readonly announce: (change: Change) => void
  /** Agents that were connected once and may be again: not the revoked ones, and not those that are held. */
  readonly expected: () => readonly { readonly agentId: string; readonly lastSeenMs: number }[]
  readonly isConnected: (agentId: string) => boolean
  readonly nowMs: () => number
  readonly monotonic?: () => number
  readonly silenceMs?: number
  readonly checkIntervalMs?: number
}

export interface SilenceWatch {
  connected(agentId: string): void
  /** It is being stopped in order. */
  farewell(agentId: string, reason: string): void
  /** Its connection ended; `quietMs` before that it gave its last sign of life. */
  lost(agentId: string, quietMs: number): void
  /** Checks until `signal` aborts. What was known before the start is taken up again. */
  run(signal: AbortSignal): Promise<void>
}

export function createSilenceWatch(options: SilenceOptions): SilenceWatch {
  const { state, alerts, announce, isConnected, nowMs } = options
  const { silences } = state
  const monotonic = options.monotonic ?? (() => performance.now())
  const silenceMs = options.silenceMs ?? SILENCE_MS
  const checkIntervalMs = options.checkIntervalMs ?? CHECK_INTERVAL_MS
  /** When the alert of a host is due, on the monotonic clock; no entry once it was raised. */
  const due = new Map<string, number>()
  const farewells = new Map<string, string>()

  const raise = (kind: string, agentId: string, detail: string) => {
    alerts.raise(kind, agentId, detail)
    state.afterCommit(() => announce({ kind: 'host', id: agentId }))
  }

  const tell = (agentId: string) => {
    const silence = silences.get(agentId)
    if (!silence || silence.toldMs !== null) return
    silences.told(agentId, nowMs())
    const since = new Date(silence.sinceMs).toISOString()
    if (silence.farewell === null) {
      raise('hostSilent', agentId, `nothing was heard of it since ${since}; it did not say that it stops`)
    } else {
      raise('hostStopped', agentId, `stopped in order at ${since} and not started again: ${silence.farewell}`)
    }
  }

  const takeUp = () => {
    const startedMs = nowMs()
    const awayMs = Math.max(0, startedMs - (silences.aliveMs() ?? startedMs))
    // A ceiling that doubles with each attempt is at most about twice the time of all attempts before.
    const graceMs = Math.max(silenceMs, Math.min(BACKOFF_MAX_MS, 2 * awayMs) + checkIntervalMs)
    state.run(() => {
      for (const { agentId, lastSeenMs } of options.expected()) {
        if (!isConnected(agentId)) silences.begin(agentId, lastSeenMs, null)
      }
      silences.alive(startedMs)
    })
    for (const { agentId, toldMs } of silences.list()) {
      if (toldMs === null && !isConnected(agentId)) due.set(agentId, monotonic() + graceMs)
    }
  }

  const check = () => {
    const nowMonotonic = monotonic()
    const late = [...due].filter(([, dueMs]) => dueMs <= nowMonotonic).map(([agentId]) => agentId)
    const expected = late.length === 0 ? null : new Set(options.expected().map(({ agentId }) => agentId))
    state.run(() => {
      silences.alive(nowMs())
      for (const agentId of late) {
        if (expected?.has(agentId) && !isConnected(agentId)) tell(agentId)
        else if (!expected?.has(agentId)) silences.end(agentId)
      }
    })
    for (const agentId of late) due.delete(agentId)
  }

  return {
    connected(agentId) {
      due.delete(agentId)
      farewells.delete(agentId)
      state.run(() => {
        const silence = silences.get(agentId)
        if (!silence) return
        silences.end(agentId)
        if (silence.toldMs === null) return
        raise('hostBack', agentId, `is back after ${lengthOf(nowMs() - silence.sinceMs)}`)
      })
    },
    farewell(agentId, reason) {
      farewells.set(agentId, reason)
    },
    lost(agentId, quietMs) {
      if (isConnected(agentId)) return
      const farewell = farewells.get(agentId) ?? null
      farewells.delete(agentId)
      due.set(agentId, monotonic() - quietMs + silenceMs)
      silences.begin(agentId, Math.round(nowMs() - quietMs), farewell)
    },
    async run(signal) {
      takeUp()
      let lastMs = monotonic()
      while (!signal.aborted) {
        await pause(checkIntervalMs, signal)
        const lateMs = monotonic() - lastMs - checkIntervalMs
        lastMs = monotonic()
        if (lateMs > FROZEN_MS) {
          for (const [agentId, dueMs] of due) due.set(agentId, dueMs + lateMs)
        }
        if (!signal.aborted) tryTo(check)
      }
    },
  }
}

/** A database that takes nothing right now is met at the next check: what is due stays due. */
function tryTo(check: () => void): void {
  try {
    check()
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && String(error.code).startsWith('SQLITE_'))) throw error
  }
}

function lengthOf(ms: number): string {
  const minutes = Math.round(ms / 60_000)
  if (minutes < 2) return `${Math.max(0, Math.round(ms / 1_000))} s`
  return minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`
}
