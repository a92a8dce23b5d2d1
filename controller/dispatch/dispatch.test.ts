import { expect, test } from 'vitest'
import { compileSchema } from '../../shared/protocol/parse.ts'
import { HOST_A, HOST_B, HOST_C, NOW_MS } from '../correlate/testing/findings.ts'
import { Action, ActionPlan, type ActionRequest } from './action.ts'
import {
  agentState,
  createOperator,
  createTestDomain,
  keysetOf,
  killRequest,
  killTarget,
  scanRequest,
  sentKill,
  type TestDomain,
} from './testing/domain.ts'

const planCheck = compileSchema(ActionPlan)
const actionCheck = compileSchema(Action)

function mustPlan(domain: TestDomain, request: ActionRequest) {
  const plan = domain.dispatch.plan(request, 'ada@console')
  if (!plan.ok) throw new Error(JSON.stringify(plan.error))
  expect(planCheck.Check(plan.value)).toBe(true)
  return plan.value
}

const stateOf = (domain: TestDomain, id: string) => domain.dispatch.get(id)?.state

test('a class R action is queued at once, signed by the controller, and the agent accepts it', () => {
  using domain = createTestDomain()
  domain.gateway.connect(HOST_A)
  const plan = mustPlan(domain, scanRequest())
  expect(plan.signaturesNeeded).toBe(0)
  const [command] = domain.gateway.commands(HOST_A)
  if (command === undefined) throw new Error('nothing was sent')
  expect(domain.verified(HOST_A, command)).toMatchObject({ ok: true, command: { operators: [], live: true } })
  expect(stateOf(domain, plan.actions[0]?.id ?? '')).toBe('sent')
})

test('a class C action waits for an operator’s signature over the stored bytes, then the agent accepts it', () => {
  using domain = createTestDomain()
  domain.gateway.connect(HOST_A)
  const plan = mustPlan(domain, killRequest())
  expect(plan.signaturesNeeded).toBe(1)
  expect(domain.gateway.sent).toEqual([])
  const approved = domain.dispatch.approve(plan.intentId, domain.signature(plan, domain.ada), 'ada@console')
  expect(approved).toMatchObject({ ok: true, value: { signaturesNeeded: 0, intent: plan.intent } })
  const [command] = domain.gateway.commands(HOST_A)
  if (command === undefined) throw new Error('nothing was sent')
  expect(domain.verified(HOST_A, command)).toMatchObject({ ok: true, command: { operators: ['ada'] } })
  const action = domain.dispatch.get(plan.actions[0]?.id ?? '')
  expect(actionCheck.Check(action)).toBe(true)
  expect(action?.steps.map(({ state, by }) => [state, by])).toEqual([
    ['requested', 'ada@console'],
    ['awaitingApproval', 'controller'],
    ['queued', 'ada'],
    ['sent', 'controller'],
  ])
})

test('one approval covers many targets, and each agent gets only its own leaf', () => {
  using domain = createTestDomain()
  domain.gateway.connect(HOST_A)
  domain.gateway.connect(HOST_B)
  const targets = [HOST_A, HOST_B, HOST_A].map((agentId, index) => ({
    agentId,
    target: killTarget(100 + index),
  }))
  sentKill(domain, { targets })
  expect(domain.gateway.commands(HOST_A)).toHaveLength(2)
  expect(domain.gateway.commands(HOST_B)).toHaveLength(1)
  for (const { agentId, message } of domain.gateway.sent) {
    if (message.kind === 'command') expect(domain.verified(agentId, message).ok).toBe(true)
  }
})

const wrongApprovals: readonly {
  readonly name: string
  readonly sign: (domain: TestDomain, plan: ActionPlan) => ReturnType<TestDomain['signature']>
  readonly reason: RegExp
}[] = [
  {
    name: 'a key that is not in the keyset',
    sign: (domain, plan) => domain.signature(plan, createOperator('mallory', ['C', 'D'])),
    reason: /not in the keyset/,
  },
  {
    name: 'a key without the class',
    sign: (domain, plan) => domain.signature(plan, domain.eve),
    reason: /eve may not sign class C/,
  },
  {
    name: 'a signature over other bytes',
    sign: (domain, plan) =>
      domain.signature(
        { ...plan, intent: Buffer.from(`${Buffer.from(plan.intent, 'base64')} `).toString('base64') },
        domain.ada,
      ),
    reason: /does not fit the stored bytes/,
  },
  {
    name: 'another operator’s key id on a good signature',
    sign: (domain, plan) => ({
      ...domain.signature(plan, domain.eve),
      keyId: domain.signature(plan, domain.ada).keyId,
    }),
    reason: /does not fit/,
  },
  {
    name: 'a malformed signature',
    sign: (domain, plan) => ({ ...domain.signature(plan, domain.ada), signature: '__proto__' }),
    reason: /does not fit/,
  },
]

