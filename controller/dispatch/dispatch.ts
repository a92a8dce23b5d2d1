/**
 * Actions from request to proof. Plans become exact bytes for operators to sign; approved ones are delivered
 * and followed by the agents' own reports. Each step is on disk before anybody hears of it, and no state is
 * claimed that the host did not show.
 */
import { createHash, type KeyObject } from 'node:crypto'
import type { EventOf } from '../../shared/events/event.ts'
import { BREAK_GLASS_BYTES } from '../../shared/node/break-glass.ts'
import type { Logger } from '../../shared/node/logger.ts'
import { pause } from '../../shared/node/loop.ts'
import type { Keyset } from '../../shared/protocol/commands.ts'
import type { ControllerMessage } from '../../shared/protocol/messages.ts'
import type { ActionService, AuditLog, Change, Outcome } from '../api/services.ts'
import type { Alerts } from '../audit/alerts.ts'
import { incidentNumber } from '../incidents/incident-id.ts'
import type { ActionRow } from '../state/actions-table.ts'
import type { IntentRow } from '../state/intents-table.ts'
import type { State } from '../state/state.ts'
import type { Action, ActionError, ActionPlan, ActionRequest } from './action.ts'
import { actionView } from './action-view.ts'
import { createDelivery } from './delivery.ts'
import { type Planned, planAction, requestProblem, type TargetHost } from './plan.ts'
import { createReports } from './reports.ts'
import { checkSigner, standingOf } from './signatures.ts'
import { createSteps } from './steps.ts'

/** Actions that have not ended, over the whole fleet. */
const OPEN_ACTIONS_MAX = 50_000
const LIST_MAX = 1_000
const EXPIRY_INTERVAL_MS = 1_000

export interface DispatchDependencies {
  readonly state: State
  /** The fleet's id, 128 bits in hex. */
  readonly fleet: string
  /** Signs wrappers and intents of class R. */
  readonly controllerKey: KeyObject
  readonly keyset: () => Keyset
  readonly hostOf: (agentId: string) => TargetHost | undefined
  /** False when the agent has no live session; then nothing was sent. */
  readonly send: (agentId: string, message: ControllerMessage) => boolean
  readonly nonceOf: (agentId: string) => string | undefined
  readonly incidentActionsChanged: (incident: number) => void
  readonly audit: AuditLog
  readonly alerts: Alerts
  readonly announce: (change: Change) => void
  readonly log: Pick<Logger, 'error'>
  readonly nowMs: () => number
  readonly randomBytes: (count: number) => Buffer
}

export interface Dispatch extends ActionService {
  /** After the agent's hello: sends what waited for it, and again what its last session left open. */
  connected(agentId: string): void
  /** After a new keyset reached the agents: sends what it holds back no longer. */
  keysetChanged(): void
  applyAgentState(agentId: string, event: EventOf<'action-state'>, receivedMs: number): void
  /** Ends what has expired, until `signal` aborts. */
  run(signal: AbortSignal): Promise<void>
}

