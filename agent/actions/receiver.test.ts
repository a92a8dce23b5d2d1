import { mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createSilentLogger } from '../../shared/node/logger.ts'
import { ACTIONS, type ProcessTarget } from '../../shared/protocol/commands.ts'
import type { Command } from '../../shared/protocol/messages.ts'
import { parseEvent } from '../../shared/protocol/parse.ts'
import { readBootId } from '../platform/linux/host.ts'
import { isDead, openProcessByPid, readStat } from '../platform/linux/processes.ts'
import type { Action, Actions, ApplyResult, CheckResult, ProbeResult } from './action.ts'
import type { TamperEvent } from './alerts.ts'
import { createInterlock } from './interlock.ts'
import { type ActionStateEvent, type Journal, openJournal } from './journal.ts'
import { createKillAction } from './kill.ts'
import { createReceiver, type Receiver, type ReceiverContext, WAITING_MAX } from './receiver.ts'
import { createScanAction } from './scan.ts'
import { commandIdOf, createTestFleet, mutationsOf, type TestFleet } from './testing/test-commands.ts'
import { createTestProcesses, targetOf, waitFor } from './testing/test-processes.ts'

let folder: string
let nowMs: number
let fleet: TestFleet
let events: (ActionStateEvent | TamperEvent)[]
/** What the journal said it had lost. */
let losses: string[]
beforeEach(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), 'cordon-receiver-')))
  nowMs = 1_700_000_000_000
  fleet = createTestFleet(() => nowMs)
  events = []
  losses = []
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
  for (const event of events) expect(parseEvent(JSON.stringify(event))).toMatchObject({ ok: true })
})

/** An action that only records, and answers as it is told. */
interface Fake {
  readonly action: Action<'killProcess'>
  readonly applied: string[]
  running: number
  runningMost: number
}
interface FakeAnswers {
  readonly idempotent?: boolean
  readonly check?: CheckResult
  readonly apply?: (signal: AbortSignal) => ApplyResult | Promise<ApplyResult>
  readonly probe?: ProbeResult
}
function fakeKill(answers: FakeAnswers = {}): Fake {
  const fake: Fake = {
    applied: [],
    running: 0,
    runningMost: 0,
    action: {
      idempotent: answers.idempotent ?? true,
      access: 'exclusive',
      timeoutMs: 10_000,
      key: ({ pid }) => `process:${pid}`,
      check: async () => answers.check ?? { kind: 'ready' },
      async apply({ commandId }, signal) {
        fake.applied.push(commandId)
        fake.running += 1
        fake.runningMost = Math.max(fake.runningMost, fake.running)
        const result = await (answers.apply?.(signal) ?? {
          kind: 'applied',
          reason: 'did',
          proof: { processes: 1 },
        })
        fake.running -= 1
        return result
      },
      probe: async (_request, applied) =>
        answers.probe ?? { kind: 'proved', reason: 'is gone', proof: { ...applied, gone: true } },
    },
  }
  return fake
}

/** Of the others only the key matters here. */
const actionsWith = (kill: Action<'killProcess'>): Actions => {
  const other = { ...kill, key: ({ path }: { path: string }) => path }
  const scanPath = createScanAction(async () => ({
    kind: 'scanned',
    summary: { files: 1, bytes: 2, matches: 0, skipped: 0 },
  }))
  return {
    ...(Object.fromEntries(Object.keys(ACTIONS).map((name) => [name, other])) as unknown as Actions),
    killProcess: kill,
    scanPath,
  }
}

interface Agent extends AsyncDisposable {
  readonly receiver: Receiver
  readonly journal: Journal
  stop(): Promise<void>
}
function startAgent(actions: Actions, context: () => ReceiverContext | null = () => fleet.context): Agent {
  const emit = (event: ActionStateEvent | TamperEvent) => void events.push(event)
  const common = { clock: () => nowMs, logger: createSilentLogger(), emit }
  const journal = openJournal({
    path: join(folder, 'journal.db'),
    lost: (why) => losses.push(why),
    ...common,
  })
  const receiver = createReceiver({ verificationContext: context, journal, actions, ...common })
  const abort = new AbortController()
  const stopped = receiver.run(abort.signal)
  let ended = false
  const stop = async () => {
    if (ended) return
    ended = true
    abort.abort()
    await stopped
    journal[Symbol.dispose]()
  }
  return { receiver, journal, stop, [Symbol.asyncDispose]: stop }
}