test.each(wrongApprovals)('$name approves nothing and is in the audit log', ({ sign, reason }) => {
  using domain = createTestDomain()
  domain.gateway.connect(HOST_A)
  const plan = mustPlan(domain, killRequest())
  const result = domain.dispatch.approve(plan.intentId, sign(domain, plan), 'ada@console')
  expect(result).toMatchObject({
    ok: false,
    error: { kind: 'notAuthorised', reason: expect.stringMatching(reason) },
  })
  expect(domain.gateway.sent).toEqual([])
  expect(stateOf(domain, plan.actions[0]?.id ?? '')).toBe('awaitingApproval')
  expect(domain.audit.list(1)[0]).toMatchObject({ action: 'action.approvalRefused', subject: plan.intentId })
})

test('where two operators are needed, one person counts once, with one key or with two', () => {
  using domain = createTestDomain()
  const second = { ...createOperator('ada', ['C', 'D']) }
  domain.keysets.current = keysetOf(1, [domain.ada, domain.bob, second], domain.controllerKey, { C: 2, D: 2 })
  domain.gateway.connect(HOST_A)
  const plan = mustPlan(domain, killRequest())
  const approve = (operator: typeof second) =>
    domain.dispatch.approve(plan.intentId, domain.signature(plan, operator), 'x')
  expect(approve(domain.ada)).toMatchObject({ ok: true, value: { signaturesNeeded: 1 } })
  for (const same of [domain.ada, second]) {
    expect(approve(same)).toMatchObject({
      ok: false,
      error: { reason: expect.stringMatching(/already signed/) },
    })
  }
  expect(domain.gateway.sent).toEqual([])
  expect(approve(domain.bob)).toMatchObject({ ok: true, value: { signaturesNeeded: 0 } })
  const [command] = domain.gateway.commands(HOST_A)
  if (command === undefined) throw new Error('nothing was sent')
  expect(domain.verified(HOST_A, command)).toMatchObject({ ok: true })
})

test('an approval by an operator who has left the keyset holds no longer', () => {
  using domain = createTestDomain()
  const plan = mustPlan(domain, killRequest())
  expect(domain.dispatch.approve(plan.intentId, domain.signature(plan, domain.ada), 'x').ok).toBe(true)
  domain.keysets.current = keysetOf(2, [domain.bob], domain.controllerKey)
  domain.gateway.connect(HOST_A)
  domain.dispatch.connected(HOST_A)
  const id = plan.actions[0]?.id ?? ''
  expect(domain.gateway.sent).toEqual([])
  expect(stateOf(domain, id)).toBe('awaitingApproval')
  expect(domain.dispatch.approve(plan.intentId, domain.signature(plan, domain.bob), 'x').ok).toBe(true)
  const [command] = domain.gateway.commands(HOST_A)
  if (command === undefined) throw new Error('nothing was sent')
  expect(domain.verified(HOST_A, command)).toMatchObject({ ok: true, command: { operators: ['bob'] } })
})

test('under an expired keyset nothing is approved and nothing leaves; a newer one sets it free', () => {
  using domain = createTestDomain()
  domain.gateway.connect(HOST_A)
  const valid = domain.keysets.current
  domain.keysets.current = { ...valid, expires: NOW_MS }
  const kill = mustPlan(domain, killRequest())
  mustPlan(domain, scanRequest())
  expect(domain.dispatch.approve(kill.intentId, domain.signature(kill, domain.ada), 'x')).toMatchObject({
    error: { reason: expect.stringMatching(/expired/) },
  })
  expect(domain.gateway.sent).toEqual([])
  domain.keysets.current = { ...valid, version: 2 }
  domain.dispatch.keysetChanged()
  expect(domain.gateway.commands(HOST_A)).toHaveLength(1)
})

