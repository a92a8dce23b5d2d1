import { createHash } from 'node:crypto'
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { loadNative } from '../native/addon.ts'
import { readBootId } from '../platform/linux/host.ts'
import {
  createPidfdOpener,
  isDead,
  listStats,
  type OpenProcess,
  openProcessByPid,
  readFacts,
  readStat,
} from '../platform/linux/processes.ts'
import type { Action } from './action.ts'
import { createInterlock } from './interlock.ts'
import { createKillAction, type KillOptions } from './kill.ts'
import { createTestProcesses, type TestProcesses, targetOf, waitFor } from './testing/test-processes.ts'

/** States of a process that is not stopped. */
const runs = /^[RSD]$/
const commandId = 'a'.repeat(32)
const never = () => AbortSignal.timeout(60_000)
const native = loadNative()
const methods: [string, OpenProcess][] = [['kill(2)', openProcessByPid]]
if (native.ok) methods.push(['pidfd', createPidfdOpener(native.native)])

let folder: string
let processes: TestProcesses
/** Stands in for the agent, whose children would be refused. */
let agentPid: number
beforeEach(async () => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), 'cordon-kill-')))
  processes = createTestProcesses()
  agentPid = await processes.start('/bin/sleep', ['120'])
})
afterEach(async () => {
  await processes[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true, force: true })
})

const killAction = (options: Partial<KillOptions> = {}): Action<'killProcess'> =>
  createKillAction({
    bootId: readBootId(),
    interlock: createInterlock({
      installedAsService: false,
      testRoot: folder,
      testCgroup: null,
      recordedNetworkNamespace: null,
      agentPid,
    }),
    openProcess: openProcessByPid,
    ...options,
  })
const request = (target: ReturnType<typeof targetOf>, tree = false) => ({ commandId, target, args: { tree } })
const runsIn = (cwd: string) =>
  [...listStats().values()]
    .filter((stat) => !isDead(stat))
    .filter((stat) => readFacts(stat.pid)?.workingDirectory?.toString() === cwd)
    .map((stat) => stat.pid)

test.each(methods)(
  'by %s a process ends, and the proof says how and that it is gone',
  async (method, openProcess) => {
    const pid = await processes.start('/bin/sleep', ['120'], { cwd: folder })
    const action = killAction({ openProcess })
    const target = targetOf(pid)
    expect(await action.check(request(target), never())).toEqual({ kind: 'ready' })
    const applied = await action.apply(request(target), never())
    expect(applied).toMatchObject({
      kind: 'applied',
      proof: { method, processes: 1, pids: `${pid}`, survivors: 0, complete: true },
    })
    const probed = await action.probe(
      request(target),
      applied.kind === 'applied' ? applied.proof : null,
      never(),
    )
    expect(probed).toMatchObject({ kind: 'proved', proof: { gone: true, method } })
  },
)

test.each(methods)(
  'by %s a tree of fifty with ignored signals, a stopped and a nested shell leaves nobody',
  async (_method, openProcess) => {
    const pid = await processes.shell(
      `trap '' TERM INT HUP
     for i in $(seq 24); do sleep 120 & done
     for i in $(seq 10); do sh -c "trap '' TERM; sleep 121 & wait" & done
     sleep 122 & kill -STOP $!
     sh -c 'sh -c "sleep 123 & wait" & wait' &
     while :; do wait; done`,
      { cwd: folder },
    )
    await waitFor(() => runsIn(folder).length >= 49)
    const found = runsIn(folder).length
    const applied = await killAction({ openProcess }).apply(request(targetOf(pid), true), never())
    expect(applied).toMatchObject({
      kind: 'applied',
      proof: { processes: found, survivors: 0, complete: true },
    })
    expect(runsIn(folder)).toEqual([])
  },
)

test.each(methods)(
  'by %s a tree that keeps forking, also past parents that exit, leaves no survivor',
  async (_method, openProcess) => {
    // At most some thousand processes, should nobody stop it.
    const pid = await processes.shell(
      `storm() {
       i=0
       while [ $i -lt 10 ]; do
         i=$((i + 1))
         if [ $1 -lt 2 ]; then storm $(($1 + 1)) & else (sleep 30 &) fi
         sleep 0.02
       done
       wait
     }
     storm 0`,
      { cwd: folder },
    )
    await waitFor(() => runsIn(folder).length > 20)
    const applied = await killAction({ openProcess }).apply(request(targetOf(pid), true), never())
    expect(applied).toMatchObject({ kind: 'applied', proof: { survivors: 0, complete: true } })
    expect(runsIn(folder)).toEqual([])
    await sleep(200)
    expect(runsIn(folder)).toEqual([])
  },
)

