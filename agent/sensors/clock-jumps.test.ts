import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { describe, expect, test, vi } from 'vitest'
import { loadBuiltAddon } from '../native/testing/compile.ts'
import { createLogons } from './audit/logons.ts'
import { createOrdering } from './audit/ordering.ts'
import { parseFields } from './audit/record-text.ts'
import { createRootFolder, startWatch } from './configuration/testing/watched-root.ts'
import { createEbpfSensor } from './ebpf/ebpf-sensor.ts'
import { createElapsed } from './elapsed.ts'
import { createEventBuilder } from './event-builder.ts'
import { createFanotifySensor } from './fanotify/fanotify-sensor.ts'
import { createLogonMerge } from './logons/logon-merge.ts'
import { createPamWatch } from './logons/pam-watch.ts'
import { createProcessTable } from './process-table.ts'
import type { ConfigurationRecord, ExecRecord, FileRecord, LogonRecord, SensorRecord } from './records.ts'
import { createServiceStateMerge } from './systemd-bus/service-state-merge.ts'
import { createVolume } from './volume/volume.ts'

const asRoot = process.geteuid?.() === 0
const threeDaysMs = 3 * 24 * 3_600_000
const jumps = [
  ['back', -threeDaysMs],
  ['forward', threeDaysMs],
] as const

/** The real wall clock until somebody sets it. */
function createWallClock() {
  let offsetMs = 0
  return {
    clock: () => Date.now() + offsetMs,
    jump: (ms: number) => {
      offsetMs += ms
    },
  }
}

test('time that passed is never less for a clock that is set back, and goes on from there', () => {
  let nowMs = 1_000
  const elapsed = createElapsed(() => nowMs)
  for (const ms of [1_500, 1_500 - threeDaysMs, 1_600 - threeDaysMs]) {
    nowMs = ms
    elapsed()
  }
  expect(elapsed()).toBe(600)
})