const wrongRequests: readonly { readonly name: string; readonly request: unknown; readonly kind: string }[] =
  [
    { name: 'an unknown action', request: { ...killRequest(), action: 'toString' }, kind: 'invalid' },
    { name: 'arguments of another action', request: killRequest({ args: { filesMax: 1 } }), kind: 'invalid' },
    {
      name: 'an argument too many',
      request: killRequest({ args: { tree: true, also: 1 } }),
      kind: 'invalid',
    },
    {
      name: 'a __proto__ argument',
      request: killRequest({ args: JSON.parse('{"tree":true,"__proto__":{}}') as Record<string, unknown> }),
      kind: 'invalid',
    },
    {
      name: 'a target of another kind',
      request: killRequest({ targets: [{ agentId: HOST_A, target: { kind: 'path', path: '/' } }] }),
      kind: 'invalid',
    },
    {
      name: 'an unknown host',
      request: killRequest({ targets: [{ agentId: HOST_C, target: killTarget() }] }),
      kind: 'notFound',
    },
    {
      name: 'a host by its name',
      request: killRequest({ targets: [{ agentId: 'host-a', target: killTarget() }] }),
      kind: 'invalid',
    },
    {
      name: 'the same target twice',
      request: killRequest({
        targets: [1, 2].map(() => ({ agentId: HOST_A, target: killTarget() })),
      }),
      kind: 'invalid',
    },
    { name: 'no target', request: killRequest({ targets: [] }), kind: 'invalid' },
    { name: 'no reason', request: killRequest({ reason: '' }), kind: 'invalid' },
    { name: 'a life of more than a day', request: killRequest({ ttlMs: 86_400_001 }), kind: 'invalid' },
    { name: 'an unknown incident', request: killRequest({ incidentId: 'INC-7' }), kind: 'notFound' },
    { name: 'a text for an incident', request: killRequest({ incidentId: "1' OR 1" }), kind: 'notFound' },
    { name: 'no object at all', request: null, kind: 'invalid' },
  ]

test.each(wrongRequests)('a request with $name plans nothing', ({ request, kind }) => {
  using domain = createTestDomain()
  expect(domain.dispatch.plan(request as ActionRequest, 'ada')).toMatchObject({ ok: false, error: { kind } })
  expect(domain.dispatch.list({ limit: 10 })).toEqual([])
})

test('nothing is planned for a revoked host', () => {
  using domain = createTestDomain()
  domain.revoked.add(HOST_A)
  expect(domain.dispatch.plan(killRequest(), 'ada')).toMatchObject({ ok: false, error: { kind: 'invalid' } })
})

test('the order of keys that a client sends does not change what is signed', () => {
  using domain = createTestDomain()
  const { kind, pid, startTicks, bootId, executableSha256 } = killTarget()
  const target = { executableSha256, bootId, startTicks, pid, kind }
  const plan = mustPlan(domain, killRequest({ targets: [{ agentId: HOST_A, target }] }))
  const leaf = JSON.parse(Buffer.from(plan.leaves[0] ?? '', 'base64').toString()) as { target: object }
  expect(Object.keys(leaf.target)).toEqual(['kind', 'pid', 'startTicks', 'bootId', 'executableSha256'])
})

test('an idempotency key gives the same plan again, refuses another request, and is each operator’s own', () => {
  using domain = createTestDomain()
  const request = killRequest({ idempotencyKey: 'one-and-only' })
  const first = mustPlan(domain, request)
  expect(mustPlan(domain, request).intentId).toBe(first.intentId)
  expect(domain.dispatch.plan({ ...request, reason: 'other' }, 'ada@console')).toMatchObject({ ok: false })
  const other = domain.dispatch.plan(request, 'bob@console')
  expect(other.ok && other.value.intentId).not.toBe(first.intentId)
  expect(domain.dispatch.list({ limit: 10 })).toHaveLength(2)
})

test('the life of an action is followed step by step with what the agent measured', () => {
  using domain = createTestDomain()
  domain.gateway.connect(HOST_A)
  const id = sentKill(domain)
  for (const state of ['received', 'applied', 'probed', 'done'] as const) {
    domain.dispatch.applyAgentState(HOST_A, agentState(id, state), NOW_MS + 1_100)
    // The stream is at least once: a repeat changes nothing.
    domain.dispatch.applyAgentState(HOST_A, agentState(id, state), NOW_MS + 1_200)
  }
  const action = domain.dispatch.get(id)
  expect(action?.state).toBe('done')
  expect(action?.steps.slice(-4).map(({ state, by, proof }) => [state, by, proof])).toEqual([
    ['received', 'agent', {}],
    ['applied', 'agent', {}],
    ['probed', 'agent', { gone: true }],
    ['done', 'agent', { gone: true }],
  ])
  expect(action?.steps.at(-1)?.at).toBe(new Date(NOW_MS + 1_000).toISOString())
  expect(domain.alerts()).toEqual([])
  expect(domain.changes.filter(({ kind }) => kind === 'action').at(-1)).toMatchObject({ id, state: 'done' })
})

