/** Stored actions as they are served. */
import { incidentId } from '../incidents/incident-id.ts'
import type { ActionRow, StepRow } from '../state/actions-table.ts'
import type { State } from '../state/state.ts'
import { timestamp } from '../state/timestamp.ts'
import type { Action, ActionStep } from './action.ts'

export function actionView(state: Pick<State, 'actions' | 'evidence'>, row: ActionRow): Action {
  return {
    id: row.command_id,
    intentId: row.intent_id,
    action: row.action,
    class: row.class,
    agentId: row.agent_id,
    hostName: row.host_name,
    target: JSON.parse(row.target) as Action['target'],
    args: JSON.parse(row.args) as Action['args'],
    reason: row.reason,
    incidentId: row.incident === null ? null : incidentId(row.incident),
    requestedBy: row.requested_by,
    state: row.state,
    createdAt: timestamp(row.created_ms),
    expiresAt: timestamp(row.expires_ms),
    steps: state.actions.steps(row.command_id).map(stepView),
    ...progressOf(state, row),
  }
}

function progressOf(state: Pick<State, 'evidence'>, row: ActionRow): Pick<Action, 'progress'> {
  const evidence = row.action === 'collectFile' ? state.evidence.get(row.command_id) : undefined
  if (!evidence) return {}
  return { progress: { receivedBytes: evidence.received_bytes, sizeBytes: evidence.size_bytes } }
}

function stepView(row: StepRow): ActionStep {
  return {
    state: row.state,
    at: timestamp(row.at_ms),
    by: row.by,
    reason: row.reason,
    proof: JSON.parse(row.proof) as ActionStep['proof'],
  }
}
