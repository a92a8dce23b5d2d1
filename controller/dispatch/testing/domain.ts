/** The controller's domain over a real database, with a gateway that keeps what it is given. */
import { createHash, type KeyObject } from 'node:crypto'
import type { AgentCommandState } from '../../../shared/events/agent-events.ts'
import type { EventOf } from '../../../shared/events/event.ts'
import { verifyCommand } from '../../../shared/node/command-verification.ts'
import { createSilentLogger } from '../../../shared/node/logger.ts'
import { generateSigningKey, keyIdOf, rawPublicKey, signBytes } from '../../../shared/node/signing.ts'
import type { Keyset } from '../../../shared/protocol/commands.ts'
import type { Command, ControllerMessage, Signature } from '../../../shared/protocol/messages.ts'
import type { Change } from '../../api/services.ts'
import { createAlerts } from '../../audit/alerts.ts'
import { createAuditLog } from '../../audit/audit-log.ts'
import { HOST_A, HOST_B, NOW_MS } from '../../correlate/testing/findings.ts'
import { createContainment } from '../../incidents/containment.ts'
import { createFormation } from '../../incidents/formation.ts'
import { createIncidentService } from '../../incidents/incident-service.ts'
import { openTemporaryState } from '../../state/testing/temporary-state.ts'
import type { ActionPlan, ActionRequest } from '../action.ts'
import { createDispatch } from '../dispatch.ts'

const FLEET = 'f'.repeat(32)

export interface Operator {
  readonly name: string
  readonly key: KeyObject
  readonly classes: ('C' | 'D')[]
}

export function createOperator(name: string, classes: ('C' | 'D')[]): Operator {
  return { name, key: generateSigningKey(), classes }
}

export function keysetOf(
  version: number,
  operators: readonly Operator[],
  controllerKey: KeyObject,
  thresholds = { C: 1, D: 2 },
): Keyset {
  const entry = (key: KeyObject) => {
    const publicKey = rawPublicKey(key)
    return { keyId: keyIdOf(publicKey), publicKey }
  }
  return {
    v: 1,
    fleet: FLEET,
    version,
    issued: NOW_MS - 1_000,
    expires: NOW_MS + 365 * 86_400_000,
    operators: operators.map(({ name, key, classes }) => ({ ...entry(key), kind: 'ed25519', name, classes })),
    thresholds,
    controllers: [entry(controllerKey)],
  }
}

function fingerprintOf(agentId: string): string {
  return createHash('sha256').update(agentId).digest('hex')
}

/** Connected agents by their session's nonce, and what each was sent. */
function createGateway() {
  const nonces = new Map<string, string>()
  const sent: { agentId: string; message: ControllerMessage }[] = []
  let sessions = 0
  return {
    sent,
    /** False: the socket is gone, although nobody has noticed yet. */
    working: true,
    connect(agentId: string) {
      sessions += 1
      nonces.set(agentId, sessions.toString(16).padStart(32, '0'))
    },
    disconnect(agentId: string) {
      nonces.delete(agentId)
    },
    nonceOf: (agentId: string) => nonces.get(agentId),
    send(agentId: string, message: ControllerMessage): boolean {
      if (!this.working || !nonces.has(agentId)) return false
      sent.push({ agentId, message })
      return true
    },
    commands(agentId: string): Command[] {
      return sent.flatMap(({ agentId: to, message }) =>
        to === agentId && message.kind === 'command' ? [message] : [],
      )
    },
    cancels(agentId: string): string[] {
      return sent.flatMap(({ agentId: to, message }) =>
        to === agentId && message.kind === 'cancelCommand' ? [message.commandId] : [],
      )
    },
  }
}

export const killTarget = (pid = 4242) => ({
  kind: 'process' as const,
  pid,
  startTicks: 99,
  bootId: '00000000-0000-4000-8000-000000000000',
  executableSha256: null,
})

export function killRequest(overrides: Partial<ActionRequest> = {}): ActionRequest {
  return {
    action: 'killProcess',
    args: { tree: true },
    targets: [{ agentId: HOST_A, target: killTarget() }],
    reason: 'test',
    ...overrides,
  }
}

export function scanRequest(agentId = HOST_A): ActionRequest {
  return {
    action: 'scanPath',
    args: { filesMax: 10 },
    targets: [{ agentId, target: { kind: 'path', path: '/srv' } }],
    reason: 'test',
  }
}