test('without `tree` the children stay', async () => {
  const pid = await processes.shell('sleep 120 & wait', { cwd: folder })
  await waitFor(() => runsIn(folder).length === 2)
  expect(await killAction().apply(request(targetOf(pid)), never())).toMatchObject({ kind: 'applied' })
  expect(runsIn(folder)).toHaveLength(1)
})

test('a descendant that left session and parent is found when the sensors saw it', async () => {
  const pid = await processes.shell('(setsid sleep 125 &); sleep 126 & wait', { cwd: folder })
  await waitFor(() => runsIn(folder).length === 3)
  const stray = runsIn(folder).find((other) => readStat(other)?.sessionId !== readStat(pid)?.sessionId) ?? 0
  const key = { pid: stray, startTicks: readStat(stray)?.startTicks ?? 0 }
  const reused = { pid: agentPid, startTicks: 1 }
  const applied = await killAction({ knownDescendants: () => [key, reused] }).apply(
    request(targetOf(pid), true),
    never(),
  )
  expect(applied).toMatchObject({ kind: 'applied', proof: { processes: 3, survivors: 0 } })
  expect(runsIn(folder)).toEqual([])
  expect(readStat(agentPid)?.state).not.toBe('Z')
})

test('a descendant that the sensors told too late is named as still running', async () => {
  const pid = await processes.shell('(setsid sleep 125 &); sleep 126 & wait', { cwd: folder })
  await waitFor(() => runsIn(folder).length === 3)
  const stray = runsIn(folder).find((other) => readStat(other)?.sessionId !== readStat(pid)?.sessionId) ?? 0
  const key = { pid: stray, startTicks: readStat(stray)?.startTicks ?? 0 }
  const runs = () => {
    const stat = readStat(pid)
    return stat !== null && !isDead(stat)
  }
  try {
    const action = killAction({ knownDescendants: () => (runs() ? [] : [key]) })
    const applied = await action.apply(request(targetOf(pid), true), never())
    expect(applied).toMatchObject({ kind: 'failed', proof: { processes: 2, survivors: 1 } })
    expect(applied).toMatchObject({ reason: expect.stringContaining(String(stray)) })
  } finally {
    process.kill(stray, 'SIGKILL')
  }
})

test.each([
  ['another start time', (pid: number) => ({ ...targetOf(pid), startTicks: targetOf(pid).startTicks - 1 })],
  ['another boot', (pid: number) => ({ ...targetOf(pid), bootId: '00000000-0000-4000-8000-000000000000' })],
  ['a pid that nobody has', (pid: number) => ({ ...targetOf(pid), pid: 4_194_304 })],
])('a target with %s is stale: refused, and nothing is signalled', async (_what, target) => {
  const pid = await processes.start('/bin/sleep', ['120'], { cwd: folder })
  for (const [, openProcess] of methods) {
    const action = killAction({ openProcess })
    expect(await action.check(request(target(pid), true), never())).toMatchObject({
      kind: 'refused',
      code: 'stale',
    })
    expect(await action.apply(request(target(pid), true), never())).toMatchObject({
      kind: 'refused',
      code: 'stale',
    })
  }
  expect(readStat(pid)?.state).toMatch(runs)
})

test('the executable is compared by content, also when its file was removed', async () => {
  const program = join(folder, 'program')
  copyFileSync(realpathSync('/bin/sleep'), program)
  const sha256 = createHash('sha256').update(readFileSync(program)).digest('hex')
  const pid = await processes.start(program, ['120'])
  rmSync(program)
  const action = killAction()
  const wrong = await action.apply(request(targetOf(pid, 'f'.repeat(64))), never())
  expect(wrong).toMatchObject({ kind: 'refused', code: 'executableChanged' })
  expect(readStat(pid)?.state).toMatch(runs)
  expect(
    await killAction({ executableBytesMax: 10 }).apply(request(targetOf(pid, sha256)), never()),
  ).toMatchObject({
    kind: 'refused',
    code: 'unreadable',
  })
  expect(await action.apply(request(targetOf(pid, sha256)), never())).toMatchObject({ kind: 'applied' })
})