test.each([
  ['of a command that nobody gave', HOST_A, 'e'.repeat(32), 'alert.unassignedCommand'],
  ['of a command for another agent', HOST_B, null, 'alert.foreignCommand'],
])('a report %s changes nothing and raises an alert', (_name, from, otherId, alert) => {
  using domain = createTestDomain()
  domain.gateway.connect(HOST_A)
  const id = sentKill(domain)
  domain.dispatch.applyAgentState(from, agentState(otherId ?? id, 'done'), NOW_MS + 1_100)
  expect(stateOf(domain, id)).toBe('sent')
  expect(domain.alerts()).toEqual([alert])
})

test('a report of a command that was never sent, or as another action, is forged', () => {
  using domain = createTestDomain()
  const plan = mustPlan(domain, killRequest())
  const waiting = plan.actions[0]?.id ?? ''
  domain.dispatch.applyAgentState(HOST_A, agentState(waiting, 'done'), NOW_MS + 1_100)
  expect(stateOf(domain, waiting)).toBe('awaitingApproval')
  domain.gateway.connect(HOST_A)
  const id = sentKill(domain)
  const event = agentState(id, 'done', { 'cordon.command.action': 'scanPath' })
  domain.dispatch.applyAgentState(HOST_A, event, NOW_MS + 1_100)
  expect(stateOf(domain, id)).toBe('sent')
  expect(domain.alerts()).toEqual(['alert.otherAction', 'alert.commandNotSent'])
})

test('done without anything measured is not believed, and a proof that follows is', () => {
  using domain = createTestDomain()
  domain.gateway.connect(HOST_A)
  const id = sentKill(domain)
  const empty = agentState(id, 'done', { 'cordon.command.proof': {} })
  domain.dispatch.applyAgentState(HOST_A, empty, NOW_MS + 1_100)
  domain.dispatch.applyAgentState(HOST_A, empty, NOW_MS + 1_200)
  const action = domain.dispatch.get(id)
  expect(action?.state).toBe('unknown')
  expect(action?.steps.at(-1)?.reason).toMatch(/shows nothing that it measured/)
  expect(domain.alerts()).toEqual(['alert.doneWithoutProof'])
  domain.dispatch.applyAgentState(HOST_A, agentState(id, 'done'), NOW_MS + 1_300)
  expect(stateOf(domain, id)).toBe('done')
})

test('an end is never taken back, and states never go backwards', () => {
  using domain = createTestDomain()
  domain.gateway.connect(HOST_A)
  const id = sentKill(domain)
  domain.dispatch.applyAgentState(HOST_A, agentState(id, 'probed'), NOW_MS + 1_100)
  domain.dispatch.applyAgentState(HOST_A, agentState(id, 'received'), NOW_MS + 1_100)
  expect(stateOf(domain, id)).toBe('probed')
  domain.dispatch.applyAgentState(HOST_A, agentState(id, 'failed'), NOW_MS + 1_200)
  domain.dispatch.applyAgentState(HOST_A, agentState(id, 'done'), NOW_MS + 1_300)
  expect(stateOf(domain, id)).toBe('failed')
  expect(domain.alerts()).toEqual(['alert.contradiction'])
})

test('a host whose clock is days off does not bend the order of the steps', () => {
  using domain = createTestDomain()
  domain.gateway.connect(HOST_A)
  const id = sentKill(domain)
  for (const [state, days] of [
    ['received', -3],
    ['applied', 3],
  ] as const) {
    const event = agentState(id, state, {
      '@timestamp': new Date(NOW_MS + days * 86_400_000).toISOString(),
    })
    domain.dispatch.applyAgentState(HOST_A, event, NOW_MS + 500)
  }
  const impossible = agentState(id, 'probed', { '@timestamp': '2026-99-99T99:99:99.999Z' })
  domain.dispatch.applyAgentState(HOST_A, impossible, NOW_MS + 600)
  const times = domain.dispatch.get(id)?.steps.map(({ at }) => Date.parse(at)) ?? []
  expect(times.slice(-3)).toEqual([NOW_MS + 500, NOW_MS + 500, NOW_MS + 600])
})

