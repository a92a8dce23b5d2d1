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
import { isDatabaseFailure } from '../state/database-failure.ts'
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
  /** How the last write ended. */
  readonly noteStorage?: (part: 'state', cause: unknown) => void
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

interface Due {
  /** On the monotonic clock. */
  readonly dueMs: number
  readonly sinceMs: number
  readonly farewell: string | null
}

export function createSilenceWatch(options: SilenceOptions): SilenceWatch {
  const { state, alerts, announce, isConnected, nowMs } = options
  const { silences } = state
  const monotonic = options.monotonic ?? (() => performance.now())
  const silenceMs = options.silenceMs ?? SILENCE_MS
  const checkIntervalMs = options.checkIntervalMs ?? CHECK_INTERVAL_MS
  /** No entry once its alert was raised. In memory too, because a full disk hides no silence. */
  const due = new Map<string, Due>()
  /** Those that came back, until that is on disk. */
  const returned = new Set<string>()
  const farewells = new Map<string, string>()

  const raise = (kind: string, agentId: string, detail: string) => {
    alerts.raise(kind, agentId, detail)
    state.afterCommit(() => announce({ kind: 'host', id: agentId }))
  }

  const tell = (agentId: string, { sinceMs, farewell }: Due) => {
    silences.begin(agentId, sinceMs, farewell)
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
    for (const { agentId, toldMs, sinceMs, farewell } of silences.list()) {
      if (toldMs !== null || isConnected(agentId)) continue
      due.set(agentId, { dueMs: monotonic() + graceMs, sinceMs, farewell })
    }
  }

  const welcomeBack = () => {
    for (const agentId of returned) {
      state.run(() => {
        const silence = silences.get(agentId)
        if (!silence) return
        silences.end(agentId)
        if (silence.toldMs === null) return
        raise('hostBack', agentId, `is back after ${lengthOf(nowMs() - silence.sinceMs)}`)
      })
      returned.delete(agentId)
    }
  }

  const check = () => {
    welcomeBack()
    const nowMonotonic = monotonic()
    const late = [...due].filter(([, { dueMs }]) => dueMs <= nowMonotonic)
    const expected = late.length === 0 ? null : new Set(options.expected().map(({ agentId }) => agentId))
    state.run(() => {
      silences.alive(nowMs())
      for (const [agentId, entry] of late) {
        if (expected?.has(agentId) && !isConnected(agentId)) tell(agentId, entry)
        else if (!expected?.has(agentId)) silences.end(agentId)
      }
    })
    for (const [agentId] of late) due.delete(agentId)
  }

  /** A database that takes nothing right now is met at the next check: what is due stays due. */
  const tryTo = (work: () => void) => {
    try {
      work()
      options.noteStorage?.('state', null)
    } catch (error) {
      if (!isDatabaseFailure(error)) throw error
      options.noteStorage?.('state', error)
    }
  }

  return {
    connected(agentId) {
      due.delete(agentId)
      farewells.delete(agentId)
      returned.add(agentId)
      tryTo(welcomeBack)
    },
    farewell(agentId, reason) {
      farewells.set(agentId, reason)
    },
    lost(agentId, quietMs) {
      if (isConnected(agentId)) return
      const farewell = farewells.get(agentId) ?? null
      farewells.delete(agentId)
      const sinceMs = Math.round(nowMs() - quietMs)
      due.set(agentId, { dueMs: monotonic() - quietMs + silenceMs, sinceMs, farewell })
      tryTo(() => silences.begin(agentId, sinceMs, farewell))
    },
    async run(signal) {
      tryTo(takeUp)
      let lastMs = monotonic()
      while (!signal.aborted) {
        await pause(checkIntervalMs, signal)
        const lateMs = monotonic() - lastMs - checkIntervalMs
        lastMs = monotonic()
        if (lateMs > FROZEN_MS) {
          for (const [agentId, entry] of due) due.set(agentId, { ...entry, dueMs: entry.dueMs + lateMs })
        }
        if (!signal.aborted) tryTo(check)
      }
    },
  }
}

function lengthOf(ms: number): string {
  const minutes = Math.round(ms / 60_000)
  if (minutes < 2) return `${Math.max(0, Math.round(ms / 1_000))} s`
  return minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`
}
