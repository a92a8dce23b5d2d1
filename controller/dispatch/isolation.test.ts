import { expect, test } from 'vitest'
import { hashBreakGlassCode, parseBreakGlassCode } from '../../shared/node/break-glass.ts'
import type { IsolationStatus } from '../../shared/protocol/messages.ts'
import { ISOLATION_OFF } from '../../shared/protocol/testing/isolation-off.ts'
import type { Host } from '../api/services.ts'
import { HOST_A, HOST_B, processFinding } from '../correlate/testing/findings.ts'
import type { ActionRequest } from './action.ts'
import { createBreakGlassService } from './break-glass-service.ts'
import { agentState, createTestDomain, type TestDomain } from './testing/domain.ts'

const target = { kind: 'host' as const, breakGlassHash: null }
const request = (
  action: 'isolateHost' | 'releaseHost',
  agentIds: readonly string[] = [HOST_A],
): ActionRequest => ({
  action,
  args: action === 'isolateHost' ? { leaseMs: 4 * 3_600_000 } : {},
  targets: agentIds.map((agentId) => ({ agentId, target })),
  reason: 'test',
})

/** Plans, signs and delivers; gives the commands' ids. */
function send(domain: TestDomain, asked: ActionRequest): readonly string[] {
  for (const { agentId } of asked.targets) domain.gateway.connect(agentId)
  const plan = domain.dispatch.plan(asked, 'ada@console')
  if (!plan.ok) throw new Error(JSON.stringify(plan.error))
  const signature = domain.signature(plan.value, domain.ada)
  expect(domain.dispatch.approve(plan.value.intentId, signature, 'ada@console').ok).toBe(true)
  return plan.value.actions.map(({ id }) => id)
}

const tell = (domain: TestDomain, id: string, action: string, state: Parameters<typeof agentState>[1]) =>
  domain.dispatch.applyAgentState(
    HOST_A,
    agentState(id, state, { 'cordon.command.action': action, 'cordon.command.proof': { inForce: true } }),
    domain.clock.nowMs,
  )

function breakGlassOf(domain: TestDomain, isolation: Partial<IsolationStatus> = {}) {
  const host = { isolation: { ...ISOLATION_OFF, ...isolation } } as Host
  return createBreakGlassService({ state: domain.state, hosts: { get: () => host }, audit: domain.audit })
}

test('each isolated host gets the hash of a code of its own, and verifies the command with it', () => {
  using domain = createTestDomain()
  const ids = send(domain, request('isolateHost', [HOST_A, HOST_B]))
  const hashes = [HOST_A, HOST_B].map((agentId, index) => {
    const [command] = domain.gateway.commands(agentId)
    if (command === undefined) throw new Error('nothing was sent')
    const verified = domain.verified(agentId, command)
    if (!verified.ok || verified.command.leaf.target.kind !== 'host') throw new Error('it does not verify')
    expect(verified.command.commandId).toBe(ids[index])
    const { code } = breakGlassOf(domain).show(agentId, 'ada', 'test') ?? { code: '' }
    const bytes = parseBreakGlassCode(code)
    expect(bytes && hashBreakGlassCode(bytes)).toBe(verified.command.leaf.target.breakGlassHash)
    return verified.command.leaf.target.breakGlassHash
  })
  expect(new Set(hashes).size).toBe(2)
  // What is served and signed has the hash, never the code.
  const { code } = breakGlassOf(domain).show(HOST_A, 'ada', 'test') ?? { code: '' }
  expect(JSON.stringify(domain.dispatch.list({ limit: 10 }))).not.toContain(code)
})

test('nobody but the controller makes a code, and a release has none', () => {
  using domain = createTestDomain()
  const own = {
    ...request('isolateHost'),
    targets: [{ agentId: HOST_A, target: { ...target, breakGlassHash: 'ab'.repeat(32) } }],
  }
  expect(domain.dispatch.plan(own, 'ada')).toMatchObject({
    ok: false,
    error: { kind: 'invalid', reason: expect.stringContaining('made by the controller') },
  })
  const [id = ''] = send(domain, request('releaseHost'))
  expect(domain.dispatch.get(id)?.target).toEqual(target)
  expect(breakGlassOf(domain).show(HOST_A, 'ada', 'test')).toBeUndefined()
})

