/**
 * What an agent's word about a command changes. Pure. States only go forward; a result may come late, may
 * come twice, and may skip what was lost, but it never takes back an end, and `done` without anything
 * measured is not believed.
 */
import type { AgentCommandState } from '../../shared/events/agent-events.ts'
import type { EventOf } from '../../shared/events/event.ts'
import { type ActionState, FINAL_STATES } from './action.ts'

export interface KnownAction {
  readonly agentId: string
  readonly action: string
  readonly state: ActionState
  readonly deliveries: number
  readonly cancelAsked: boolean
  /** States the agent itself has brought about so far. */
  readonly agentStates: ReadonlySet<ActionState>
  /** The file that the action collects is not whole here. */
  readonly lacksFile: boolean
  /** Whether anything was measured in them. */
  readonly hasProof: boolean
}

export type Verdict =
  | { readonly kind: 'step'; readonly state: ActionState; readonly reason: string; readonly alert?: string }
  /** Nothing new. */
  | { readonly kind: 'ignored' }
  /** The agent said what it could not truthfully say. */
  | { readonly kind: 'refused'; readonly alert: string; readonly reason: string }

const RANK: { readonly [State in AgentCommandState]: number } = {
  received: 2,
  applied: 3,
  probed: 4,
  done: 5,
  failed: 5,
  refused: 5,
  expired: 5,
  unknown: 5,
  reverted: 6,
}

export function judgeAgentState(
  agentId: string,
  event: EventOf<'action-state'>,
  known: KnownAction | undefined,
): Verdict {
  const told = event['cordon.command.state']
  const name = event['cordon.command.id']
  if (known === undefined) {
    return refused('unassignedCommand', `It reports ${told} for command ${name}, which nobody gave.`)
  }
  if (known.agentId !== agentId) {
    return refused('foreignCommand', `It reports ${told} for command ${name} of another agent.`)
  }
  if (known.deliveries === 0) {
    return refused('commandNotSent', `It reports ${told} for command ${name}, which was never sent.`)
  }
  if (event['cordon.command.action'] !== known.action) {
    return refused('otherAction', `It reports ${told} for command ${name} as another action.`)
  }
  // What is done can be taken back later; nothing else follows an end.
  const takenBack = known.state === 'done' && told === 'reverted'
  if (FINAL_STATES.has(known.state) && !takenBack) {
    if (known.agentStates.has(told) || told === known.state) return { kind: 'ignored' }
    if (known.state === 'cancelled' && told === 'refused') return { kind: 'ignored' }
    return refused(
      'contradiction',
      `It reports ${told} for command ${name}, which had ended as ${known.state}.`,
    )
  }
  if (known.agentStates.has(told)) return { kind: 'ignored' }
  if (known.state !== 'unknown' && RANK[told] <= rankOf(known.state)) return { kind: 'ignored' }
  return step(event, known)
}

function step(event: EventOf<'action-state'>, known: KnownAction): Verdict {
  const told = event['cordon.command.state']
  const reason = event['event.reason']
  const measured = known.hasProof || Object.keys(event['cordon.command.proof']).length > 0
  if (told === 'done' && !measured) {
    if (known.state === 'unknown') return { kind: 'ignored' }
    return {
      kind: 'step',
      state: 'unknown',
      reason: `The agent says done and shows nothing that it measured: ${reason}`,
      alert: 'doneWithoutProof',
    }
  }
  if (told === 'done' && known.lacksFile) {
    if (known.state === 'unknown') return { kind: 'ignored' }
    return {
      kind: 'step',
      state: 'unknown',
      reason: `The agent says done, and the file is not here: ${reason}`,
      alert: 'doneWithoutFile',
    }
  }
  if (known.cancelAsked && told === 'refused' && event['cordon.command.proof']['code'] === 'cancelled') {
    return { kind: 'step', state: 'cancelled', reason }
  }
  return { kind: 'step', state: told, reason }
}

function rankOf(state: ActionState): number {
  return state in RANK ? RANK[state as AgentCommandState] : 1
}

function refused(alert: string, reason: string): Verdict {
  return { kind: 'refused', alert, reason }
}
