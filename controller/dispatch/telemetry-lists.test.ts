import { expect, test } from 'vitest'
import { INTENT_BYTES_MAX, TELEMETRY_LISTS_BYTES_MAX } from '../../shared/protocol/limits.ts'
import { canonicalTelemetryLists, type TelemetryLists } from '../../shared/protocol/telemetry-lists.ts'
import { HOST_A, HOST_B } from '../correlate/testing/findings.ts'
import type { ActionRequest } from './action.ts'
import { createTestDomain } from './testing/domain.ts'

const request = (lists: unknown, changes: Partial<ActionRequest> = {}): ActionRequest => ({
  action: 'setTelemetryLists',
  args: { lists },
  targets: [HOST_A, HOST_B].map((agentId) => ({
    agentId,
    target: { kind: 'host' as const, breakGlassHash: null },
  })),
  reason: 'CHG-7',
  ...changes,
})

test('lists wait for an operator’s signature, and each agent verifies them in their one order of keys', () => {
  using domain = createTestDomain()
  for (const agentId of [HOST_A, HOST_B]) domain.gateway.connect(agentId)
  const written = { rules: [{ pathPrefix: '/var/build', verdict: 'drop', name: 'build' }] }
  const plan = domain.dispatch.plan(request(written), 'ada@console')
  if (!plan.ok) throw new Error(JSON.stringify(plan.error))
  expect(plan.value).toMatchObject({ signaturesNeeded: 1, actions: [{ class: 'C' }, { class: 'C' }] })
  expect(domain.gateway.commands(HOST_A)).toEqual([])
  const signature = domain.signature(plan.value, domain.ada)
  expect(domain.dispatch.approve(plan.value.intentId, signature, 'ada@console').ok).toBe(true)
  for (const agentId of [HOST_A, HOST_B]) {
    const [command] = domain.gateway.commands(agentId)
    const verified = command && domain.verified(agentId, command)
    if (!verified?.ok) throw new Error('it does not verify')
    expect(JSON.stringify(verified.command.intent.args)).toBe(
      '{"lists":{"rules":[{"name":"build","verdict":"drop","pathPrefix":"/var/build"}]}}',
    )
  }
})

test.each([
  [{ rules: [{ name: 'a', verdict: 'drop' }] }, 'telemetry rule "a": it would drop all'],
  [{ rules: [{ name: 'a', verdict: 'hide', userId: 1 }] }, 'telemetry rule "a": `verdict` is one of'],
  [undefined, 'telemetry lists are {"rules": [...]}'],
  [{ rules: [], extra: 1 }, 'with nothing beside `rules`'],
])('lists %j are not planned, and what is wrong is told', (lists, told) => {
  using domain = createTestDomain()
  expect(domain.dispatch.plan(request(lists), 'ada')).toMatchObject({
    ok: false,
    error: { kind: 'invalid', reason: expect.stringContaining(told) },
  })
})

test('the largest lists fit into an intent with the longest reason', () => {
  using domain = createTestDomain()
  const rule = (pathPrefix: string): TelemetryLists => ({
    rules: [0, 1, 2].map((index) => ({ name: `r${index}`, verdict: 'keep', pathPrefix })),
  })
  const room = TELEMETRY_LISTS_BYTES_MAX - canonicalTelemetryLists(rule('/')).length
  const lists = rule(`/${'x'.repeat(Math.floor(room / 3))}`)
  const longest = request(lists, { reason: '\u0001'.repeat(1_024) })
  const plan = domain.dispatch.plan(longest, 'ada')
  if (!plan.ok) throw new Error(JSON.stringify(plan.error))
  expect(Buffer.from(plan.value.intent, 'base64').length).toBeLessThanOrEqual(INTENT_BYTES_MAX)
})