test.each([59_999, 30 * 86_400_000 + 1, 0.5, '4h'])('a lease of %s is refused', (leaseMs) => {
  using domain = createTestDomain()
  expect(domain.dispatch.plan({ ...request('isolateHost'), args: { leaseMs } }, 'ada')).toMatchObject({
    ok: false,
    error: { kind: 'invalid' },
  })
})

test('the code that is shown is that of the isolation in force; each showing is in the audit log', () => {
  using domain = createTestDomain()
  const [first = ''] = send(domain, request('isolateHost'))
  domain.clock.nowMs += 1_000
  const [second = ''] = send(domain, request('isolateHost'))
  const [others = ''] = send(domain, request('isolateHost', [HOST_B]))
  const shown = (commandId: string | null) =>
    breakGlassOf(domain, { commandId }).show(HOST_A, 'bob', 'locked out')
  expect(shown(first)?.commandId).toBe(first)
  expect(shown(null)?.commandId).toBe(second)
  // A host that names another's command learns nothing of it.
  expect(shown(others)?.commandId).toBe(second)
  expect(shown(first)?.code).not.toBe(shown(second)?.code)
  const told = domain.audit.list(100).filter(({ action }) => action === 'host.breakGlass')
  expect(told).toHaveLength(5)
  expect(told[0]).toMatchObject({ by: 'bob', subject: HOST_A, detail: expect.stringContaining('locked out') })
  expect(JSON.stringify(told)).not.toContain(shown(first)?.code)
})

test('a code whose command never reached the host is not shown', () => {
  using domain = createTestDomain()
  const plan = domain.dispatch.plan(request('isolateHost'), 'ada')
  expect(plan.ok).toBe(true)
  expect(breakGlassOf(domain).show(HOST_A, 'ada', 'test')).toBeUndefined()
})

test('what is done can be taken back by the host, once, and nothing follows that', () => {
  using domain = createTestDomain()
  const [id = ''] = send(domain, request('isolateHost'))
  for (const state of ['received', 'applied', 'probed', 'done'] as const)
    tell(domain, id, 'isolateHost', state)
  expect(domain.dispatch.get(id)?.state).toBe('done')
  tell(domain, id, 'isolateHost', 'reverted')
  tell(domain, id, 'isolateHost', 'reverted')
  expect(domain.dispatch.get(id)?.state).toBe('reverted')
  expect(domain.alerts()).toEqual([])
  tell(domain, id, 'isolateHost', 'failed')
  expect(domain.dispatch.get(id)?.state).toBe('reverted')
  expect(domain.alerts()).toEqual(['alert.contradiction'])
})

test('an isolation that was never confirmed goes from applied to reverted', () => {
  using domain = createTestDomain()
  const [id = ''] = send(domain, request('isolateHost'))
  for (const state of ['received', 'applied', 'reverted'] as const) tell(domain, id, 'isolateHost', state)
  expect(
    domain.dispatch
      .get(id)
      ?.steps.map(({ state }) => state)
      .slice(-3),
  ).toEqual(['received', 'applied', 'reverted'])
  expect(domain.alerts()).toEqual([])
})

test('an isolation contains its incident, on a second try too; when it is taken back the incident is open again', () => {
  using domain = createTestDomain()
  domain.formation.take(processFinding(HOST_A, [50], 0))
  const status = () => domain.incidents.get('INC-1')?.status
  const asked = { ...request('isolateHost'), incidentId: 'INC-1' }
  const [failed = ''] = send(domain, asked)
  tell(domain, failed, 'isolateHost', 'failed')
  expect(status()).toBe('open')
  domain.clock.nowMs += 1
  // Another code, and all the same the same host.
  const [done = ''] = send(domain, asked)
  for (const state of ['received', 'applied', 'probed', 'done'] as const)
    tell(domain, done, 'isolateHost', state)
  expect(status()).toBe('contained')
  domain.clock.nowMs += 1
  const [release = ''] = send(domain, { ...request('releaseHost'), incidentId: 'INC-1' })
  tell(domain, done, 'isolateHost', 'reverted')
  for (const state of ['received', 'applied', 'probed', 'done'] as const)
    tell(domain, release, 'releaseHost', state)
  expect(domain.dispatch.get(release)?.state).toBe('done')
  expect(status()).toBe('open')
})