export function createDispatch(dependencies: DispatchDependencies): Dispatch {
  const { state, keyset, audit, nowMs, log } = dependencies
  const steps = createSteps(dependencies)
  const delivery = createDelivery({ ...dependencies, steps })

  const planOf = (intent: IntentRow): ActionPlan => {
    const rows = state.actions.ofIntent(intent.intent_id)
    const awaiting = rows.some((row) => row.state === 'awaitingApproval')
    const { needed } = standingOf(intent.class, state.intents.signatures(intent.intent_id), keyset())
    return {
      intentId: intent.intent_id,
      intent: intent.bytes.toString('base64'),
      leaves: rows.map(({ leaf }) => leaf.toString('base64')),
      signaturesNeeded: awaiting ? needed : 0,
      actions: rows.map((row) => actionView(state, row)),
    }
  }
  const mustPlanOf = (intentId: string): ActionPlan => {
    const intent = state.intents.get(intentId)
    if (intent === undefined) throw new Error(`intent ${intentId} is gone`)
    return planOf(intent)
  }
  const actionOf = (row: ActionRow): Action => {
    const latest = state.actions.get(row.command_id)
    if (latest === undefined) throw new Error(`action ${row.command_id} is gone`)
    return actionView(state, latest)
  }
  const deliverSoon = (rows: readonly { readonly agent_id: string }[]) =>
    state.afterCommit(() => delivery.deliver(rows.map(({ agent_id }) => agent_id)))

  const plan = (request: ActionRequest, by: string): Outcome<ActionPlan, ActionError> =>
    state.run(() => {
      const problem = requestProblem(request)
      if (problem !== undefined) return refuse({ kind: 'invalid', reason: problem })
      const requestHash = createHash('sha256').update(JSON.stringify(request)).digest('hex')
      const key = request.idempotencyKey
      const earlier = key === undefined ? undefined : state.intents.byIdempotencyKey(by, key)
      if (earlier !== undefined) {
        if (earlier.request_hash === requestHash) return { ok: true, value: planOf(earlier) }
        return refuse({ kind: 'invalid', reason: 'this idempotency key was used for another request' })
      }
      const incident = request.incidentId === undefined ? null : incidentNumber(request.incidentId)
      if (incident === undefined || (incident !== null && state.incidents.get(incident) === undefined)) {
        return refuse({ kind: 'notFound', what: 'incident' })
      }
      const planned = planAction(request, {
        fleet: dependencies.fleet,
        hostOf: dependencies.hostOf,
        nowMs: nowMs(),
        randomId: () => dependencies.randomBytes(16).toString('hex'),
        randomCode: () => dependencies.randomBytes(BREAK_GLASS_BYTES),
      })
      if (!planned.ok) return planned
      if (state.actions.openCount() + planned.value.leaves.length > OPEN_ACTIONS_MAX) {
        return refuse({ kind: 'invalid', reason: `more than ${OPEN_ACTIONS_MAX} actions have not ended` })
      }
      store(planned.value, { by, incident, key: key ?? null, requestHash })
      return { ok: true, value: mustPlanOf(planned.value.intent.intentId) }
    })

  const store = (
    { intent, intentBytes, leaves, codes }: Planned,
    request: { by: string; incident: number | null; key: string | null; requestHash: string },
  ) => {
    state.intents.insert({
      intent_id: intent.intentId,
      class: intent.class,
      action: intent.action,
      bytes: intentBytes,
      requested_by: request.by,
      created_ms: intent.notBefore,
      expires_ms: intent.expires,
      idempotency_key: request.key,
      request_hash: request.requestHash,
    })
    const { needed } = standingOf(intent.class, [], keyset())
    leaves.forEach(({ leaf, bytes, hostName }, index) => {
      const row = {
        command_id: leaf.commandId,
        intent_id: intent.intentId,
        leaf_index: index,
        leaf: bytes,
        agent_id: leaf.agentId,
        host_name: hostName,
        action: intent.action,
        class: intent.class,
        target: JSON.stringify(leaf.target),
        args: JSON.stringify(intent.args),
        reason: intent.reason,
        incident: request.incident,
        requested_by: request.by,
        created_ms: intent.notBefore,
        expires_ms: intent.expires,
      }
      state.actions.insert(row)
      const step = { atMs: intent.notBefore, by: request.by }
      steps.take(row, { ...step, state: 'requested', reason: intent.reason })
      if (intent.class === 'R') {
        steps.take(row, { ...step, by: 'controller', state: 'queued', reason: 'Reading needs no approval.' })
      } else {
        const reason = `Needs ${needed} ${needed === 1 ? 'operator' : 'different operators'} to sign.`
        steps.take(row, { ...step, by: 'controller', state: 'awaitingApproval', reason })
      }
    })
    for (const code of codes) state.breakGlass.insert({ ...code, createdMs: intent.notBefore })
    // A contained incident in which something more is asked for is not contained until that is done.
    if (request.incident !== null && intent.class !== 'R') {
      dependencies.incidentActionsChanged(request.incident)
    }
    const detail = `${intent.action} on ${leaves.length} targets: ${intent.reason}`
    audit.record(request.by, 'action.plan', intent.intentId, detail)
    if (intent.class === 'R') deliverSoon(leaves.map(({ leaf }) => ({ agent_id: leaf.agentId })))
  }

  const approve: ActionService['approve'] = (intentId, signature, by) =>
    state.run(() => {
      const intent = state.intents.get(intentId)
      if (intent === undefined) return refuse({ kind: 'notFound', what: 'intent' })
      if (intent.class === 'R') return refuse({ kind: 'invalid', reason: 'reading needs no approval' })
      const rows = state.actions.ofIntent(intentId)
      const awaiting = rows.filter((row) => row.state === 'awaitingApproval')
      if (awaiting.length === 0) return refuse({ kind: 'tooLate', state: rows[0]?.state ?? 'unknown' })
      if (intent.expires_ms <= nowMs()) return refuse({ kind: 'tooLate', state: 'expired' })
      const notAuthorised = (reason: string) => {
        audit.record(by, 'action.approvalRefused', intentId, `${reason} (key ${signature.keyId})`)
        return refuse({ kind: 'notAuthorised', reason })
      }
      const current = keyset()
      if (current.expires <= nowMs()) return notAuthorised('the keyset in force has expired')
      const signer = checkSigner(intent.bytes, intent.class, signature, current)
      if (!signer.ok) return notAuthorised(signer.reason)
      const before = standingOf(intent.class, state.intents.signatures(intentId), current)
      if (before.operators.has(signer.operator)) {
        return notAuthorised(`${signer.operator} has already signed; another operator has to`)
      }
      const { keyId: key_id, signature: hex } = signature
      const at_ms = nowMs()
      state.intents.addSignature({
        intent_id: intentId,
        key_id,
        signature: hex,
        operator: signer.operator,
        by,
        at_ms,
      })
      audit.record(by, 'action.approve', intentId, `Signed with the key of ${signer.operator}.`)
      const after = standingOf(intent.class, state.intents.signatures(intentId), current)
      const names = [...after.operators].join(' and ')
      for (const row of awaiting) {
        const step = { atMs: at_ms, by: signer.operator }
        if (after.needed === 0) {
          steps.take(row, { ...step, state: 'queued', reason: `Approved by ${names}.` })
        } else {
          const reason = `Signed by ${names}; ${after.needed} more needed.`
          steps.take(row, { ...step, state: 'awaitingApproval', reason })
        }
      }
      if (after.needed === 0) deliverSoon(awaiting)
      return { ok: true, value: planOf(intent) }
    })

  const cancel: ActionService['cancel'] = (id, by, reason) =>
    state.run(() => {
      const row = state.actions.get(id)
      if (row === undefined) return refuse({ kind: 'notFound', what: 'action' })
      const waiting = row.state === 'requested' || row.state === 'awaitingApproval' || row.state === 'queued'
      if (waiting) {
        steps.take(row, { state: 'cancelled', atMs: nowMs(), by, reason })
      } else if (row.state === 'sent' || row.state === 'received') {
        // Only the host can say whether this comes in time; until it does, the state stays what it is.
        state.actions.cancelRequested(id, by, reason)
        const asked = `Cancelling was asked for: ${reason}`
        steps.take(row, { state: row.state, atMs: nowMs(), by, reason: asked })
        state.afterCommit(() => dependencies.send(row.agent_id, { kind: 'cancelCommand', commandId: id }))
      } else {
        return refuse({ kind: 'tooLate', state: row.state })
      }
      audit.record(by, 'action.cancel', id, reason)
      return { ok: true, value: actionOf(row) }
    })

  return {
    list({ incidentId, agentId, state: wanted, action, limit }) {
      const incident = incidentId === undefined ? undefined : incidentNumber(incidentId)
      if (incidentId !== undefined && incident === undefined) return []
      const filter = {
        ...(incident === undefined ? {} : { incident }),
        ...(agentId === undefined ? {} : { agentId }),
        ...(wanted === undefined ? {} : { state: wanted }),
        ...(action === undefined ? {} : { action }),
      }
      return state.actions.list(filter, Math.min(limit, LIST_MAX)).map((row) => actionView(state, row))
    },
    get(id) {
      const row = state.actions.get(id)
      return row && actionView(state, row)
    },
    plan,
    planOf(intentId) {
      const intent = state.intents.get(intentId)
      return intent && planOf(intent)
    },
    approve,
    cancel,
    connected: (agentId) => delivery.deliver([agentId]),
    keysetChanged: () => deliverSoon(state.actions.list({ state: 'queued' }, OPEN_ACTIONS_MAX)),
    applyAgentState: createReports({ ...dependencies, steps }).apply,
    async run(signal) {
      while (!signal.aborted) {
        try {
          delivery.expire()
        } catch (error) {
          log.error({ error }, 'expired actions could not be ended; trying again')
        }
        await pause(EXPIRY_INTERVAL_MS, signal)
      }
    },
  }
}

function refuse(error: ActionError): { readonly ok: false; readonly error: ActionError } {
  return { ok: false, error }
}