const target: ProcessTarget = {
  kind: 'process',
  pid: 4_000_000,
  startTicks: 1,
  bootId: readBootId(),
  executableSha256: null,
}
const kill = (
  sequence: number,
  options: Partial<Parameters<TestFleet['sign']>[3]> & { pid?: number } = {},
): Command => {
  const { pid = target.pid, ...rest } = options
  return fleet.sign('killProcess', { ...target, pid }, { tree: false }, { sequence, ...rest })
}
const statesOf = (commandId: string) =>
  events
    .filter((event) => event['event.action'] === 'action-state')
    .filter((event) => event['cordon.command.id'] === commandId)
    .map((event) => event['cordon.command.state'])
const alerts = () =>
  events.filter((event) => event['event.action'] === 'tamper').map((event) => event['event.reason'])
const lastEvent = () => events.filter((event) => event['event.action'] === 'action-state').at(-1)

test('a verified command goes through its life, with the proof at its end', async () => {
  const fake = fakeKill()
  await using agent = startAgent(actionsWith(fake.action))
  const command = kill(1)
  agent.receiver.receive(command)
  await agent.receiver.idle()
  expect(statesOf(commandIdOf(command))).toEqual(['received', 'applied', 'probed', 'done'])
  expect(lastEvent()?.['cordon.command.proof']).toEqual({ processes: 1, gone: true })
  expect(fake.applied).toEqual([commandIdOf(command)])
  expect(agent.journal.highest()).toEqual({ epoch: 1, sequence: 1 })
  expect(alerts()).toEqual([])
})

test('the same command again, as it was or in a new wrapper, answers with its state and does nothing', async () => {
  const fake = fakeKill()
  await using agent = startAgent(actionsWith(fake.action))
  const command = kill(1)
  const id = commandIdOf(command)
  agent.receiver.receive(command)
  await agent.receiver.idle()
  agent.receiver.receive(command)
  await agent.receiver.idle()
  expect(statesOf(id)).toEqual(['received', 'applied', 'probed', 'done', 'done'])
  expect(fake.applied).toEqual([id])
  expect(alerts()).toEqual([])
  // The id is known, the intent is not: somebody hands the approval of one command to another.
  agent.receiver.receive(kill(2, { commandId: id }))
  await agent.receiver.idle()
  expect(fake.applied).toEqual([id])
  expect(alerts()).toEqual([expect.stringContaining('another intent')])
})

test('a command older than the mark, even after a restart, is a replay: refused with an alert', async () => {
  const fake = fakeKill()
  const old = kill(4)
  {
    await using agent = startAgent(actionsWith(fake.action))
    agent.receiver.receive(kill(5))
    await agent.receiver.idle()
  }
  await using agent = startAgent(actionsWith(fake.action))
  agent.receiver.receive(old)
  await agent.receiver.idle()
  expect(statesOf(commandIdOf(old))).toEqual(['refused'])
  expect(alerts()).toEqual([expect.stringMatching(/replay/)])
  expect(fake.applied).toHaveLength(1)
})