test('for an agent that is away a command waits, and leaves with the nonce of the session it comes back in', () => {
  using domain = createTestDomain()
  const id = sentKill(domain)
  expect(stateOf(domain, id)).toBe('queued')
  domain.clock.nowMs += 60_000
  domain.gateway.connect(HOST_A)
  domain.dispatch.connected(HOST_A)
  const [command] = domain.gateway.commands(HOST_A)
  if (command === undefined) throw new Error('nothing was sent')
  expect(domain.verified(HOST_A, command)).toMatchObject({ ok: true, command: { live: true } })
})

test('what the last session left unconfirmed is sent again under the same id and a new wrapper; what it confirmed is not', () => {
  using domain = createTestDomain()
  domain.gateway.connect(HOST_A)
  const lost = sentKill(domain)
  const kept = sentKill(domain, { targets: [{ agentId: HOST_A, target: killTarget(5_000) }] })
  domain.dispatch.applyAgentState(HOST_A, agentState(kept, 'received'), NOW_MS + 1_100)
  domain.dispatch.connected(HOST_A)
  expect(domain.gateway.commands(HOST_A)).toHaveLength(2)
  domain.gateway.connect(HOST_A)
  domain.dispatch.connected(HOST_A)
  const commands = domain.gateway.commands(HOST_A)
  expect(commands).toHaveLength(3)
  const [first, , again] = commands
  if (first === undefined || again === undefined) throw new Error('nothing was sent again')
  const verified = domain.verified(HOST_A, again)
  expect(verified).toMatchObject({ ok: true, command: { commandId: lost, wrapper: { sequence: 3 } } })
  expect(again.intent).toBe(first.intent)
  expect(again.wrapper).not.toBe(first.wrapper)
})

test('a command that could not be handed to the socket goes back to the queue and was never sent', () => {
  using domain = createTestDomain()
  domain.gateway.connect(HOST_A)
  domain.gateway.working = false
  const id = sentKill(domain)
  expect(stateOf(domain, id)).toBe('queued')
  domain.dispatch.applyAgentState(HOST_A, agentState(id, 'done'), NOW_MS + 1_100)
  expect(domain.alerts()).toEqual(['alert.commandNotSent'])
  domain.gateway.working = true
  domain.dispatch.connected(HOST_A)
  expect(stateOf(domain, id)).toBe('sent')
})

test('what expires unsent is expired; what was sent and never answered is unknown until a late report tells', async () => {
  using domain = createTestDomain()
  domain.gateway.connect(HOST_A)
  const sent = sentKill(domain)
  const queued = sentKill(domain, { targets: [{ agentId: HOST_B, target: killTarget() }] })
  const waiting = mustPlan(domain, killRequest())
  const stop = new AbortController()
  domain.clock.nowMs += 15 * 60_000 + 60_001
  const running = domain.dispatch.run(stop.signal)
  stop.abort()
  await running
  expect(stateOf(domain, queued)).toBe('expired')
  expect(stateOf(domain, waiting.actions[0]?.id ?? '')).toBe('expired')
  expect(stateOf(domain, sent)).toBe('unknown')
  expect(domain.dispatch.approve(waiting.intentId, domain.signature(waiting, domain.ada), 'x')).toMatchObject(
    { error: { kind: 'tooLate', state: 'expired' } },
  )
  domain.gateway.connect(HOST_B)
  domain.dispatch.connected(HOST_B)
  expect(domain.gateway.commands(HOST_B)).toEqual([])
  domain.dispatch.applyAgentState(HOST_A, agentState(sent, 'received'), domain.clock.nowMs)
  domain.dispatch.applyAgentState(HOST_A, agentState(sent, 'done'), domain.clock.nowMs)
  expect(stateOf(domain, sent)).toBe('done')
})

test('a command cancelled before it was sent never leaves', () => {
  using domain = createTestDomain()
  const id = sentKill(domain)
  expect(domain.dispatch.cancel(id, 'bob', 'not needed')).toMatchObject({
    ok: true,
    value: { state: 'cancelled' },
  })
  domain.gateway.connect(HOST_A)
  domain.dispatch.connected(HOST_A)
  expect(domain.gateway.sent).toEqual([])
  expect(domain.dispatch.cancel(id, 'bob', 'again')).toMatchObject({ error: { kind: 'tooLate' } })
  expect(domain.dispatch.cancel('0'.repeat(32), 'bob', 'x')).toMatchObject({ error: { kind: 'notFound' } })
})

