import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { formatBreakGlassCode, hashBreakGlassCode } from '../../../shared/node/break-glass.ts'
import { AGENT_SETTINGS } from '../../config/settings.ts'
import { ATTEMPTS_MAX, ATTEMPTS_PAUSE_MS } from './break-glass.ts'
import { CONFIRM_WITHIN_MS } from './isolation.ts'
import { readRecord, recordKeepsRules, recordPath, writeRecord } from './record.ts'
import { releaseOffline, restoreIsolation } from './restore.ts'
import { CONTROLLER, createIsolatedHost, type IsolatedHost } from './testing/isolated-host.ts'
import { WAIT } from './testing/network.ts'

const isRoot = process.getuid?.() === 0
const COMMAND = 'ab'.repeat(16)
const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
const never = new AbortController().signal

test('isolation is rolled back after a minute without an answer, and a setting can only shorten it', () => {
  expect(CONFIRM_WITHIN_MS).toBe(60_000)
  expect(AGENT_SETTINGS.isolationConfirmMs).toMatchObject({ fallback: 60_000, maximum: 60_000 })
})

describe.skipIf(!isRoot)('in a namespace (root alone may make one)', () => {
  let host: IsolatedHost
  let before: string
  beforeEach(async () => {
    host = await createIsolatedHost()
    before = await host.ruleset()
    host.start()
  })
  afterEach(() => host[Symbol.asyncDispose]())

  const code = randomBytes(16)
  const isolate = (leaseMs: number | null = null, commandId = COMMAND) =>
    host.isolation().isolate({ commandId, leaseMs, breakGlassHash: hashBreakGlassCode(code) }, never)
  const state = () => host.isolation().status().state
  const isCut = async () => (await host.ruleset()).includes('table inet cordon')
  async function isolateAndConfirm(leaseMs: number | null = null): Promise<void> {
    expect(await isolate(leaseMs)).toMatchObject({ kind: 'applied' })
    expect(await host.isolation().settled(COMMAND, never)).toMatchObject({ kind: 'proved' })
  }
  /** Waits until the keeper has looked again at all that it looks at. */
  async function lookedAgain(): Promise<void> {
    const looks = () => host.ran.filter((line) => line.includes('list table')).length
    const seen = looks()
    await vi.waitFor(() => expect(looks()).toBeGreaterThan(seen + 2), WAIT)
  }

  test('it is applied, confirmed by the controller and proved; a release leaves the ruleset byte for byte', async () => {
    let written: unknown = null
    host.onRun = (line) => {
      if (line === 'nft -f -') written ??= JSON.parse(readFileSync(recordPath(host.stateFolder), 'utf8'))
    }
    expect(await isolate()).toMatchObject({
      kind: 'applied',
      proof: { controllers: '192.0.2.10 port 7801', devices: 'far0,up0', receiptAcknowledged: true },
    })
    // What was about to be done was on disk before anything was cut.
    expect(written).toMatchObject({ commandId: COMMAND, stage: 'unconfirmed', controllers: [CONTROLLER] })
    expect(await host.isolation().settled(COMMAND, never)).toMatchObject({
      kind: 'proved',
      proof: { inForce: true, controllerReached: true },
    })
    expect(host.isolation().status()).toMatchObject({
      possible: true,
      state: 'confirmed',
      commandId: COMMAND,
      leaseEnds: null,
    })
    expect(host.isolation().reachable()).toEqual([CONTROLLER])
    expect(await isCut()).toBe(true)
    expect(await host.isolation().release('released by command x')).toMatchObject({ kind: 'applied' })
    expect(await host.isolation().released()).toMatchObject({ kind: 'proved', proof: { rulesLeft: false } })
    expect(await host.ruleset()).toBe(before)
    expect(host.told.reverted).toEqual([
      [COMMAND, 'released by command x', { how: 'command', rulesLeft: false }],
    ])
    expect(readRecord(host.stateFolder)).toEqual({ kind: 'none' })
    expect(host.isolation().reachable()).toBeNull()
  })

  test('without an answer of the controller it is rolled back when the minute is over, and not before', async () => {
    host.controller.answers = false
    expect(await isolate()).toMatchObject({ kind: 'applied' })
    host.clock.bootMs += CONFIRM_WITHIN_MS - 1_000
    const asked = host.controller.asked
    await vi.waitFor(() => expect(host.controller.asked).toBeGreaterThan(asked + 2), WAIT)
    expect(state()).toBe('unconfirmed')
    host.clock.bootMs += 1_000
    expect(await host.isolation().settled(COMMAND, never)).toMatchObject({
      kind: 'reverted',
      reason: expect.stringContaining('60 s'),
    })
    expect(await host.ruleset()).toBe(before)
    expect(host.told.reverted).toMatchObject([[COMMAND, expect.stringContaining('did not answer'), {}]])
    expect(state()).toBe('off')
  })

  test('once it is confirmed, a controller that is blocked for days releases nothing', async () => {
    await isolateAndConfirm()
    host.controller.answers = false
    host.clock.bootMs += 10 * DAY_MS
    host.clock.wallMs += 10 * DAY_MS
    await lookedAgain()
    expect(state()).toBe('confirmed')
    expect(await isCut()).toBe(true)
    expect(host.told.reverted).toEqual([])
  })

  test('it outlives the agent, and a boot that took the rules; the agent takes it up again', async () => {
    await isolateAndConfirm()
    await host.stop()
    expect(await isCut()).toBe(true)
    host.controller.answers = false
    host.start()
    await vi.waitFor(() => expect(state()).toBe('confirmed'), WAIT)
    await host.stop()

    await host.nft('flush', 'ruleset')
    Object.assign(host.clock, { bootId: 'boot-2', bootMs: 3_000 })
    expect(recordKeepsRules(host.stateFolder)).toBe(true)
    expect(await restoreIsolation(host.offline())).toMatchObject({
      kind: 'restored',
      commandId: COMMAND,
      devices: ['far0', 'up0'],
    })
    expect(await isCut()).toBe(true)
    host.start()
    await vi.waitFor(() => expect(state()).toBe('confirmed'), WAIT)
    expect(await host.isolation().settled(COMMAND, never)).toMatchObject({ kind: 'proved' })
  })

  test('at boot, what was confirmed alone is restored, and nothing when there is nothing', async () => {
    expect(await restoreIsolation(host.offline())).toMatchObject({ kind: 'nothing' })
    host.controller.answers = false
    await isolate()
    await host.stop()
    await host.nft('flush', 'ruleset')
    expect(await restoreIsolation(host.offline())).toMatchObject({ kind: 'nothing' })
    expect(await isCut()).toBe(false)
    Object.assign(host.clock, { bootId: 'boot-2', bootMs: 3_000 })
    host.start()
    expect(await host.isolation().settled(COMMAND, never)).toMatchObject({ kind: 'reverted' })
    expect(readRecord(host.stateFolder)).toEqual({ kind: 'none' })
  })

  test('an agent that is started anew before the confirmation has the rest of the minute', async () => {
    host.controller.answers = false
    await isolate()
    await host.stop()
    host.clock.bootMs += CONFIRM_WITHIN_MS / 2
    host.start()
    await vi.waitFor(() => expect(state()).toBe('unconfirmed'), WAIT)
    expect(await isCut()).toBe(true)
    host.clock.bootMs += CONFIRM_WITHIN_MS / 2
    expect(await host.isolation().settled(COMMAND, never)).toMatchObject({ kind: 'reverted' })
    expect(await isCut()).toBe(false)
  })

  test('its lease runs with the host: no set clock ends it early, no boot makes it longer', async () => {
    await isolateAndConfirm(4 * HOUR_MS)
    const leaseEndsMs = () => Date.parse(host.isolation().status().leaseEnds ?? '')
    expect(leaseEndsMs()).toBe(host.clock.wallMs + 4 * HOUR_MS)
    for (const jumpMs of [3 * DAY_MS, -6 * DAY_MS]) {
      host.clock.wallMs += jumpMs
      await lookedAgain()
      expect(state()).toBe('confirmed')
      expect(leaseEndsMs()).toBe(host.clock.wallMs + 4 * HOUR_MS)
    }
    host.clock.bootMs += 3 * HOUR_MS
    await host.stop()
    // What counts at a boot is what was written down last.
    host.start()
    await vi.waitFor(() => {
      const read = readRecord(host.stateFolder)
      expect(read).toMatchObject({ kind: 'record', record: { lease: { remainingMs: HOUR_MS } } })
    }, WAIT)
    await host.stop()
    await host.nft('flush', 'ruleset')
    Object.assign(host.clock, { bootId: 'boot-2', bootMs: 60_000, wallMs: host.clock.wallMs + 3 * DAY_MS })
    await restoreIsolation(host.offline())
    host.start()
    await vi.waitFor(() => expect(state()).toBe('confirmed'), WAIT)
    expect(leaseEndsMs()).toBe(host.clock.wallMs + HOUR_MS - 60_000)
    host.clock.bootMs += HOUR_MS - 60_000
    await vi.waitFor(() => expect(host.told.reverted).toHaveLength(1), WAIT)
    expect(await isCut()).toBe(false)
    expect(host.told.reverted).toEqual([[COMMAND, 'its lease is over', { how: 'lease', rulesLeft: false }]])
  })

  test('the break-glass code ends it, a wrong one does not, and wrong ones are told and bounded', async () => {
    const right = formatBreakGlassCode(code)
    expect(await host.isolation().breakGlass(right)).toMatchObject({ kind: 'refused' })
    await isolateAndConfirm()
    expect(await host.isolation().breakGlass('no code')).toMatchObject({ kind: 'refused' })
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
      const wrong = formatBreakGlassCode(randomBytes(16))
      expect(await host.isolation().breakGlass(wrong)).toMatchObject({ kind: 'wrong' })
    }
    expect(host.told.tampered).toHaveLength(ATTEMPTS_MAX)
    expect(await host.isolation().breakGlass(right)).toMatchObject({ kind: 'refused' })
    // Asking without the agent gives no further attempts, nor does a boot.
    await host.stop()
    expect(await releaseOffline(host.offline(), right)).toMatchObject({ kind: 'refused' })
    expect(await isCut()).toBe(true)
    host.start()
    host.clock.bootMs += ATTEMPTS_PAUSE_MS
    expect(await host.isolation().breakGlass(right.toLowerCase())).toEqual({ kind: 'right' })
    expect(await host.ruleset()).toBe(before)
    expect(host.told.reverted).toMatchObject([[COMMAND, expect.stringContaining('break-glass'), {}]])
  })

  test('with the agent stopped the code ends it too, and the agent tells of it when it runs again', async () => {
    await isolateAndConfirm()
    await host.stop()
    const wrong = formatBreakGlassCode(randomBytes(16))
    expect(await releaseOffline(host.offline(), wrong)).toMatchObject({ kind: 'wrong' })
    expect(await releaseOffline(host.offline(), formatBreakGlassCode(code))).toEqual({ kind: 'right' })
    expect(await host.ruleset()).toBe(before)
    expect(recordKeepsRules(host.stateFolder)).toBe(false)
    expect(await restoreIsolation(host.offline())).toMatchObject({ kind: 'nothing' })
    host.start()
    await vi.waitFor(() => expect(host.told.reverted).toHaveLength(1), WAIT)
    expect(host.told.reverted[0]?.[1]).toContain('while no agent ran')
    expect(host.told.tampered.join()).toContain('break-glass')
    expect(existsSync(recordPath(host.stateFolder))).toBe(false)
    expect(await isCut()).toBe(false)
  })

  test('rules that somebody takes away are put back, and that is told', async () => {
    await isolateAndConfirm()
    await host.nft('flush', 'ruleset')
    await vi.waitFor(async () => expect(await isCut()).toBe(true), WAIT)
    expect(host.told.tampered.join()).toContain('changed by somebody else')
    expect(state()).toBe('confirmed')
  })

  test('a device that appears is cut off, too, and one that goes is no tampering', async () => {
    await isolateAndConfirm()
    await host.ip('link', 'add', 'late0', 'type', 'veth', 'peer', 'name', 'late1')
    await vi.waitFor(async () => {
      expect(await host.nft('list', 'table', 'netdev', 'cordon')).toContain('late0')
    }, WAIT)
    await host.ip('link', 'del', 'late0')
    await lookedAgain()
    expect(await isCut()).toBe(true)
    expect(host.told.tampered).toEqual([])
  })

  test('where the interlock forbids it, the command is refused and nft is not run', async () => {
    await host.stop()
    host.permission = { ok: false, reason: 'the network namespace of the launcher' }
    host.start()
    host.ran.length = 0
    expect(await isolate()).toEqual({
      kind: 'refused',
      code: 'interlock',
      reason: 'the network namespace of the launcher',
    })
    expect(host.ran).toEqual([])
    await vi.waitFor(() => {
      const status = host.isolation().status()
      expect(status).toMatchObject({ possible: false, reason: 'the network namespace of the launcher' })
    }, WAIT)
    expect(host.ran).toEqual([])
    expect(await host.ruleset()).toBe(before)
  })

  test('rules without a record are removed at the start; with a damaged one they stay until a release', async () => {
    await isolateAndConfirm()
    await host.stop()
    const record = readFileSync(recordPath(host.stateFolder))
    writeFileSync(recordPath(host.stateFolder), record.subarray(0, 50))
    expect(recordKeepsRules(host.stateFolder)).toBe(true)
    host.start()
    await vi.waitFor(() => expect(host.told.tampered.join()).toContain('stay in force'), WAIT)
    expect(state()).toBe('confirmed')
    expect(await isCut()).toBe(true)
    expect(await host.isolation().release('released')).toMatchObject({ kind: 'applied' })
    expect(await host.ruleset()).toBe(before)
    expect(state()).toBe('off')

    await isolateAndConfirm()
    await host.stop()
    await host.nft('list', 'table', 'inet', 'cordon')
    const read = readRecord(host.stateFolder)
    if (read.kind !== 'record') throw new Error('there is a record')
    writeRecord(host.stateFolder, {
      ...read.record,
      stage: 'ended',
      ending: { how: 'lease', reason: 'over' },
    })
    host.start()
    await vi.waitFor(() => expect(host.told.reverted.at(-1)).toMatchObject([COMMAND, 'over', {}]), WAIT)
    expect(await host.ruleset()).toBe(before)
  })

  test('isolating what is isolated changes lease and code, and confirms nothing anew', async () => {
    await isolateAndConfirm()
    host.controller.answers = false
    const second = 'cd'.repeat(16)
    expect(await isolate(HOUR_MS, second)).toMatchObject({ kind: 'applied' })
    expect(await host.isolation().settled(second, never)).toMatchObject({ kind: 'proved' })
    expect(host.isolation().status()).toMatchObject({ commandId: second, leaseEnds: expect.any(String) })
  })
})