describe.each(jumps)('a wall clock that jumps %s by three days', (_, jumpMs) => {
  test('does not keep a logon waiting for a better source', async () => {
    const { clock, jump } = createWallClock()
    const told: SensorRecord[] = []
    const merge = createLogonMerge({ sink: (batch) => told.push(...batch), clock, waitMs: 40, windowMs: 60 })
    const logon = (account: string): LogonRecord => ({
      kind: 'logon',
      timestampMs: clock(),
      process: null,
      action: 'logon-failed',
      account,
      source: 'btmp',
      service: null,
      terminal: null,
      remote: null,
    })
    merge.observe(logon('before'))
    jump(jumpMs)
    merge.observe(logon('after'))
    await vi.waitFor(() => expect(told).toHaveLength(2), 5_000)
    merge.close()
    expect(told).toMatchObject([{ account: 'before' }, { account: 'after' }])
  })

  test('does not keep the state of a service waiting for who had it changed', async () => {
    const { clock, jump } = createWallClock()
    const told: SensorRecord[] = []
    const merge = createServiceStateMerge({ sink: (batch) => told.push(...batch), clock, windowMs: 40 })
    const started = (name: string): ConfigurationRecord => ({
      kind: 'configuration',
      timestampMs: clock(),
      process: null,
      change: {
        'event.action': 'service-state-changed',
        'service.name': name,
        'cordon.operation': 'started',
      },
    })
    merge.observe(started('before.service'))
    jump(jumpMs)
    merge.observe(started('after.service'))
    await vi.waitFor(() => expect(told).toHaveLength(2), 5_000)
    merge.close()
  })

  test('does not keep a changed file of the configuration from being looked at', async () => {
    const { clock, jump } = createWallClock()
    const { root, put, remove } = createRootFolder()
    put('/etc/crontab', 'first\n')
    const watched = await startWatch(root, { clock })
    try {
      put('/etc/crontab', 'second\n')
      watched.tell('/etc/crontab')
      jump(jumpMs)
      await vi.waitFor(() => expect(watched.records).toHaveLength(1), 5_000)
      put('/etc/crontab', 'third\n')
      watched.tell('/etc/crontab')
      await vi.waitFor(() => expect(watched.records).toHaveLength(2), 5_000)
    } finally {
      await watched.stop()
      remove()
    }
  })

  test('does not keep libraries of PAM from being looked for', () => {
    let nowMs = threeDaysMs
    let looks = 0
    const find = () => {
      looks += 1
      return { libraries: [], refused: [] }
    }
    const watch = createPamWatch({ roots: () => [], clock: () => nowMs, find })
    watch.attach(() => undefined)
    nowMs += jumpMs
    watch.tick()
    const before = looks
    nowMs += 60_000
    watch.tick()
    expect(looks).toBe(before + 1)
    watch.lookSoon()
    nowMs += 1_000
    watch.tick()
    expect(looks).toBe(before + 2)
  })

  test('forgets processes that ended and none that runs', () => {
    let nowMs = threeDaysMs
    const table = createProcessTable({
      agentId: 'a'.repeat(32),
      bootId: '0'.repeat(8),
      bootTimeMs: 0,
      clock: () => nowMs,
      readProcess: () => null,
    })
    const key = (pid: number) => ({ pid, startTicks: pid })
    for (const pid of [50, 60])
      table.fork({ kind: 'fork', timestampMs: nowMs, process: key(pid), parent: key(1) })
    table.exit({ kind: 'exit', timestampMs: nowMs, process: key(50), exitCode: 0, signal: null })
    nowMs += jumpMs
    table.sweep()
    nowMs += 5_000
    table.sweep()
    expect(table.size()).toBe(1)
    expect(table.findExact(key(60))).not.toBeNull()
  })

  test('releases a repeat that is held, and what is counted, when its time is over', () => {
    let nowMs = threeDaysMs
    const told: SensorRecord[] = []
    const volume = createVolume({
      sink: (batch) => told.push(...batch),
      clock: () => nowMs,
      budgets: {
        file: { perSecond: 1, burst: 1 },
        network: { perSecond: 1, burst: 1 },
        activity: { perSecond: 1, burst: 1 },
      },
    })
    const write: FileRecord = {
      kind: 'file',
      timestampMs: nowMs,
      pid: 7,
      action: 'modification',
      path: '/tmp/a',
      previousPath: null,
      contentComplete: true,
    }
    const sysctl: SensorRecord = {
      kind: 'sysctl',
      timestampMs: nowMs,
      process: { pid: 8, startTicks: 1 },
      path: '/x',
    }
    volume.accept([write, write, ...Array.from({ length: 40 }, () => sysctl)])
    nowMs += jumpMs
    volume.tick()
    nowMs += 2_000
    volume.tick()
    expect(told.filter(({ kind }) => kind === 'file')).toHaveLength(2)
    const passed = told.filter(({ kind }) => kind === 'sysctl').length
    expect(told.find(({ kind }) => kind === 'suppressed')).toMatchObject({
      counts: { 'sysctl-written': 40 - passed },
    })
  })

  test('does not hide a script that was told before it for longer than an hour', () => {
    let nowMs = 2 * threeDaysMs
    const clock = () => nowMs
    const readProcess = () => null
    const table = createProcessTable({
      agentId: 'a'.repeat(32),
      bootId: '0'.repeat(8),
      bootTimeMs: 0,
      clock,
      readProcess,
    })
    const builder = createEventBuilder({
      table,
      knownHash: () => undefined,
      userName: () => undefined,
      ownPids: new Set(),
      ownFolders: [],
      isOwnPlace: () => false,
      clock,
      readSetting: () => null,
    })
    const told = () => {
      const [observation] = builder.build([
        {
          kind: 'script',
          timestampMs: nowMs,
          process: null,
          origin: 'argument',
          content: Buffer.from('id'),
          truncated: false,
          path: null,
        },
      ])
      return observation?.event
    }
    expect(told()).toHaveProperty(['cordon.script.content'], 'id')
    expect(told()).not.toHaveProperty(['cordon.script.content'])
    nowMs += jumpMs
    expect(told()).toHaveProperty(['cordon.script.content'], 'id')
  })

  test('neither holds back what audit tells nor takes a failed logon for a repeat', () => {
    const ordering = createOrdering()
    const exit = (timestampMs: number) =>
      ({ kind: 'exit', timestampMs, process: { pid: 5, startTicks: 1 }, exitCode: 0, signal: null }) as const
    ordering.expectExec(5, threeDaysMs)
    ordering.addProcessEvent(exit(threeDaysMs))
    expect(ordering.release(threeDaysMs + jumpMs)).toEqual([exit(threeDaysMs)])

    const logons = createLogons((pid) => ({ pid, startTicks: null }))
    const fields = parseFields(`pid=7 msg='op=login acct="bob" exe="/usr/sbin/sshd" res=failed'`)
    expect(logons.record({ type: 1112, fields }, threeDaysMs)).not.toBeNull()
    expect(logons.record({ type: 1112, fields }, threeDaysMs + jumpMs)).not.toBeNull()
  })

  describe.skipIf(!asRoot)('in the kernel layers', () => {
    test('loses no program, tells each by the clock as it is then, and tells a script that nobody adds to', async () => {
      const { clock, jump } = createWallClock()
      const records: SensorRecord[] = []
      const stop = new AbortController()
      const attached = Promise.withResolvers<void>()
      const sensor = createEbpfSensor({ native: loadBuiltAddon(), clock })
      const running = sensor.run((batch) => records.push(...batch), stop.signal, attached.resolve)
      const execOf = (pid: number | undefined) =>
        records.find((record): record is ExecRecord => record.kind === 'exec' && record.process.pid === pid)
      await Promise.race([running, attached.promise])
      const shell = spawn('/bin/sh', { stdio: ['pipe', 'ignore', 'ignore'] })
      try {
        await vi.waitFor(() => expect(execOf(shell.pid)).toBeDefined(), 5_000)
        const beforeMs = clock()
        shell.stdin.write('true\n')
        const isTold = () =>
          records.some(
            ({ kind, ...record }) =>
              kind === 'script' && 'process' in record && record.process?.pid === shell.pid,
          )
        jump(jumpMs)
        await vi.waitFor(() => expect(isTold()).toBe(true), 5_000)
        const after = spawn('/bin/true')
        await once(after, 'exit')
        await vi.waitFor(() => expect(execOf(after.pid)).toBeDefined(), 5_000)
        expect(Math.abs((execOf(after.pid)?.timestampMs ?? 0) - (beforeMs + jumpMs))).toBeLessThan(60_000)
      } finally {
        shell.kill('SIGKILL')
        stop.abort()
        await running
      }
    })

    test('does not keep file systems from being listed again', async () => {
      const { clock, jump } = createWallClock()
      let lists = 0
      const stop = new AbortController()
      const running = createFanotifySensor({
        native: loadBuiltAddon(),
        clock,
        drainIntervalMs: 5,
        rescanIntervalMs: 20,
        listMountPoints: () => {
          lists += 1
          return []
        },
      }).run(
        () => undefined,
        stop.signal,
        () => undefined,
      )
      jump(jumpMs)
      await vi.waitFor(() => expect(lists).toBeGreaterThan(3), 5_000)
      stop.abort()
      await running
    })
  })
})
