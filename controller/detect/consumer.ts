/**
 * Follows the event store from a durable cursor: takes what detection found in the agents' events, forms
 * incidents, moves actions on. The cursor is committed in the transaction of its effects, so a crash
 * at any moment loses nothing and does nothing twice.
 *
 * Ordinary events cost no SQL: only what has an effect opens a transaction, and the cursor of uneventful
 * stretches is written at most once a second, because going over them again changes nothing.
 */
import { setImmediate as yieldToOthers } from 'node:timers/promises'
import type { EventOf } from '../../shared/events/event.ts'
import { createBackoff } from '../../shared/node/backoff.ts'
import type { Logger } from '../../shared/node/logger.ts'
import { pause } from '../../shared/node/loop.ts'
import type { AuditLog, Change } from '../api/services.ts'
import type { Alerts } from '../audit/alerts.ts'
import { type Finding, findingFromDetection, findingFromTamper, type Origin } from '../correlate/finding.ts'
import { isDatabaseFailure } from '../state/database-failure.ts'
import type { State } from '../state/state.ts'
import type { EventTail, NotableEvent } from '../store/event-store.ts'

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

export function createConsumer(dependencies: ConsumerDependencies): Consumer {
  const { state, tail, announce, log, nowMs } = dependencies
  const apply = createEffects(dependencies)

  const commit = (effects: readonly NotableEvent[], cursor: string) => {
    state.run(() => {
      for (const effect of effects) apply(effect)
      state.consumer.advance(CONSUMER, cursor)
      state.afterCommit(() => announce({ kind: 'events', cursor }))
    })
  }

  const consume = async (signal: AbortSignal, progressed: () => void) => {
    let cursor = state.consumer.cursor(CONSUMER)
    let committed = cursor
    let committedMs = nowMs()
    const save = (effects: readonly NotableEvent[]) => {
      commit(effects, cursor)
      committed = cursor
      committedMs = nowMs()
      progressed()
    }
    while (!signal.aborted) {
      const stretch = await tail.next(cursor, ROWS_MAX, signal)
      const { events } = stretch
      for (let start = 0; start < events.length; start += EFFECTS_PER_TRANSACTION_MAX) {
        const effects = events.slice(start, start + EFFECTS_PER_TRANSACTION_MAX)
        cursor = effects.at(-1)?.cursor ?? cursor
        save(effects)
        await yieldToOthers()
        if (signal.aborted) return
      }
      const moved = cursor !== stretch.cursor
      cursor = stretch.cursor
      if (nowMs() - committedMs >= UNEVENTFUL_COMMIT_MS) {
        if (cursor !== committed) save([])
      } else if (moved) {
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

/** Applies one effect in a savepoint: an event that cannot be handled is set aside, said, and passed. */
function createEffects(dependencies: ConsumerDependencies): (effect: NotableEvent) => void {
  const { state, hosts, takeFinding, applyAgentState, audit, alerts, log } = dependencies

  const handle = ({ agentId, receivedMs, event, detections }: NotableEvent) => {
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
      const { cursor, agentId, event } = effect
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