export function agentState(
  commandId: string,
  state: AgentCommandState,
  overrides: Partial<EventOf<'action-state'>> = {},
): EventOf<'action-state'> {
  return {
    '@timestamp': new Date(NOW_MS + 1_000).toISOString(),
    'event.kind': 'event',
    'event.category': 'host',
    'event.type': 'change',
    'event.action': 'action-state',
    'cordon.command.id': commandId,
    'cordon.command.action': 'killProcess',
    'cordon.command.state': state,
    'event.reason': `agent says ${state}`,
    'cordon.command.proof': state === 'done' || state === 'probed' ? { gone: true } : {},
    ...overrides,
  }
}

export function createTestDomain() {
  const temporary = openTemporaryState()
  const { state } = temporary
  const clock = { nowMs: NOW_MS }
  const nowMs = () => clock.nowMs
  const controllerKey = generateSigningKey()
  const ada = createOperator('ada', ['C', 'D'])
  const bob = createOperator('bob', ['C', 'D'])
  const eve = createOperator('eve', ['D'])
  const keysets = { current: keysetOf(1, [ada, bob, eve], controllerKey) }
  const gateway = createGateway()
  const changes: Change[] = []
  const announce = (change: Change) => changes.push(change)
  const audit = createAuditLog(state, nowMs)
  const log = createSilentLogger()
  const alerts = createAlerts({ state, audit, log, nowMs })
  const containment = createContainment({ state, announce, nowMs })
  const formation = createFormation({ state, announce })
  const revoked = new Set<string>()
  let random = 0
  const dispatch = createDispatch({
    state,
    fleet: FLEET,
    controllerKey,
    keyset: () => keysets.current,
    hostOf: (agentId) =>
      agentId === HOST_A || agentId === HOST_B
        ? {
            hostName: `host-${agentId.slice(0, 1)}`,
            keyFingerprint: fingerprintOf(agentId),
            revoked: revoked.has(agentId),
          }
        : undefined,
    send: (agentId, message) => gateway.send(agentId, message),
    nonceOf: gateway.nonceOf,
    incidentActionsChanged: containment.actionChanged,
    audit,
    alerts,
    announce,
    log,
    nowMs,
    randomBytes: (count) => {
      random += 1
      return createHash('sha256').update(`${random}`).digest().subarray(0, count)
    },
  })
  const incidents = createIncidentService({
    state,
    store: { query: () => Promise.resolve([]) },
    audit,
    announce,
    nowMs,
  })
  return {
    state,
    path: temporary.path,
    clock,
    controllerKey,
    ada,
    bob,
    eve,
    keysets,
    gateway,
    changes,
    audit,
    dispatch,
    formation,
    incidents,
    revoked,
    /** Alerts raised so far, by kind. */
    alerts: () =>
      audit
        .list(1_000)
        .map(({ action }) => action)
        .filter((action) => action.startsWith('alert.')),
    signature: (plan: ActionPlan, operator: Operator): Signature =>
      signBytes('intent', Buffer.from(plan.intent, 'base64'), operator.key),
    /** What the agent itself would say of a delivered command. */
    verified: (agentId: string, command: Command) =>
      verifyCommand(command, {
        keyset: keysets.current,
        fleet: FLEET,
        agentId,
        agentKeyFingerprint: fingerprintOf(agentId),
        sessionNonce: gateway.nonceOf(agentId) ?? '',
        nowMs: clock.nowMs,
        highest: { epoch: 0, sequence: 0 },
      }),
    [Symbol.dispose]: () => temporary[Symbol.dispose](),
  }
}

export type TestDomain = ReturnType<typeof createTestDomain>

/** Plans, approves and delivers a kill to a connected agent; gives back the command's id. */
export function sentKill(domain: TestDomain, overrides: Partial<ActionRequest> = {}): string {
  const plan = domain.dispatch.plan(killRequest(overrides), 'ada@console')
  if (!plan.ok) throw new Error(JSON.stringify(plan.error))
  const approved = domain.dispatch.approve(
    plan.value.intentId,
    domain.signature(plan.value, domain.ada),
    'ada@console',
  )
  if (!approved.ok) throw new Error(JSON.stringify(approved.error))
  const [action] = plan.value.actions
  if (action === undefined) throw new Error('the plan has no action')
  return action.id
}