test('no command with any field changed is executed, and each is refused with an alert', async () => {
  await using processes = createTestProcesses()
  const agentPid = await processes.start('/bin/sleep', ['120'])
  const pid = await processes.start('/bin/sleep', ['120'], { cwd: folder })
  const interlock = createInterlock({
    installedAsService: false,
    testRoot: folder,
    testCgroup: null,
    recordedNetworkNamespace: null,
    agentPid,
  })
  const real = createKillAction({ bootId: readBootId(), interlock, openProcess: openProcessByPid })
  const message = fleet.sign('killProcess', targetOf(pid), { tree: true }, { sequence: 10 })
  const mutations = mutationsOf(message)
  expect(mutations.length).toBeGreaterThan(35)
  for (const [what, mutated] of mutations) {
    events.length = 0
    await using agent = startAgent(actionsWith(real))
    agent.receiver.receive(mutated)
    await agent.receiver.idle()
    expect([what, alerts().length]).toEqual([what, 1])
    expect(agent.journal.latest(10)).toEqual([])
    expect(events.filter((event) => event['event.action'] === 'action-state').length).toBeLessThanOrEqual(1)
  }
  expect(readStat(pid)?.state).toMatch(/^[RSD]$/)
  // The unchanged one is good: it was the changes that were refused.
  await using agent = startAgent(actionsWith(real))
  agent.receiver.receive(message)
  await agent.receiver.idle()
  await waitFor(() => statesOf(commandIdOf(message)).includes('done'))
  const stat = readStat(pid)
  expect(!stat || isDead(stat)).toBe(true)
})

test('a false message in the name of a real command changes nothing that is told of it', async () => {
  const fake = fakeKill()
  await using agent = startAgent(actionsWith(fake.action))
  const command = kill(1)
  agent.receiver.receive(command)
  await agent.receiver.idle()
  agent.receiver.receive({ ...command, signatures: [] })
  expect(statesOf(commandIdOf(command))).toEqual(['received', 'applied', 'probed', 'done'])
  expect(alerts()).toHaveLength(1)
})

test('alerts are bounded in rate, and the rest is counted', async () => {
  await using agent = startAgent(actionsWith(fakeKill().action))
  const broken = { ...kill(1), signatures: [] }
  for (let index = 0; index < 500; index += 1) agent.receiver.receive(broken)
  expect(events.length).toBeLessThanOrEqual(2 * 22)
  expect(alerts().length).toBeGreaterThanOrEqual(20)
})

test('without a keyset nothing is executed', async () => {
  const fake = fakeKill()
  await using agent = startAgent(actionsWith(fake.action), () => null)
  agent.receiver.receive(kill(1))
  await agent.receiver.idle()
  expect(fake.applied).toEqual([])
  expect(alerts()).toHaveLength(1)
})

test('a queued command that comes too late is expired without an alert', async () => {
  await using agent = startAgent(actionsWith(fakeKill().action))
  const late = kill(1, { live: false, expires: nowMs + 1_000 })
  nowMs += 2_000
  agent.receiver.receive(late)
  expect(statesOf(commandIdOf(late))).toEqual(['expired'])
  expect(alerts()).toEqual([])
})

test('a live command is timed from its sending, however wrong the clock of the host is', async () => {
  await using agent = startAgent(actionsWith(fakeKill().action))
  const live = kill(1)
  nowMs += 3 * 24 * 3_600_000
  agent.receiver.receive(live)
  await agent.receiver.idle()
  expect(statesOf(commandIdOf(live))).toContain('done')
})

test.each([
  [
    'a refused precondition',
    { check: { kind: 'refused', code: 'stale', reason: 'gone' } },
    ['received', 'refused'],
  ],
  [
    'a refusal before anything changed',
    { apply: () => ({ kind: 'refused', code: 'x', reason: 'no' }) },
    ['received', 'refused'],
  ],
  ['a failure', { apply: () => ({ kind: 'failed', reason: 'half', proof: {} }) }, ['received', 'failed']],
  [
    'a probe that disproves',
    { probe: { kind: 'disproved', reason: 'runs', proof: {} } },
    ['received', 'applied', 'probed', 'failed'],
  ],
  [
    'what holds already',
    { check: { kind: 'already', reason: 'held', proof: {} } },
    ['received', 'applied', 'probed', 'done'],
  ],
  ['a defect', { apply: () => Promise.reject(new Error('broken')) }, ['received', 'failed']],
] as [string, FakeAnswers, string[]][])(
  '%s ends the command in a true state',
  async (_what, answers, states) => {
    await using agent = startAgent(actionsWith(fakeKill(answers).action))
    const command = kill(1)
    agent.receiver.receive(command)
    await agent.receiver.idle()
    expect(statesOf(commandIdOf(command))).toEqual(states)
  },
)