test('one cancelled target does not hold back the others of its intent', () => {
  using domain = createTestDomain()
  domain.gateway.connect(HOST_A)
  const targets = [1, 2].map((index) => ({ agentId: HOST_A, target: killTarget(100 + index) }))
  const plan = mustPlan(domain, killRequest({ targets }))
  domain.dispatch.cancel(plan.actions[0]?.id ?? '', 'bob', 'not this one')
  domain.dispatch.approve(plan.intentId, domain.signature(plan, domain.ada), 'x')
  expect(domain.dispatch.planOf(plan.intentId)?.actions.map(({ state }) => state)).toEqual([
    'cancelled',
    'sent',
  ])
  const [command] = domain.gateway.commands(HOST_A)
  if (command === undefined) throw new Error('nothing was sent')
  expect(domain.verified(HOST_A, command)).toMatchObject({ ok: true })
})

test('after sending only the agent can say that a cancel came in time', () => {
  using domain = createTestDomain()
  domain.gateway.connect(HOST_A)
  const inTime = sentKill(domain)
  const late = sentKill(domain, { targets: [{ agentId: HOST_A, target: killTarget(5_000) }] })
  for (const id of [inTime, late]) {
    expect(domain.dispatch.cancel(id, 'bob', 'stop')).toMatchObject({ ok: true, value: { state: 'sent' } })
  }
  expect(domain.gateway.cancels(HOST_A)).toEqual([inTime, late])
  const dropped = agentState(inTime, 'refused', { 'cordon.command.proof': { code: 'cancelled' } })
  domain.dispatch.applyAgentState(HOST_A, dropped, NOW_MS + 1_100)
  expect(stateOf(domain, inTime)).toBe('cancelled')
  domain.dispatch.applyAgentState(HOST_A, agentState(late, 'applied'), NOW_MS + 1_100)
  domain.dispatch.applyAgentState(HOST_A, agentState(late, 'done'), NOW_MS + 1_200)
  expect(stateOf(domain, late)).toBe('done')
  expect(domain.alerts()).toEqual([])
})

test('a cancelled command whose delivery is uncertain is not sent again; the cancel is', () => {
  using domain = createTestDomain()
  domain.gateway.connect(HOST_A)
  const id = sentKill(domain)
  domain.gateway.disconnect(HOST_A)
  domain.dispatch.cancel(id, 'bob', 'stop')
  domain.gateway.connect(HOST_A)
  domain.dispatch.connected(HOST_A)
  expect(domain.gateway.commands(HOST_A)).toHaveLength(1)
  expect(domain.gateway.cancels(HOST_A)).toEqual([id])
})

test('an action that is applied can no longer be cancelled', () => {
  using domain = createTestDomain()
  domain.gateway.connect(HOST_A)
  const id = sentKill(domain)
  domain.dispatch.applyAgentState(HOST_A, agentState(id, 'applied'), NOW_MS + 1_100)
  expect(domain.dispatch.cancel(id, 'bob', 'stop')).toMatchObject({
    error: { kind: 'tooLate', state: 'applied' },
  })
})

test('actions are listed by incident, host and state, newest first', () => {
  using domain = createTestDomain()
  const first = sentKill(domain)
  domain.clock.nowMs += 1
  const second = sentKill(domain, { targets: [{ agentId: HOST_B, target: killTarget() }] })
  expect(domain.dispatch.list({ limit: 10 }).map(({ id }) => id)).toEqual([second, first])
  expect(domain.dispatch.list({ agentId: HOST_A, limit: 10 }).map(({ id }) => id)).toEqual([first])
  expect(domain.dispatch.list({ agentId: HOST_A, state: 'done', limit: 10 })).toEqual([])
  expect(domain.dispatch.list({ incidentId: 'INC-1', limit: 10 })).toEqual([])
  expect(domain.dispatch.list({ incidentId: 'nonsense', limit: 10 })).toEqual([])
  expect(domain.dispatch.list({ state: 'queued', limit: 1 })).toHaveLength(1)
})

test('no sequence is ever used twice for an agent', () => {
  using domain = createTestDomain()
  for (let session = 0; session < 5; session += 1) {
    domain.gateway.connect(HOST_A)
    domain.dispatch.connected(HOST_A)
    sentKill(domain, { targets: [{ agentId: HOST_A, target: killTarget(100 + session) }] })
  }
  const sequences = domain.gateway
    .commands(HOST_A)
    .map(
      ({ wrapper }) =>
        (JSON.parse(Buffer.from(wrapper, 'base64').toString()) as { sequence: number }).sequence,
    )
  expect(sequences).toEqual(sequences.map((_value, index) => index + 1))
  expect(sequences.length).toBe(15)
})
