/**
 * Whether an incident is contained: all that was asked for is done. Judged by the hosts' own reports with
 * their proofs, never by what was sent; the last word about closing is an operator's.
 */
import type { Change } from '../api/services.ts'
import type { Finding } from '../correlate/finding.ts'
import type { ContainmentRow } from '../state/actions-table.ts'
import type { State } from '../state/state.ts'
import { incidentId } from './incident-id.ts'

export interface Containment {
  /** Call after each change of an action, in its transaction. */
  actionChanged(incident: number): void
}

export function createContainment(dependencies: {
  readonly state: State
  readonly announce: (change: Change) => void
  readonly nowMs: () => number
}): Containment {
  const { state, announce, nowMs } = dependencies
  const tell = (incident: number, text: string) =>
    state.incidentEntries.add(incident, { atMs: nowMs(), kind: 'status', by: 'controller', text })
  return {
    actionChanged(number) {
      state.run(() => {
        const incident = state.incidents.get(number)
        if (incident === undefined) return
        state.incidents.touch(number, nowMs())
        // While anything is underway the rest need not be read: a bulk action has many targets.
        const standing = state.actions.containmentUnderway(number)
          ? { contained: false, done: 0 }
          : standingOf(state.actions.containmentOf(number), incident.reopened_ms)
        if (incident.status === 'open' && standing.contained) {
          state.incidents.contain(number, nowMs())
          tell(number, `Contained: ${standing.done} of ${standing.done} actions are done and proved.`)
        } else if (incident.status === 'contained' && !standing.contained) {
          state.incidents.reopen(number, nowMs(), null)
          tell(number, 'Opened again: an action was asked for, or one was undone, since it was contained.')
        }
        state.afterCommit(() => announce({ kind: 'incident', id: incidentId(number) }))
      })
    },
  }
}

/**
 * The last word per target counts: an action that failed and was done on the second try is done. What was
 * cancelled was not asked for. After a reopening, only something done since then contains.
 */
function standingOf(
  actions: readonly ContainmentRow[],
  reopenedMs: number | null,
): { readonly contained: boolean; readonly done: number } {
  const last = new Map<string, ContainmentRow>()
  for (const action of actions) {
    // A release contains nothing; what it ends is told of the isolation itself.
    if (action.state === 'cancelled' || action.action === 'releaseHost') continue
    // Each isolation of a host has a break-glass code of its own: it is the same target all the same.
    const target = action.action === 'isolateHost' ? '' : action.target
    last.set(`${action.agent_id}\0${action.action}\0${target}`, action)
  }
  const asked = [...last.values()]
  const allDone = asked.every(({ state }) => state === 'done')
  const anyNew = asked.some(({ created_ms }) => reopenedMs === null || created_ms >= reopenedMs)
  return { contained: allDone && anyNew, done: asked.length }
}

/**
 * Whether what was found had happened before containment on that host was finished, in a process that the
 * containment was aimed at: late news of it changes nothing. Both times are of the same host's clock.
 */
export function wasCovered(
  state: Pick<State, 'actions' | 'groupingKeys'>,
  incident: number,
  finding: Finding,
): boolean {
  const finishedMs = state.actions
    .containmentOf(incident)
    .filter(({ agent_id, state: reached }) => agent_id === finding.agentId && reached === 'done')
    .reduce((latest, { agent_ms }) => Math.max(latest, agent_ms ?? 0), 0)
  if (finishedMs === 0 || finding.eventMs > finishedMs) return false
  if (finding.entityId === null) return true
  return [finding.entityId, ...finding.ancestors].some((value) =>
    state.groupingKeys.has(incident, finding.agentId, { kind: 'suspect', value }),
  )
}
