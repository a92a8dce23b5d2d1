/**
 * Actions on a timeline: what was asked for, who approved it, what was done, and the proof once, at the end.
 * Each single step with what was measured at it is the action's own story (`cordon action get`).
 */
import { clipped } from '../correlate/words.ts'
import { type Action, type ActionState, FINAL_STATES } from '../dispatch/action.ts'
import { actionInWords, proofInWords } from '../dispatch/action-words.ts'
import type { ActionRow, StepRow } from '../state/actions-table.ts'
import { timestamp } from '../state/timestamp.ts'
import type { TimelineEntry } from './incident.ts'

const SUMMARY_CHARACTERS_MAX = 2_048
const SUBJECT_CHARACTERS_MAX = 512
/** Steps that a reader of an incident waits for; the others are the post's business. */
const TOLD: ReadonlySet<ActionState> = new Set<ActionState>([
  'requested',
  'queued',
  'applied',
  ...FINAL_STATES,
])

export function actionEntries(action: ActionRow, steps: readonly StepRow[]): readonly TimelineEntry[] {
  const subject = actionInWords({
    action: action.action,
    target: JSON.parse(action.target) as Action['target'],
    args: JSON.parse(action.args) as Action['args'],
  })
  // Where an action stands is told even when it stands between two such steps.
  return steps
    .filter((step, index) => TOLD.has(step.state) || index === steps.length - 1)
    .map((step) => ({
      at: timestamp(step.at_ms),
      kind: 'action',
      hostName: action.host_name,
      summary: clipped(
        `${clipped(subject, SUBJECT_CHARACTERS_MAX)} ${stepInWords(action, step)}`,
        SUMMARY_CHARACTERS_MAX,
      ),
      reference: action.command_id,
      until: null,
    }))
}

function stepInWords(action: ActionRow, step: StepRow): string {
  const why = step.reason === '' ? '' : `: ${step.reason}`
  switch (step.state) {
    case 'requested':
      return `asked for by ${step.by}${why}`
    case 'awaitingApproval':
      return `waits for approval${why}`
    case 'queued':
      // What only reads is queued by the controller itself.
      return action.class === 'R' ? 'queued' : `approved by ${step.by}`
    case 'sent':
      return 'sent to the host'
    case 'received':
      return 'received by the agent'
    case 'done': {
      const proof = proofInWords(JSON.parse(step.proof) as Record<string, unknown>)
      return `done${why}${proof === '' ? '' : ` [${proof}]`}`
    }
    default:
      return `${step.state}${why}`
  }
}
