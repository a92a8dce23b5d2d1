/**
 * Actions in memory, as a controller without agents: real intents, leaves, Merkle roots and signatures; what
 * an agent would do is played step by step whenever an action is read.
 */
import { randomBytes } from 'node:crypto'
import { createMerkleTree } from '../../../shared/node/merkle.ts'
import { decodeBase64, verifyBytes } from '../../../shared/node/signing.ts'
import { ACTIONS, COMMAND_TTL_MS_DEFAULT, type Intent, type Leaf } from '../../../shared/protocol/commands.ts'
import {
  type Action,
  type ActionPlan,
  type ActionRequest,
  type ActionState,
  FINAL_STATES,
} from '../../dispatch/action.ts'
import type { ActionService, Host } from '../services.ts'

export interface MemoryActionsOptions {
  readonly hosts: readonly Host[]
  readonly fleet: string
  /** Public keys in hex of the operators whose signatures count. */
  readonly operatorKeys: string[]
  signaturesNeeded: number
  /** What the agents' part comes to, by index of the action within its plan. */
  outcome: (index: number) => ActionState
  /** A lying controller: changes the intent or the leaves before they are encoded, or the plan after. */
  lie?: {
    readonly intent?: (intent: Intent) => Intent
    readonly leaves?: (leaves: Leaf[]) => Leaf[]
    readonly plan?: (plan: ActionPlan) => ActionPlan
  }
}

export interface MemoryActions extends ActionService {
  readonly plans: Map<string, ActionPlan>
  readonly approvals: { intentId: string; keyId: string; by: string }[]
}

export function createMemoryActions(options: MemoryActionsOptions): MemoryActions {
  const actions = new Map<string, Action>()
  const plans = new Map<string, ActionPlan>()
  const approvals: MemoryActions['approvals'] = []
  const keys = new Map<string, string>()

  const step = (action: Action, state: ActionState, by: string, reason = ''): Action => {
    const at = new Date().toISOString()
    const proof = state === 'done' ? { exists: false } : {}
    const next = { ...action, state, steps: [...action.steps, { state, at, by, reason, proof }] } as Action
    actions.set(next.id, next)
    return next
  }
  const live = (plan: ActionPlan): ActionPlan => ({
    ...plan,
    actions: plan.actions.map((action) => actions.get(action.id) ?? action),
  })
  const advance = (action: Action): Action => {
    const index = plans.get(action.intentId)?.actions.findIndex(({ id }) => id === action.id) ?? 0
    const path: readonly ActionState[] = ['queued', 'sent', 'received', 'applied', 'probed']
    const at = path.indexOf(action.state)
    if (at < 0) return action
    const next = path[at + 1]
    return step(action, next ?? options.outcome(index), 'agent')
  }

  return {
    plans,
    approvals,
    list: (filter) =>
      [...actions.values()]
        .filter((action) => filter.state === undefined || action.state === filter.state)
        .filter(({ action }) => filter.action === undefined || action === filter.action)
        .filter((action) => filter.incidentId === undefined || action.incidentId === filter.incidentId)
        .filter((action) => filter.agentId === undefined || action.agentId === filter.agentId)
        .reverse()
        .slice(0, filter.limit),
    get(id) {
      const action = actions.get(id)
      return action && advance(action)
    },
    plan(request, by) {
      const known = request.idempotencyKey && keys.get(request.idempotencyKey)
      const again = known ? plans.get(known) : undefined
      if (again) return { ok: true, value: live(again) }
      const unknown = request.targets.find(({ agentId }) => !options.hosts.some((h) => h.agentId === agentId))
      if (unknown) return { ok: false, error: { kind: 'notFound', what: 'host' } }
      const plan = makePlan(options, request, by)
      plans.set(plan.intentId, plan)
      if (request.idempotencyKey) keys.set(request.idempotencyKey, plan.intentId)
      for (const action of plan.actions) actions.set(action.id, action)
      return { ok: true, value: plan }
    },
    planOf(intentId) {
      const plan = plans.get(intentId)
      return plan && live(plan)
    },
    approve(intentId, signature, by) {
      const plan = plans.get(intentId)
      if (!plan) return { ok: false, error: { kind: 'notFound', what: 'intent' } }
      const bytes = decodeBase64(plan.intent) ?? Buffer.alloc(0)
      if (!options.operatorKeys.some((key) => verifyBytes('intent', bytes, signature, key))) {
        return {
          ok: false,
          error: { kind: 'notAuthorised', reason: 'no key of the keyset made this signature' },
        }
      }
      approvals.push({ intentId, keyId: signature.keyId, by })
      const next = { ...plan, signaturesNeeded: Math.max(0, plan.signaturesNeeded - 1) }
      plans.set(intentId, next)
      if (next.signaturesNeeded === 0) {
        for (const { id } of next.actions) {
          const action = actions.get(id)
          if (action) step(action, 'queued', by)
        }
      }
      return { ok: true, value: live(next) }
    },
    cancel(id, by, reason) {
      const action = actions.get(id)
      if (!action) return { ok: false, error: { kind: 'notFound', what: 'action' } }
      if (FINAL_STATES.has(action.state))
        return { ok: false, error: { kind: 'tooLate', state: action.state } }
      return { ok: true, value: step(action, 'cancelled', by, reason) }
    },
  }
}

