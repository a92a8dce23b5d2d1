/**
 * Isolation through both programs: an operator signs, the agent cuts its own network namespace off, and proves it.
 * Controller and agent are in namespaces of the test's own; nothing of this machine's network is touched.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { BreakGlassAnswer, HostAnswer } from '../controller/api/schemas.ts'
import type { Action } from '../controller/dispatch/action.ts'
import { CONTROLLER_ADDRESS, type IsolationStage, startIsolationStage } from './testing/isolation-stage.ts'
import { WAIT } from './testing/observer.ts'
import { isRoot } from './testing/stage.ts'

const REASON = 'a test of isolation'
const ELSEWHERE = '10.214.1.99'
/** Of the agent that is to wait in vain; the others have the minute that is the default. */
const CONFIRM_MS = 2_000

describe.skipIf(!isRoot)('with both programs (root alone may make namespaces)', () => {
  let folder: string
  let stage: IsolationStage
  let before: string
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'cordon-isolation-stage-'))
    stage = await startIsolationStage(folder)
    before = stage.ruleset()
  }, 120_000)
  afterAll(async () => {
    await stage?.[Symbol.asyncDispose]()
    rmSync(folder, { recursive: true, force: true })
  })

  const host = () => stage.operator.get(`/hosts/${stage.agentId}`, HostAnswer)
  const ask = (action: 'isolateHost' | 'releaseHost', leaseMs: number | null = null) =>
    stage.operator.act({
      action,
      args: action === 'isolateHost' ? { leaseMs } : {},
      targets: [{ agentId: stage.agentId, target: { kind: 'host', breakGlassHash: null } }],
      reason: REASON,
    })
  const isCut = () => stage.ruleset().includes('table inet cordon')
  const isolationIs = (state: 'off' | 'unconfirmed' | 'confirmed') =>
    vi.waitFor(async () => {
      const { isolation } = await host()
      if (isolation?.state !== state) throw new Error(`isolation is ${JSON.stringify(isolation)}`)
      return isolation
    }, WAIT)
  const endOf = async (asked: readonly Action[], state: Action['state']) => {
    const ended = await vi.waitFor(async () => {
      const action = await stage.observer.endOf(asked)
      if (action.state !== state) throw new Error(`${action.state}: ${JSON.stringify(action.steps.at(-1))}`)
      return action
    }, WAIT)
    return { ...ended, states: ended.steps.map((step) => step.state) }
  }
  const release = async () => {
    await endOf(await ask('releaseHost'), 'done')
    expect(stage.ruleset()).toBe(before)
  }
  const canReach = (port: number) => {
    const line = `exec 3<>/dev/tcp/${CONTROLLER_ADDRESS}/${port}`
    try {
      stage.run('timeout', '3', 'bash', '-c', line)
      return true
    } catch {
      return false
    }
  }

  test('the host tells that it can be isolated', async () => {
    await vi.waitFor(async () => {
      const { stdout, stderr } = await stage.runAgent(['status', '--json'])
      expect(JSON.parse(stdout || '{}'), stderr).toMatchObject({
        networkIsolation: { possible: true, state: 'off' },
      })
    }, WAIT)
    expect(await isolationIs('off')).toMatchObject({ possible: true })
  }, 120_000)

  test('a signed command isolates, with the controller alone left; a signed release ends it byte for byte', async () => {
    const asked = await ask('isolateHost')
    const done = await endOf(asked, 'done')
    expect(done.states).toEqual(expect.arrayContaining(['received', 'applied', 'probed', 'done']))
    expect(done.steps.at(-1)).toMatchObject({
      by: 'agent',
      proof: { inForce: true, controllerReached: true, receiptAcknowledged: true, devices: 'up0' },
    })
    expect(await isolationIs('confirmed')).toMatchObject({ commandId: asked[0]?.id, leaseEnds: null })
    expect(isCut()).toBe(true)
    expect(canReach(stage.gatewayPort)).toBe(true)
    expect(canReach(stage.gatewayPort + 1)).toBe(false)
    await release()
    await isolationIs('off')
    const isolated = await endOf(asked, 'reverted')
    expect(isolated.steps.at(-1)?.reason).toContain('released by command')
  }, 120_000)

  test('the break-glass code of the controller ends it on the host, and the controller is told', async () => {
    const asked = await ask('isolateHost')
    await endOf(asked, 'done')
    const wrong = await stage.runAgent(['release', '--code', '-'], 'AAAAA-AAAAA-AAAAA-AAAAA-AAAAA-A\n')
    expect(wrong).toMatchObject({ code: 1, stderr: expect.stringContaining('wrong break-glass code') })
    expect(isCut()).toBe(true)
    const shown = await stage.operator.send(`/hosts/${stage.agentId}/break-glass`, BreakGlassAnswer, {
      reason: REASON,
    })
    expect(shown.commandId).toBe(asked[0]?.id)
    const released = await stage.runAgent(['release', '--code', '-'], `${shown.code.toLowerCase()}\n`)
    expect(released).toMatchObject({ code: 0, stdout: expect.stringContaining('released') })
    expect(stage.ruleset()).toBe(before)
    expect((await endOf(asked, 'reverted')).steps.at(-1)?.reason).toContain('break-glass')
    await vi.waitFor(async () => {
      const told = await stage.observer.events({ action: 'tamper' })
      const reasons = told.map(({ fields }) => String(fields['event.reason'])).join()
      expect(reasons).toContain('a wrong break-glass code')
      expect(reasons).toContain('isolation was ended on the host')
    }, WAIT)
    const unknown = await stage.runAgent(['release', '--code', shown.code])
    expect(unknown).toMatchObject({ code: 1, stderr: expect.stringContaining('not isolated') })
    expect(await stage.runAgent(['restore-isolation'])).toMatchObject({ code: 0 })
  }, 120_000)

  test('isolated, it stays so while the agent is killed, while the rules are gone, and while nothing reaches the controller', async () => {
    const asked = await ask('isolateHost', 3_600_000)
    await endOf(asked, 'done')
    stage.agent().kill('SIGKILL')
    await stage.agent().exited
    expect(isCut()).toBe(true)
    // As after a boot: the record is all that is left.
    stage.run('nft', 'flush', 'ruleset')
    const restored = await stage.runAgent(['restore-isolation'])
    expect(restored).toMatchObject({ code: 0, stdout: expect.stringContaining(asked[0]?.id ?? '?') })
    expect(isCut()).toBe(true)
    // The name of the controller cannot be asked for any more; its address is known.
    stage.nameController(ELSEWHERE)
    await stage.startAgent({ CORDON_AGENT_ISOLATION_CONFIRM_MS: String(CONFIRM_MS) })
    expect((await isolationIs('confirmed')).leaseEnds).not.toBeNull()
    stage.nameController(CONTROLLER_ADDRESS)
    stage.runOutside('nft', 'add', 'table', 'inet', 'wall')
    stage.runOutside(
      'nft',
      'add',
      'chain',
      'inet',
      'wall',
      'in',
      '{ type filter hook input priority 0; policy drop; }',
    )
    // Longer than the time in which an isolation is rolled back that was never confirmed.
    const report = async () => JSON.parse((await stage.runAgent(['status', '--json'])).stdout)
    const untilMs = performance.now() + CONFIRM_MS + 1_000
    await vi.waitFor(() => expect(performance.now()).toBeGreaterThan(untilMs), WAIT)
    expect(await report()).toMatchObject({ networkIsolation: { state: 'confirmed' } })
    expect(isCut()).toBe(true)
    stage.runOutside('nft', 'delete', 'table', 'inet', 'wall')
    await release()
  }, 120_000)

  test('with a wrong address of the controller it is rolled back, and told as reverted', async () => {
    await isolationIs('off')
    stage.nameController(ELSEWHERE)
    const asked = await ask('isolateHost')
    await vi.waitFor(() => expect(isCut()).toBe(true), WAIT)
    await vi.waitFor(() => expect(stage.ruleset()).toBe(before), { timeout: 60_000, interval: 200 })
    stage.nameController(CONTROLLER_ADDRESS)
    const ended = await endOf(asked, 'reverted')
    expect(ended.states).toContain('applied')
    expect(ended.steps.at(-1)?.reason).toContain('did not answer')
    await isolationIs('off')
  }, 120_000)

  test('an agent in the network namespace of its launcher refuses, and runs no nft', async () => {
    await stage.agent().stop()
    const launcher = stage.run('readlink', '/proc/self/ns/net').trim()
    await stage.startAgent({ CORDON_AGENT_LAUNCHER_NETNS: launcher })
    const asked = await ask('isolateHost')
    const refused = await endOf(asked, 'refused')
    expect(refused.steps.at(-1)).toMatchObject({
      by: 'agent',
      reason: expect.stringContaining('namespace of the launcher'),
      proof: { code: 'interlock' },
    })
    expect(stage.ruleset()).toBe(before)
    expect((await isolationIs('off')).possible).toBe(false)
  }, 120_000)
})
