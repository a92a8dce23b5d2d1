/**
 * Follows the event store from a durable cursor: looks at what agents sent with the fleet's own indicators,
 * forms incidents, moves actions on. The cursor is committed in the transaction of its effects, so a crash
 * at any moment loses nothing and does nothing twice.
 *
 * Ordinary events cost no SQL: only what has an effect opens a transaction, and the cursor of uneventful
 * stretches is written at most once a second, because going over them again changes nothing.
 */
import { setImmediate as yieldToOthers } from 'node:timers/promises'
import type { CordonEvent, DetectionEvent, EventOf } from '../../shared/events/event.ts'
import { createBackoff } from '../../shared/node/backoff.ts'
import type { Logger } from '../../shared/node/logger.ts'
import { pause } from '../../shared/node/loop.ts'
import type { AuditLog, Change } from '../api/services.ts'
import type { Alerts } from '../audit/alerts.ts'
import { type Finding, findingFromDetection, findingFromTamper, type Origin } from '../correlate/finding.ts'
import type { State } from '../state/state.ts'
import type { EventTail, StoredEvent } from '../store/event-store.ts'
import type { Examine } from './examiner.ts'

const CONSUMER = 'detect'
const ROWS_MAX = 1_000
/** Effects in one transaction: bounds how long the controller's only thread is held. */
const EFFECTS_PER_TRANSACTION_MAX = 100
const UNEVENTFUL_COMMIT_MS = 1_000
const RETRY_MIN_MS = 50
const RETRY_MAX_MS = 10_000

export interface ConsumerDependencies {
  readonly state: State
  readonly tail: EventTail
  /** Detections that the fleet's indicators make of an event. Fast: called for each one. */
  readonly examine: Examine
  readonly takeFinding: (finding: Finding) => void
  readonly applyAgentState: (agentId: string, event: EventOf<'action-state'>, receivedMs: number) => void
  readonly hosts: {
    nameOf(agentId: string): string
    agentStarted(agentId: string, event: EventOf<'agent-started'>): void
  }
  readonly audit: AuditLog
  readonly alerts: Alerts
  readonly announce: (change: Change) => void
  readonly log: Pick<Logger, 'warn' | 'error'>
  readonly nowMs: () => number
}

export interface Consumer {
  /** Consumes until `signal` aborts. A failing database is tried again; the error is logged. */
  run(signal: AbortSignal): Promise<void>
}

interface Effect {
  readonly stored: StoredEvent
  readonly detections: readonly DetectionEvent[]
}

export function createConsumer(dependencies: ConsumerDependencies): Consumer {
  const { state, tail, examine, announce, log, nowMs } = dependencies
  const apply = createEffects(dependencies)

  const commit = (effects: readonly Effect[], cursor: string) => {
    state.run(() => {
      for (const effect of effects) apply(effect)
      state.consumer.advance(CONSUMER, cursor)
      state.afterCommit(() => announce({ kind: 'events', cursor }))
    })
  }

  /** What an event will have an effect by; undefined for an ordinary one. */
  const weigh = (stored: StoredEvent): Effect | undefined => {
    const { event } = stored
    if (HANDLED.has(event['event.action'])) return { stored, detections: [] }
    try {
      const detections = examine(event, stored.agentId)
      return detections.length === 0 ? undefined : { stored, detections }
    } catch (error) {
      // A fault of the matcher with one event must not stop all others; it is a programmer's error.
      log.error({ cursor: stored.cursor, error }, 'an event could not be examined')
      return undefined
    }
  }

  const consume = async (signal: AbortSignal, progressed: () => void) => {
    let cursor = state.consumer.cursor(CONSUMER)
    let committed = cursor
    let committedMs = nowMs()
    const save = (effects: readonly Effect[]) => {
      commit(effects, cursor)
      committed = cursor
      committedMs = nowMs()
      progressed()
    }
    while (!signal.aborted) {
      const events = await tail.next(cursor, ROWS_MAX, signal)
      let effects: Effect[] = []
      for (const stored of events) {
        const effect = weigh(stored)
        if (effect !== undefined) effects.push(effect)
        cursor = stored.cursor
        if (effects.length < EFFECTS_PER_TRANSACTION_MAX) continue
        save(effects)
        effects = []
        await yieldToOthers()
        if (signal.aborted) return
      }
      if (effects.length > 0 || nowMs() - committedMs >= UNEVENTFUL_COMMIT_MS) {
        if (cursor !== committed) save(effects)
      } else if (events.length > 0) {
        announce({ kind: 'events', cursor })
      }
    }
    if (cursor !== committed) save([])
  }

  return {
    async run(signal) {
      const backoff = createBackoff(RETRY_MIN_MS, RETRY_MAX_MS)
      while (!signal.aborted) {
        try {
          // Each attempt starts from the cursor on disk: what was not committed is done from the start.
          await consume(signal, () => backoff.reset())
        } catch (error) {
          log.error({ error }, 'events could not be consumed; trying again')
          await pause(backoff.next() + RETRY_MIN_MS, signal)
        }
      }
    },
  }
}

/** Actions of events that always have an effect. */
const HANDLED: ReadonlySet<string> = new Set<CordonEvent['event.action']>([
  'detection',
  'action-state',
  'tamper',
  'agent-started',
])

/** Applies one effect in a savepoint: an event that cannot be handled is set aside, said, and passed. */
function createEffects(dependencies: ConsumerDependencies): (effect: Effect) => void {
  const { state, hosts, takeFinding, applyAgentState, audit, alerts, log } = dependencies

  const handle = ({ stored, detections }: Effect) => {
    const { agentId, receivedMs, event } = stored
    const origin: Origin = { agentId, hostName: hosts.nameOf(agentId), receivedMs, source: 'agent' }
    switch (event['event.action']) {
      case 'detection':
        takeFinding(findingFromDetection(event, origin))
        break
      case 'action-state':
        applyAgentState(agentId, event, receivedMs)
        break
      case 'tamper':
        alerts.raise('tamper', agentId, event['event.reason'])
        takeFinding(findingFromTamper(event, origin))
        break
      case 'agent-started':
        hosts.agentStarted(agentId, event)
        break
      default:
        for (const detection of detections) {
          takeFinding(findingFromDetection(detection, { ...origin, source: 'fleet' }))
        }
    }
  }

  return (effect) => {
    try {
      state.run(() => handle(effect))
    } catch (error) {
      // The database's own failures undo the whole transaction and are tried again.
      if (isDatabaseFailure(error)) throw error
      const { cursor, agentId, event } = effect.stored
      log.error({ cursor, agentId, action: event['event.action'], error }, 'an event was set aside')
      const reason = error instanceof Error ? error.message : String(error)
      audit.record(
        'controller',
        'event.setAside',
        agentId,
        `${event['event.action']} at ${cursor}: ${reason}`,
      )
    }
  }
}

/** Faults of the machine (full disk, locked or unreadable file), not of one row that breaks a rule. */
function isDatabaseFailure(error: unknown): boolean {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'string') return false
  return error.code.startsWith('SQLITE_') && !error.code.startsWith('SQLITE_CONSTRAINT')
}