function makePlan(options: MemoryActionsOptions, request: ActionRequest, by: string): ActionPlan {
  const nowMs = Date.now()
  const { class: commandClass } = ACTIONS[request.action]
  const honest: Leaf[] = request.targets.map(({ agentId, target }) => ({
    commandId: randomBytes(16).toString('hex'),
    agentId,
    agentKeyFingerprint: options.hosts.find((h) => h.agentId === agentId)?.keyFingerprint ?? '',
    target,
  }))
  const leaves = options.lie?.leaves?.(honest) ?? honest
  const leafBytes = leaves.map((leaf) => Buffer.from(JSON.stringify(leaf)))
  const truth = {
    v: 1,
    fleet: options.fleet,
    intentId: randomBytes(16).toString('hex'),
    class: commandClass,
    action: request.action,
    args: request.args,
    reason: request.reason,
    incident: request.incidentId ?? null,
    notBefore: nowMs,
    expires: nowMs + (request.ttlMs ?? COMMAND_TTL_MS_DEFAULT),
    targetsRoot: createMerkleTree(leafBytes).root,
    targetsCount: leaves.length,
  } as Intent
  const intent = options.lie?.intent?.(truth) ?? truth
  const plan: ActionPlan = {
    intentId: intent.intentId,
    intent: Buffer.from(JSON.stringify(intent)).toString('base64'),
    leaves: leafBytes.map((bytes) => bytes.toString('base64')),
    signaturesNeeded: commandClass === 'R' ? 0 : options.signaturesNeeded,
    actions: leaves.map((leaf) => actionOf(options, request, intent, leaf, by)),
  }
  return options.lie?.plan?.(plan) ?? plan
}

function actionOf(
  options: MemoryActionsOptions,
  request: ActionRequest,
  intent: Intent,
  leaf: Leaf,
  by: string,
): Action {
  const at = new Date(intent.notBefore).toISOString()
  const { class: commandClass } = ACTIONS[request.action]
  const state = commandClass === 'R' ? 'queued' : 'awaitingApproval'
  return {
    id: leaf.commandId,
    intentId: intent.intentId,
    action: request.action,
    class: commandClass,
    agentId: leaf.agentId,
    hostName: options.hosts.find((h) => h.agentId === leaf.agentId)?.hostName ?? '',
    target: leaf.target,
    args: request.args,
    reason: request.reason,
    incidentId: request.incidentId ?? null,
    requestedBy: by,
    state,
    createdAt: at,
    expiresAt: new Date(intent.expires).toISOString(),
    steps: [
      { state: 'requested', at, by, reason: request.reason, proof: {} },
      { state, at, by: 'controller', reason: '', proof: {} },
    ],
  } as Action
}