test('a zombie is stale, and a killed one that nobody waits for counts as gone', async () => {
  // The shell becomes a program that waits for nobody.
  const parent = await processes.shell('sleep 130 & exec sleep 131', { cwd: folder })
  await waitFor(() => runsIn(folder).some((pid) => pid !== parent) && readStat(parent)?.name === 'sleep')
  const child = runsIn(folder).find((pid) => pid !== parent) ?? 0
  const target = targetOf(child)
  const action = killAction()
  expect(await action.apply(request(target), never())).toMatchObject({
    kind: 'applied',
    proof: { survivors: 0 },
  })
  expect(readStat(child)?.state).toBe('Z')
  expect(await action.probe(request(target), null, never())).toMatchObject({
    kind: 'proved',
    reason: expect.stringMatching(/has not waited/),
  })
  expect(await action.check(request(target), never())).toMatchObject({ kind: 'refused', code: 'stale' })
})

test('a probe after a restart tells what it finds', async () => {
  const pid = await processes.start('/bin/sleep', ['120'], { cwd: folder })
  const action = killAction()
  const target = targetOf(pid)
  expect(await action.probe(request(target), null, never())).toMatchObject({
    kind: 'disproved',
    proof: { gone: false },
  })
  const reused = { ...target, startTicks: target.startTicks - 5 }
  expect(await action.probe(request(reused), null, never())).toMatchObject({
    kind: 'proved',
    proof: { gone: true },
  })
  const earlier = { ...target, bootId: '00000000-0000-4000-8000-000000000000' }
  expect(await action.probe(request(earlier), null, never())).toMatchObject({ proof: { rebooted: true } })
})

test('one member outside the test root: the whole tree is refused by name, and none of it is stopped', async () => {
  mkdirSync(join(folder, 'inside'))
  const pid = await processes.shell(`sleep 120 & cd / && sleep 127 & wait`, { cwd: join(folder, 'inside') })
  const session = () => [...listStats().values()].filter((stat) => stat.sessionId === pid)
  await waitFor(() => session().filter(({ name }) => name === 'sleep').length === 2)
  const outside = session().find((stat) => readFacts(stat.pid)?.workingDirectory?.toString() === '/')?.pid
  const refused = await killAction().apply(request(targetOf(pid), true), never())
  expect(refused).toMatchObject({ kind: 'refused', code: 'interlock' })
  expect(refused.kind === 'refused' && refused.reason).toContain(`process ${outside} `)
  expect(session().map(({ state }) => runs.test(state))).toEqual([true, true, true])
})

test('an abort before the kill lets everything run on, and who was stopped before stays stopped', async () => {
  const pid = await processes.shell('sleep 120 & sleep 121 & kill -STOP $!; wait', { cwd: folder })
  await waitFor(
    () => runsIn(folder).length === 3 && runsIn(folder).some((other) => readStat(other)?.state === 'T'),
  )
  const abort = new AbortController()
  let opened = 0
  const action = killAction({
    openProcess: (other) => {
      opened += 1
      if (opened === 3) abort.abort()
      return openProcessByPid(other)
    },
  })
  expect(await action.apply(request(targetOf(pid), true), abort.signal)).toEqual({ kind: 'aborted' })
  await waitFor(() => runs.test(readStat(pid)?.state ?? ''))
  const standing = runsIn(folder).filter((other) => readStat(other)?.state === 'T')
  expect([runsIn(folder).length, standing.length]).toEqual([3, 1])
})

test('the agent, and what it descends from, cannot be killed even with the test root around it', async () => {
  const action = killAction({
    interlock: createInterlock({
      installedAsService: false,
      testRoot: process.cwd(),
      testCgroup: null,
      recordedNetworkNamespace: null,
      agentPid: process.pid,
    }),
  })
  const refused = await action.apply(request(targetOf(process.pid), true), never())
  expect(refused).toMatchObject({ kind: 'refused', code: 'interlock' })
})