/** An application that waits until it is let go. */
function gate() {
  const open = Promise.withResolvers<void>()
  const apply = async (signal: AbortSignal): Promise<ApplyResult> => {
    const aborted = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()))
    await Promise.race([open.promise, aborted])
    return signal.aborted ? { kind: 'aborted' } : { kind: 'applied', reason: 'did', proof: {} }
  }
  return { apply, open: () => open.resolve() }
}

test('one target is worked on by one action at a time, others and reads beside it', async () => {
  const { apply, open } = gate()
  const fake = fakeKill({ apply })
  await using agent = startAgent(actionsWith(fake.action))
  const first = kill(1)
  const second = kill(2)
  const other = kill(3, { pid: 5 })
  const scan = fleet.sign('scanPath', { kind: 'path', path: '/x' }, { filesMax: 1 }, { sequence: 4 })
  for (const command of [first, second, other, scan]) agent.receiver.receive(command)
  await waitFor(() => statesOf(commandIdOf(scan)).includes('done') && fake.applied.length === 2)
  expect(fake.applied).toEqual([commandIdOf(first), commandIdOf(other)])
  open()
  await agent.receiver.idle()
  expect(fake.applied).toEqual([commandIdOf(first), commandIdOf(other), commandIdOf(second)])
  expect(fake.runningMost).toBe(2)
})

test('a command that waits is cancelled; one that is being applied answers with its state', async () => {
  const { apply, open } = gate()
  const fake = fakeKill({ apply })
  await using agent = startAgent(actionsWith(fake.action))
  const running = kill(1)
  const waiting = kill(2)
  agent.receiver.receive(running)
  agent.receiver.receive(waiting)
  await waitFor(() => fake.applied.length === 1)
  agent.receiver.cancel(commandIdOf(waiting))
  agent.receiver.cancel(commandIdOf(running))
  agent.receiver.cancel('f'.repeat(32))
  open()
  await agent.receiver.idle()
  expect(statesOf(commandIdOf(waiting))).toEqual(['received', 'refused'])
  expect(statesOf(commandIdOf(running))).toEqual(['received', 'received', 'applied', 'probed', 'done'])
  expect(fake.applied).toEqual([commandIdOf(running)])
})

test('what expires while it waits is not begun', async () => {
  const { apply, open } = gate()
  const fake = fakeKill({ apply })
  await using agent = startAgent(actionsWith(fake.action))
  const [first, second] = [kill(1), kill(2)]
  agent.receiver.receive(first)
  agent.receiver.receive(second)
  await waitFor(() => fake.applied.length === 1)
  nowMs += 100_000
  open()
  await agent.receiver.idle()
  expect(statesOf(commandIdOf(second))).toEqual(['received', 'expired'])
})

test('the queue is bounded, and what is beyond it is refused by name', async () => {
  const { apply, open } = gate()
  const fake = fakeKill({ apply })
  await using agent = startAgent(actionsWith(fake.action))
  const commands = Array.from({ length: WAITING_MAX + 2 }, (_, index) => kill(index + 1))
  for (const command of commands) agent.receiver.receive(command)
  expect(lastEvent()).toMatchObject({
    'cordon.command.state': 'refused',
    'cordon.command.proof': { code: 'queueFull' },
  })
  for (const command of commands.slice(1)) agent.receiver.cancel(commandIdOf(command))
  open()
  await agent.receiver.idle()
  expect(fake.applied).toHaveLength(1)
})

