/**
 * Alerts about agents that say what they should not. The first of a kind is in the audit log at once; what
 * follows within a minute is counted, so that a hostile agent cannot bury the log.
 */
import type { Logger } from '../../shared/node/logger.ts'
import type { AuditLog } from '../api/services.ts'
import type { State } from '../state/state.ts'

const QUIET_MS = 60_000
/** Pairs of agent and kind remembered; past it the oldest are forgotten and would be told again. */
const REMEMBERED_MAX = 10_000

export interface Alerts {
  /** `kind` is a word such as `unassignedCommand`; `detail` is for a person. */
  raise(kind: string, agentId: string, detail: string): void
}

export function createAlerts(dependencies: {
  readonly state: Pick<State, 'afterCommit'>
  readonly audit: AuditLog
  readonly log: Pick<Logger, 'warn'>
  readonly nowMs: () => number
}): Alerts {
  const { state, audit, log, nowMs } = dependencies
  const raised = new Map<string, { untilMs: number; suppressed: number }>()
  return {
    raise(kind, agentId, detail) {
      const key = `${kind} ${agentId}`
      const earlier = raised.get(key)
      if (earlier !== undefined && nowMs() < earlier.untilMs) {
        earlier.suppressed += 1
        return
      }
      const more = earlier?.suppressed ? ` (and ${earlier.suppressed} more before)` : ''
      audit.record(`agent:${agentId}`, `alert.${kind}`, agentId, `${detail}${more}`)
      // After the commit: an entry that is rolled back was not told, and has to be told again.
      state.afterCommit(() => {
        log.warn({ kind, agentId }, detail)
        raised.delete(key)
        raised.set(key, { untilMs: nowMs() + QUIET_MS, suppressed: 0 })
        const oldest = raised.keys().next().value
        if (raised.size > REMEMBERED_MAX && oldest !== undefined) raised.delete(oldest)
      })
    },
  }
}
