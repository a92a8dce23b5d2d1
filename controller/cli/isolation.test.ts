import { afterAll, beforeAll, expect, test } from 'vitest'
import { ISOLATION_OFF } from '../../shared/protocol/testing/isolation-off.ts'
import type { Host } from '../api/services.ts'
import { AGENT_ID, AT } from '../api/testing/fixtures.ts'
import { type MemoryController, startMemoryController } from '../api/testing/memory-controller.ts'
import { createOperator, type Operator } from './testing/operator.ts'

let controller: MemoryController
let operator: Operator
beforeAll(async () => {
  controller = await startMemoryController()
  operator = await createOperator(controller)
})
afterAll(async () => {
  operator[Symbol.dispose]()
  await controller[Symbol.asyncDispose]()
})

/** Web-1, with another isolation, while `work` runs. */
async function withIsolation(
  isolation: Partial<Host['isolation']>,
  work: () => Promise<void>,
): Promise<void> {
  const { list } = controller.services.hosts
  const changed = list().map((host) =>
    host.agentId === AGENT_ID ? { ...host, isolation: { ...ISOLATION_OFF, ...isolation } } : host,
  )
  Object.assign(controller.services.hosts, { list: () => changed })
  await work()
  Object.assign(controller.services.hosts, { list })
}

test('a host is isolated for a time with a reason, signed from the very bytes, and followed to its proof', async () => {
  const words = ['host', 'isolate', 'web-1', '--lease', '4h', '--reason', 'test', '--incident', 'INC-1']
  const result = await operator.run([...words, '--yes', '--wait', '--json'])
  expect(result.exitCode, result.stderr).toBe(0)
  expect(result.json()).toMatchObject([
    { action: 'isolateHost', args: { leaseMs: 14_400_000 }, state: 'done', incidentId: 'INC-1' },
  ])
  expect(result.stderr).toMatch(/To be signed {2}isolateHost, class C/)
  expect(result.stderr).toMatch(/web-1 \(a1b2c3d4\) {2}the whole host/)
  expect(result.stderr).toContain('cordon host break-glass a1b2c3d4')
})

test('without a lease it lasts until it is released, and a release is asked for alike', async () => {
  const isolated = await operator.run([
    'host',
    'isolate',
    'web-1',
    '--reason',
    'test',
    '--yes',
    '--wait',
    '--json',
  ])
  expect(isolated.json()).toMatchObject([{ args: { leaseMs: null }, state: 'done' }])
  const released = await operator.run([
    'host',
    'release',
    'web-1',
    '--reason',
    'test',
    '--yes',
    '--wait',
    '--json',
  ])
  expect(released.json()).toMatchObject([{ action: 'releaseHost', args: {}, state: 'done' }])
})

test.each(['59s', '31d', 'long'])('a lease of %s is refused before anything is planned', async (lease) => {
  const plans = controller.actions.plans.size
  const result = await operator.run(['host', 'isolate', 'web-1', '--lease', lease, '--reason', 'x', '--yes'])
  expect([result.exitCode, controller.actions.plans.size]).toEqual([2, plans])
  expect(result.stderr).toContain('--lease')
})

test('a host that cannot be isolated is told with its reason, and nothing is planned', async () => {
  await withIsolation({ possible: false, reason: 'nft is not there; install nftables' }, async () => {
    const plans = controller.actions.plans.size
    const result = await operator.run(['host', 'isolate', 'web-1', '--reason', 'x', '--yes'])
    expect([result.exitCode, controller.actions.plans.size]).toEqual([1, plans])
    expect(result.stderr).toContain('web-1 cannot be isolated: nft is not there; install nftables')
    expect((await operator.run(['host', 'get', 'web-1'])).stdout).toMatch(
      /Isolation +NOT POSSIBLE: nft is not/,
    )
  })
})

test('isolated hosts are seen in the list, and with since when and until when by themselves', async () => {
  expect((await operator.run(['host', 'ls'])).stdout).not.toContain('ISOLATED')
  await withIsolation(
    { state: 'confirmed', commandId: 'c'.repeat(32), since: AT, leaseEnds: null },
    async () => {
      expect((await operator.run(['host', 'ls'])).stdout).toMatch(/web-1 +a1b2c3d4 +connected, ISOLATED/)
      const { stdout } = await operator.run(['host', 'get', 'web-1'])
      expect(stdout).toMatch(/Isolation +confirmed since 2026-01-02 03:04:05Z, until released, command c{32}/)
    },
  )
})

test('the break-glass code is shown as what is typed on the host', async () => {
  const result = await operator.run([
    'host',
    'break-glass',
    'web-1',
    '--reason',
    'its network card was replaced',
  ])
  expect(result.exitCode, result.stderr).toBe(0)
  expect(result.stdout).toMatch(/^echo [A-Z-]+ \| cordon-agent release --code -\n$/)
  expect((await operator.run(['host', 'break-glass', 'web-1'])).stderr).toContain('--reason is needed')
  const quiet = await operator.run(['host', 'break-glass', 'web-1', '--reason', 'x', '-o', 'name'])
  expect(quiet.stdout).toBe('ABCDE-FGHIJ-KLMNO-PQRST-UVWXY-Z\n')
})