/** Leaves a command as a killed agent would: received, and with `applying` begun. */
function leaveBehind(command: Command, applying: boolean) {
  const fake = fakeKill({ check: { kind: 'refused', code: 'unused', reason: 'unused' } })
  const common = {
    clock: () => nowMs,
    logger: createSilentLogger(),
    emit: (event: ActionStateEvent | TamperEvent) => void events.push(event),
  }
  using journal = openJournal({
    path: join(folder, 'journal.db'),
    lost: (why) => losses.push(why),
    ...common,
  })
  // Not run: it admits and starts nothing, as if the agent had been killed at once.
  createReceiver({
    verificationContext: () => fleet.context,
    journal,
    actions: actionsWith(fake.action),
    ...common,
  }).receive(command)
  if (applying) journal.markApplying(commandIdOf(command))
}

test.each([
  ['was not begun', false, {}, ['received', 'applied', 'probed', 'done'], 1],
  ['was begun and is found done', true, {}, ['received', 'applied', 'probed', 'done'], 0],
  [
    'was begun, is not found done and may be applied again',
    true,
    { probe: { kind: 'disproved', reason: 'still there', proof: {} } },
    ['received', 'applied', 'probed', 'failed'],
    1,
  ],
  [
    'was begun, is not found done and must not be applied twice',
    true,
    { idempotent: false, probe: { kind: 'disproved', reason: 'still there', proof: {} } },
    ['received', 'unknown', 'probed', 'failed'],
    0,
  ],
  [
    'was begun, and nothing shows whether it happened',
    true,
    { idempotent: false, probe: { kind: 'unknown', reason: 'no trace', proof: {} } },
    ['received', 'unknown'],
    0,
  ],
] as [string, boolean, FakeAnswers, string[], number][])(
  'after a crash a command that %s reaches a true state',
  async (_what, applying, answers, states, applications) => {
    const command = kill(1)
    leaveBehind(command, applying)
    const fake = fakeKill(answers)
    await using agent = startAgent(actionsWith(fake.action))
    await agent.receiver.idle()
    expect(statesOf(commandIdOf(command))).toEqual(states)
    expect(fake.applied).toHaveLength(applications)
  },
)

test('after a crash a command whose time is over is not begun', async () => {
  const command = kill(1)
  leaveBehind(command, false)
  nowMs += 100_000
  const fake = fakeKill()
  await using agent = startAgent(actionsWith(fake.action))
  await agent.receiver.idle()
  expect(statesOf(commandIdOf(command))).toEqual(['received', 'expired'])
  expect(fake.applied).toEqual([])
})

test('a stop in the middle of an application leaves the command for the next start', async () => {
  const { apply } = gate()
  const first = fakeKill({ apply })
  const command = kill(1)
  {
    await using agent = startAgent(actionsWith(first.action))
    agent.receiver.receive(command)
    await waitFor(() => first.applied.length === 1)
  }
  expect(statesOf(commandIdOf(command))).toEqual(['received'])
  const second = fakeKill()
  await using agent = startAgent(actionsWith(second.action))
  await agent.receiver.idle()
  expect(statesOf(commandIdOf(command))).toEqual(['received', 'applied', 'probed', 'done'])
})

test('after the journal was lost, no approval from before is executed, live and in a new sequence or not', async () => {
  const fake = fakeKill()
  const earlier = kill(5)
  {
    await using agent = startAgent(actionsWith(fake.action))
    agent.receiver.receive(earlier)
    await agent.receiver.idle()
  }
  expect(fake.applied).toHaveLength(1)
  writeFileSync(join(folder, 'journal.db'), 'not a database any more')
  rmSync(join(folder, 'journal.db-wal'), { force: true })
  events = []
  await using agent = startAgent(actionsWith(fake.action))
  expect(losses).toHaveLength(1)
  agent.receiver.receive(earlier)
  agent.receiver.receive(kill(6))
  await agent.receiver.idle()
  expect(fake.applied).toHaveLength(1)
  expect(events.filter((event) => event['event.action'] === 'tamper')).toHaveLength(2)
  nowMs += 1_000
  agent.receiver.receive(kill(7))
  await agent.receiver.idle()
  expect(fake.applied).toHaveLength(2)
})
