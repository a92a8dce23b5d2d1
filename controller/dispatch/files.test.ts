import { afterEach, beforeEach, expect, test } from 'vitest'
import { HOST_A, HOST_B, processFinding } from '../correlate/testing/findings.ts'
import { incidentId } from '../incidents/incident-id.ts'
import type { ActionRequest } from './action.ts'
import { agentState, createTestDomain, sentKill, type TestDomain } from './testing/domain.ts'

const SHA256 = 'ab'.repeat(32)

let domain: TestDomain
beforeEach(() => {
  domain = createTestDomain()
  domain.gateway.connect(HOST_A)
})
afterEach(() => domain[Symbol.dispose]())

const file = {
  kind: 'file' as const,
  path: '/tmp/f',
  pathBytes: null,
  device: null,
  inode: null,
  sha256: SHA256,
}
const quarantined = (quarantineId: string) => ({
  kind: 'quarantinedFile' as const,
  quarantineId,
  path: '/tmp/f',
  pathBytes: null,
  sha256: SHA256,
})
const request = (
  action: 'quarantineFile' | 'restoreFile',
  target: ActionRequest['targets'][0]['target'],
) => ({
  action,
  args: {},
  targets: [{ agentId: HOST_A, target }],
})
const done = (id: string, action: string, agentId = HOST_A) =>
  domain.dispatch.applyAgentState(
    agentId,
    agentState(id, 'done', { 'cordon.command.action': action }),
    domain.clock.nowMs,
  )

test('what was put back is told as reverted, and an incident that rested on it is open again', () => {
  const number = domain.formation.take(processFinding(HOST_A, [10], 0))
  const incident = incidentId(number)
  const taken = sentKill(domain, { ...request('quarantineFile', file), incidentId: incident })
  done(taken, 'quarantineFile')
  expect(domain.incidents.get(incident)?.status).toBe('contained')
  const back = sentKill(domain, { ...request('restoreFile', quarantined(taken)), incidentId: incident })
  // To be asked for alone changes nothing about what is contained.
  expect(domain.incidents.get(incident)?.status).toBe('contained')
  done(back, 'restoreFile')
  expect(domain.dispatch.get(taken)).toMatchObject({ state: 'reverted' })
  expect(domain.dispatch.get(taken)?.steps.at(-1)?.reason).toContain(back)
  expect(domain.dispatch.get(back)?.state).toBe('done')
  expect(domain.incidents.get(incident)?.status).toBe('open')
  // The agent's own word of the quarantine, told again, takes nothing back.
  done(taken, 'quarantineFile')
  expect(domain.dispatch.get(taken)?.state).toBe('reverted')
  expect(domain.alerts()).toEqual([])
})

test('an agent that restores its own file reverts nothing of another host', () => {
  domain.gateway.connect(HOST_B)
  const taken = sentKill(domain, {
    ...request('quarantineFile', file),
    targets: [{ agentId: HOST_B, target: file }],
  })
  done(taken, 'quarantineFile', HOST_B)
  const back = sentKill(domain, request('restoreFile', quarantined(taken)))
  done(back, 'restoreFile')
  expect(domain.dispatch.get(taken)?.state).toBe('done')
})

test('actions are listed by what they do', () => {
  const taken = sentKill(domain, request('quarantineFile', file))
  sentKill(domain)
  const listed = (action: 'quarantineFile' | 'collectFile') =>
    domain.dispatch.list({ action, limit: 10 }).map(({ id }) => id)
  expect(listed('quarantineFile')).toEqual([taken])
  expect(listed('collectFile')).toEqual([])
})
