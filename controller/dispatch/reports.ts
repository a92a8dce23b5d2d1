/** What agents report of their commands: believed only of the command's own agent, and only forwards. */
import type { EventOf } from '../../shared/events/event.ts'
import type { QuarantinedFileTarget } from '../../shared/protocol/commands.ts'
import type { Alerts } from '../audit/alerts.ts'
import { eventTimeMs } from '../correlate/finding.ts'
import type { ActionRow } from '../state/actions-table.ts'
import type { State } from '../state/state.ts'
import { judgeAgentState, type KnownAction } from './agent-state.ts'
import type { Steps } from './steps.ts'

/** An agent's clock is taken for a step's time when it fits between the step before and the arrival. */
const CLOCK_TOLERANCE_MS = 1_000

export interface Reports {
  apply(agentId: string, event: EventOf<'action-state'>, receivedMs: number): void
}

export function createReports(dependencies: {
  readonly state: State
  readonly steps: Steps
  readonly alerts: Alerts
}): Reports {
  const { state, steps, alerts } = dependencies

  const knownOf = (row: ActionRow): KnownAction => {
    const told = state.actions.steps(row.command_id).filter(({ by }) => by === 'agent')
    return {
      agentId: row.agent_id,
      action: row.action,
      state: row.state,
      deliveries: row.deliveries,
      cancelAsked: row.cancel_by !== null,
      lacksFile: row.action === 'collectFile' && state.evidence.get(row.command_id)?.state !== 'complete',
      agentStates: new Set(told.map((step) => step.state)),
      hasProof: told.some(({ proof }) => proof !== '{}'),
    }
  }

  /** What was put back is not in quarantine any more: the action that took it is undone. */
  const revertQuarantine = (restore: ActionRow, atMs: number) => {
    const { quarantineId } = JSON.parse(restore.target) as QuarantinedFileTarget
    const taken = state.actions.get(quarantineId)
    if (taken?.action !== 'quarantineFile' || taken.agent_id !== restore.agent_id || taken.state !== 'done')
      return
    const reason = `The file was put back by ${restore.command_id}: ${restore.reason}`
    steps.take(taken, { state: 'reverted', atMs, by: restore.requested_by, reason })
  }

  return {
    apply(agentId, event, receivedMs) {
      state.run(() => {
        const row = state.actions.get(event['cordon.command.id'])
        const verdict = judgeAgentState(agentId, event, row && knownOf(row))
        if (verdict.kind === 'ignored') return
        if (verdict.kind === 'refused') return alerts.raise(verdict.alert, agentId, verdict.reason)
        if (row === undefined) return
        const { alert, state: reached, reason } = verdict
        if (alert !== undefined) alerts.raise(alert, agentId, `${reason} (command ${row.command_id})`)
        const agentMs = eventTimeMs(event, receivedMs)
        state.actions.agentClock(row.command_id, agentMs)
        const earliestMs = state.actions.steps(row.command_id).at(-1)?.at_ms ?? row.created_ms
        steps.take(row, {
          state: reached,
          atMs: stepTimeMs(agentMs, earliestMs, receivedMs),
          by: 'agent',
          reason,
          proof: event['cordon.command.proof'],
        })
        if (reached === 'done' && row.action === 'restoreFile') revertQuarantine(row, receivedMs)
      })
    },
  }
}

/** The host's own time of a step, when it can be true; else the time at which it was told. */
function stepTimeMs(agentMs: number, earliestMs: number, receivedMs: number): number {
  const fits = agentMs >= earliestMs - CLOCK_TOLERANCE_MS && agentMs <= receivedMs + CLOCK_TOLERANCE_MS
  return fits ? Math.min(Math.max(agentMs, earliestMs), Math.max(receivedMs, earliestMs)) : receivedMs
}
