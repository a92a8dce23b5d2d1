import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import type { Contender, HostStandingService } from '../api/services.ts'
import { AGENT_ID, AT } from '../api/testing/fixtures.ts'
import { type MemoryController, startMemoryController } from '../api/testing/memory-controller.ts'
import { createOperator, type Operator } from './testing/operator.ts'

let controller: MemoryController
let operator: Operator
let usual: HostStandingService
/** What the API was asked to do, in order. */
let asked: unknown[][] = []
beforeAll(async () => {
  controller = await startMemoryController()
  operator = await createOperator(controller)
  usual = { ...controller.services.standing }
})
afterEach(() => {
  Object.assign(controller.services.standing, usual)
  asked = []
})
afterAll(async () => {
  operator[Symbol.dispose]()
  await controller[Symbol.asyncDispose]()
})

const contender = (bootId: string): Contender => ({
  bootId,
  certificateFingerprint: 'f0'.repeat(32),
  hostName: 'web-1',
  address: '192.0.2.7',
  seenAt: AT,
})

function withContenders(...boots: readonly string[]): void {
  const standing: Partial<HostStandingService> = {
    contenders: (id) => (id === AGENT_ID ? boots.map(contender) : []),
    readmit: (...call) => {
      asked.push(call)
      return 'readmitted'
    },
  }
  Object.assign(controller.services.standing, standing)
}

const readmit = (...words: readonly string[]) =>
  operator.run(['host', 'readmit', 'web-1', '--reason', 'the clone is off', ...words])

test('of two boots one has to be named, by as many digits as tell it', async () => {
  withContenders('3f9c21d0', '77aa0b12')
  const silent = await readmit()
  expect(silent.exitCode).toBe(2)
  expect(silent.stderr).toContain('--boot 3f9c21d0 | 77aa0b12')
  const wrong = await readmit('--boot', 'ff')
  expect(wrong.exitCode).toBe(2)
  expect(wrong.stderr).toContain('Known: 3f9c21d0, 77aa0b12')
  withContenders('3f9c21d0', '3f9c9999')
  const either = await readmit('--boot', '3f9c')
  expect(either.exitCode).toBe(2)
  expect(either.stderr).toContain('2 contenders have a boot 3f9c')
  withContenders('3f9c21d0', '77aa0b12')
  expect(asked).toEqual([])

  const named = await readmit('--boot', '77')
  expect(named.exitCode, named.stderr).toBe(0)
  expect(asked).toEqual([[AGENT_ID, '77aa0b12', 'admin-user', 'the clone is off']])
  expect(named.stderr).toContain('web-1 is readmitted')
})

test('when one is left no boot has to be named', async () => {
  withContenders('3f9c21d0')
  expect((await readmit()).exitCode).toBe(0)
  expect(asked).toEqual([[AGENT_ID, null, 'admin-user', 'the clone is off']])
})

test('a host that is not held is told so', async () => {
  Object.assign(controller.services.standing, { readmit: () => 'notHeld' })
  const result = await readmit()
  expect(result.exitCode).not.toBe(0)
  expect(result.stderr).toContain('the host is not held')
})

test('without a reason nothing is readmitted and nothing approved', async () => {
  withContenders('3f9c21d0')
  for (const command of ['readmit', 'approve-renewal']) {
    const result = await operator.run(['host', command, 'web-1'])
    expect([command, result.exitCode]).toEqual([command, 2])
    expect(result.stderr).toContain('--reason')
  }
  expect(asked).toEqual([])
})

test('hosts that wait for a renewal are listed, and one is approved', async () => {
  expect((await operator.run(['host', 'renewals'])).stderr).toContain('No host waits for a renewal.')
  const renewal = {
    agentId: AGENT_ID,
    hostName: 'web-1',
    address: '192.0.2.7',
    expiredAt: AT,
    askedAt: AT,
    keyFingerprint: 'ab'.repeat(32),
  }
  const standing: Partial<HostStandingService> = {
    renewals: () => [renewal],
    approveRenewal: (...call) => {
      asked.push(call)
      return { ok: true }
    },
  }
  Object.assign(controller.services.standing, standing)
  expect((await operator.run(['host', 'renewals'])).stdout).toMatch(/web-1.*a1b2c3d4.*192\.0\.2\.7/)
  expect((await operator.run(['host', 'renewals', '--json'])).json()).toEqual([renewal])
  const approved = await operator.run(['host', 'approve-renewal', 'web-1', '--reason', 'was in the cupboard'])
  expect(approved.exitCode, approved.stderr).toBe(0)
  expect(asked).toEqual([[AGENT_ID, 'admin-user', 'was in the cupboard']])
})

test('a renewal that nobody asked for is refused in words', async () => {
  Object.assign(controller.services.standing, {
    approveRenewal: () => ({ ok: false, reason: 'no renewal of this host waits for approval' }),
  })
  const result = await operator.run(['host', 'approve-renewal', 'web-1', '--reason', 'x'])
  expect(result.exitCode).not.toBe(0)
  expect(result.stderr).toContain('no renewal of this host waits for approval')
})
