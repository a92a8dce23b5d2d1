/**
 * The end of a restoration, by a person at the machine: the accounts of the console come out of the backup
 * themselves, so none of them can vouch for it.
 *
 * The new epoch is above every epoch that was ever in force, also above that of an earlier restoration of the
 * same backup, of which this database knows nothing: it is the time in seconds when that is higher.
 */
import { existsSync } from 'node:fs'
import { createAuditLog } from '../audit/audit-log.ts'
import { createSteps } from '../dispatch/steps.ts'
import { createContainment } from '../incidents/containment.ts'
import type { RestorationRow } from '../state/restoration-table.ts'
import { openState, type State } from '../state/state.ts'
import { BackupError } from './backup-error.ts'
import { refusalIn } from './issuing.ts'

const ENTRIES_LOOKED_AT_MAX = 10_000
const ACTIONS_MAX = 50_000
const LISTED_MAX = 100
const WAITING = ['requested', 'awaitingApproval', 'queued'] as const
const ALERTS = new Set(['alert.unknownSinceRestore', 'alert.controllerBehind'])

export interface Review {
  readonly restoration: RestorationRow | undefined
  readonly epoch: number
  readonly auditEntries: number
  readonly auditHead: string
  /** Asked for before the backup and not sent: cancelled by confirming. */
  readonly waiting: number
  /** Hosts that connected since, for a person to hold against what was revoked after the backup. */
  readonly hosts: readonly {
    readonly agentId: string
    readonly hostName: string
    readonly lastSeenMs: number
  }[]
  /** What agents showed that this controller does not know. */
  readonly alerts: readonly {
    readonly at: string
    readonly action: string
    readonly subject: string
    readonly detail: string
  }[]
}

export function reviewRestoration(statePath: string): Review {
  return withState(statePath, (state) => {
    const restoration = state.restoration.get()
    const sinceMs = restoration?.restored_ms ?? restoration?.backup_ms ?? 0
    const since = new Date(sinceMs).toISOString()
    const audit = createAuditLog(state, Date.now)
    return {
      restoration,
      epoch: state.counters.epoch(),
      auditEntries: state.audit.lastSequence(),
      auditHead: state.audit.last()?.hash ?? '',
      waiting: waitingActions(state).length,
      hosts: state.hosts
        .list()
        .filter(({ last_seen_ms }) => last_seen_ms !== null && last_seen_ms >= sinceMs)
        .slice(0, LISTED_MAX)
        .map(({ agent_id, host_name, last_seen_ms }) => ({
          agentId: agent_id,
          hostName: host_name,
          lastSeenMs: last_seen_ms ?? 0,
        })),
      alerts: audit
        .list(ENTRIES_LOOKED_AT_MAX)
        .filter(({ at, action }) => ALERTS.has(action) && at >= since)
        .slice(0, LISTED_MAX),
    }
  })
}

export interface Confirmation {
  readonly by: string
  readonly reason: string
  readonly nowMs: number
  /** The folder was put back by other means than `restore`, and carries no mark. */
  readonly rolledBack: boolean
}

export interface Confirmed {
  readonly epoch: number
  readonly cancelled: number
}

/** Throws a `BackupError` when there is nothing to confirm. */
export function confirmRestoration(statePath: string, confirmation: Confirmation): Confirmed {
  const { by, reason, nowMs, rolledBack } = confirmation
  return withState(statePath, (state) =>
    state.run(() => {
      if (refusalIn(state) === null && !rolledBack) {
        throw new BackupError(
          'this controller waits for no confirmation; after its folder was put back by other means: --rolled-back',
        )
      }
      const silent = () => undefined
      const containment = createContainment({ state, announce: silent, nowMs: () => nowMs })
      const steps = createSteps({
        state,
        incidentActionsChanged: containment.actionChanged,
        announce: silent,
      })
      const waiting = waitingActions(state)
      for (const row of waiting) {
        const why = 'Asked for before the controller was restored from a backup: ask again.'
        steps.take(row, { state: 'cancelled', atMs: nowMs, by, reason: why })
      }
      const epoch = state.counters.raiseEpoch(Math.floor(nowMs / 1_000))
      state.restoration.confirm(nowMs, by)
      const audit = createAuditLog(state, () => nowMs)
      audit.record(
        by,
        'controller.confirmRestore',
        `epoch ${epoch}`,
        `${reason} (${waiting.length} cancelled)`,
      )
      return { epoch, cancelled: waiting.length }
    }),
  )
}

function waitingActions(state: State) {
  return WAITING.flatMap((waiting) => state.actions.list({ state: waiting }, ACTIONS_MAX))
}

function withState<Value>(path: string, use: (state: State) => Value): Value {
  if (!existsSync(path)) {
    throw new BackupError(`there is no controller at ${path}: setting stateFolder, CORDON_CONTROLLER_STATE`)
  }
  const state = openState(path)
  try {
    return use(state)
  } finally {
    state.close()
  }
}
