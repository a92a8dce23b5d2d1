/** The one way by which an action changes: a step on disk, then news of it, then the incident is weighed. */
import type { Change } from '../api/services.ts'
import { clipped } from '../correlate/words.ts'
import type { ActionRow } from '../state/actions-table.ts'
import type { State } from '../state/state.ts'
import { type ActionState, type ActionStep, FINAL_STATES } from './action.ts'

interface Step {
  readonly state: ActionState
  readonly atMs: number
  readonly by: string
  readonly reason: string
  readonly proof?: ActionStep['proof']
}

export interface Steps {
  take(row: Pick<ActionRow, 'command_id' | 'incident' | 'class'>, step: Step): void
}

export function createSteps(dependencies: {
  readonly state: State
  /** Weighs whether the incident is contained now. Called in the transaction of the step. */
  readonly incidentActionsChanged: (incident: number) => void
  readonly announce: (change: Change) => void
}): Steps {
  const { state, incidentActionsChanged, announce } = dependencies
  return {
    take(row, step) {
      state.run(() => {
        state.actions.step(row.command_id, {
          state: step.state,
          at_ms: step.atMs,
          by: clipped(step.by, 128),
          reason: clipped(step.reason, 1_024),
          proof: JSON.stringify(step.proof ?? {}),
        })
        state.afterCommit(() => announce({ kind: 'action', id: row.command_id, state: step.state }))
        // States on the way decide nothing about containment.
        const decides = FINAL_STATES.has(step.state) || step.state === 'unknown'
        if (decides && row.incident !== null && row.class !== 'R') incidentActionsChanged(row.incident)
      })
    },
  }
}
