import { expect, test, vi } from 'vitest'
import { createSilentLogger } from '../../shared/node/logger.ts'
import { createAlerts } from '../audit/alerts.ts'
import { createAuditLog } from '../audit/audit-log.ts'
import { HOST_A, HOST_B, NOW_MS } from '../correlate/testing/findings.ts'
import { openTemporaryState } from '../state/testing/temporary-state.ts'
import { createSilenceWatch } from './silence.ts'

/** A watch whose clocks stand still until they are moved; its loop really runs, every few milliseconds. */
function createSetup() {
  const temporary = openTemporaryState()
  const clock = { wallMs: NOW_MS, monotonicMs: 1_000 }
  const connected = new Set<string>()
  const out = new Set<string>()
  const audit = createAuditLog(temporary.state, () => clock.wallMs)
  const running: { stop: AbortController; ended: Promise<void> }[] = []
  let watch = start()

  function start() {
    const alerts = createAlerts({
      state: temporary.state,
      audit,
      log: createSilentLogger(),
      nowMs: () => clock.wallMs,
    })
    const created = createSilenceWatch({
      state: temporary.state,
      alerts,
      announce: () => undefined,
      expected: () =>
        [HOST_A, HOST_B]
          .filter((agentId) => !out.has(agentId))
          .map((agentId) => ({ agentId, lastSeenMs: NOW_MS - 1_000 })),
      isConnected: (agentId) => connected.has(agentId),
      nowMs: () => clock.wallMs,
      monotonic: () => clock.monotonicMs,
      checkIntervalMs: 5,
    })
    const stop = new AbortController()
    running.push({ stop, ended: created.run(stop.signal) })
    return created
  }
  const stop = async () => {
    for (const { stop: one, ended } of running.splice(0)) {
      one.abort()
      await ended
    }
  }
  return {
    clock,
    connected,
    out,
    state: temporary.state,
    /** Alerts so far, the oldest first. */
    told: () =>
      audit
        .list(100)
        .map(
          ({ action, subject, detail }) =>
            `${action.replace('alert.', '')} ${subject === HOST_A ? 'A' : 'B'}: ${detail}`,
        )
        .reverse(),
    connect(agentId: string) {
      connected.add(agentId)
      watch.connected(agentId)
    },
    lose(agentId: string, quietMs = 0) {
      connected.delete(agentId)
      watch.lost(agentId, quietMs)
    },
    farewell: (agentId: string, reason: string) => watch.farewell(agentId, reason),
    /** Both clocks move on, in steps that no frozen process would make. */
    async pass(ms: number) {
      for (let left = ms; left > 0; left -= 10_000) {
        clock.wallMs += Math.min(left, 10_000)
        clock.monotonicMs += Math.min(left, 10_000)
        await settle()
      }
    },
    settle,
    async restart(awayMs: number) {
      await stop()
      connected.clear()
      clock.wallMs += awayMs
      clock.monotonicMs = 1_000
      watch = start()
      await settle()
    },
    async [Symbol.asyncDispose]() {
      await stop()
      temporary[Symbol.dispose]()
    },
  }

  /** Until the loop has looked at the clocks as they are: it says each time that it is alive. */
  async function settle() {
    const before = ++clock.wallMs
    await vi.waitFor(() => expect(temporary.state.silences.aliveMs()).toBe(before), {
      timeout: 10_000,
      interval: 1,
    })
  }
}

test('a silent host is told within 90 s of its last sign of life, once, and again when it is back', async () => {
  await using setup = createSetup()
  setup.connect(HOST_A)
  setup.connect(HOST_B)
  // Found dead by two missed pings.
  setup.lose(HOST_A, 44_000)
  await setup.pass(30_000)
  expect(setup.told()).toEqual([])
  await setup.pass(15_000)
  expect(setup.told()).toEqual([expect.stringMatching(/^hostSilent A: nothing was heard of it since 2026-/)])
  await setup.pass(3_600_000)
  expect(setup.told()).toHaveLength(1)
  setup.connect(HOST_A)
  expect(setup.told().at(-1)).toBe('hostBack A: is back after 61 min')
})

test('a host that is back in time is not told of, however often', async () => {
  await using setup = createSetup()
  for (let round = 0; round < 20; round += 1) {
    setup.connect(HOST_A)
    setup.lose(HOST_A)
    await setup.pass(10_000)
  }
  setup.connect(HOST_A)
  await setup.pass(120_000)
  expect(setup.told().filter((line) => line.includes(' A:'))).toEqual([])
})

test('a stop in order is told apart from silence', async () => {
  await using setup = createSetup()
  setup.connect(HOST_A)
  setup.farewell(HOST_A, 'the agent was told to stop')
  setup.lose(HOST_A)
  setup.connect(HOST_B)
  await setup.pass(90_000)
  expect(setup.told()).toEqual([
    expect.stringMatching(/^hostStopped A: stopped in order at .* the agent was told to stop$/),
  ])
})

test('hosts that do not come back after a restart of the controller are told of, the others are not', async () => {
  await using setup = createSetup()
  setup.connect(HOST_A)
  setup.connect(HOST_B)
  await setup.settle()
  await setup.restart(3_000)
  setup.connect(HOST_B)
  await setup.pass(90_000)
  expect(setup.told()).toEqual([expect.stringMatching(/^hostSilent A/)])
  // It is told no second time by the next start, and its return is known then too.
  await setup.restart(3_000)
  setup.connect(HOST_B)
  await setup.pass(90_000)
  setup.connect(HOST_A)
  expect(setup.told()).toHaveLength(2)
  expect(setup.told().at(-1)).toMatch(/^hostBack A/)
})

test('after a long absence of the controller agents have as long as their backoff may have grown', async () => {
  await using setup = createSetup()
  setup.connect(HOST_A)
  setup.connect(HOST_B)
  await setup.settle()
  await setup.restart(3_600_000)
  await setup.pass(290_000)
  setup.connect(HOST_B)
  expect(setup.told()).toEqual([])
  await setup.pass(30_000)
  expect(setup.told()).toEqual([expect.stringMatching(/^hostSilent A/)])
})

test('a wall clock that jumps by three days raises nothing and hides nothing', async () => {
  await using setup = createSetup()
  setup.connect(HOST_A)
  setup.connect(HOST_B)
  await setup.settle()
  setup.lose(HOST_A)
  setup.clock.wallMs += 3 * 86_400_000
  await setup.settle()
  expect(setup.told()).toEqual([])
  setup.clock.wallMs -= 6 * 86_400_000
  await setup.pass(90_000)
  expect(setup.told()).toEqual([expect.stringMatching(/^hostSilent A/)])
})

test('a controller that was frozen gives the hosts that time again', async () => {
  await using setup = createSetup()
  setup.connect(HOST_A)
  setup.connect(HOST_B)
  await setup.settle()
  setup.lose(HOST_A)
  setup.clock.monotonicMs += 600_000
  await setup.settle()
  expect(setup.told()).toEqual([])
  await setup.pass(90_000)
  expect(setup.told()).toEqual([expect.stringMatching(/^hostSilent A/)])
})

test('nobody waits for hosts that were revoked or are held', async () => {
  await using setup = createSetup()
  setup.connect(HOST_A)
  setup.connect(HOST_B)
  setup.lose(HOST_A)
  setup.out.add(HOST_A)
  await setup.pass(120_000)
  expect(setup.told()).toEqual([])
})
