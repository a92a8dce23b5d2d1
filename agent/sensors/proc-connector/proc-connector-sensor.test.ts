import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { compileGenerateExec, compileTinyExit, loadBuiltAddon } from '../../native/testing/compile.ts'
import { readProcess } from '../../platform/linux/proc.ts'
import { listStats, readStat } from '../../platform/linux/processes.ts'
import type { ExecRecord, ExitRecord, ForkRecord, SensorRecord } from '../records.ts'
import { probeProcConnector } from './probe.ts'
import { createProcConnectorSensor } from './proc-connector-sensor.ts'

const asRoot = process.getuid?.() === 0

async function until(condition: () => boolean): Promise<void> {
  const deadlineMs = Date.now() + 10_000
  while (!condition()) {
    if (Date.now() > deadlineMs) throw new Error('nothing came within 10 s')
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

describe.skipIf(!asRoot)('the proc connector sensor', () => {
  if (!asRoot) return
  const native = loadBuiltAddon()
  const folder = mkdtempSync(join(tmpdir(), 'cordon-connector-'))
  const stop = new AbortController()
  const records: SensorRecord[] = []
  const excludedPids = new Set<number>()
  let running: Promise<void> | undefined
  const sensor = createProcConnectorSensor({
    native,
    states: { readStat, listStats },
    readProcess,
    excludedPids,
    drainIntervalMs: 5,
  })
  const of = <Kind extends SensorRecord['kind']>(kind: Kind, pid: number | undefined) =>
    records.filter(
      (record): record is Extract<SensorRecord, { kind: Kind }> =>
        record.kind === kind && 'process' in record && record.process?.pid === pid,
    )

  beforeAll(async () => {
    const attached = Promise.withResolvers<void>()
    running = sensor.run((batch) => records.push(...batch), stop.signal, attached.resolve)
    await Promise.race([running, attached.promise])
  })

  afterAll(async () => {
    rmSync(folder, { recursive: true, force: true })
    stop.abort()
    await running
  })

  test('can work here', () => {
    expect(probeProcConnector(native)).toEqual({ ok: true })
  })

  test('a program that stays is told with all that /proc tells, and with how it ended', async () => {
    const child = spawn('/bin/sleep', ['60'], { cwd: folder, detached: true, stdio: 'ignore' })
    await until(() => of('exec', child.pid).length > 0)
    const [exec] = of('exec', child.pid) as ExecRecord[]
    const [fork] = of('fork', child.pid) as ForkRecord[]
    expect(exec).toMatchObject({
      process: { pid: child.pid, startTicks: readStat(child.pid ?? 0)?.startTicks },
      parent: { pid: process.pid, startTicks: readStat(process.pid)?.startTicks },
      arguments: ['/bin/sleep', '60'],
      argumentsTruncated: false,
      workingDirectory: folder,
      sessionId: child.pid,
    })
    expect(fork).toMatchObject({ process: exec?.process, parent: exec?.parent })
    child.kill('SIGKILL')
    await until(() => of('exit', child.pid).length > 0)
    expect(of('exit', child.pid)).toMatchObject([{ process: exec?.process, exitCode: null, signal: 9 }])
  })

  test('every one of many short lives is told once, with its exit code', async () => {
    const generator = compileGenerateExec(folder)
    const child = spawn(generator, ['300', '600', compileTinyExit(folder)], { stdio: 'ignore' })
    await once(child, 'exit')
    await until(() => of('exit', child.pid).length > 0)
    const forks = records.filter(
      (record): record is ForkRecord => record.kind === 'fork' && record.parent.pid === child.pid,
    )
    expect(forks).toHaveLength(300)
    const ends = forks.map(({ process }) => (of('exit', process.pid) as ExitRecord[]).at(-1))
    expect(ends.map((end) => end?.exitCode)).toEqual(forks.map((_, index) => index % 7))
    expect(ends.map((end) => end?.process)).toEqual(forks.map(({ process }) => process))
    // What could not be read any more is told without a made-up program.
    for (const { process } of forks) {
      const [exec] = of('exec', process.pid) as ExecRecord[]
      expect(exec?.executable === '(unknown)' || exec?.arguments.length === 4).toBe(true)
    }
    expect(records.filter(({ kind }) => kind === 'loss')).toEqual([])
  })

  test('a process is over only with its last thread, and threads are no processes', async () => {
    const script =
      'import os,threading,time,ctypes\n' +
      'def late():\n time.sleep(0.3)\n os._exit(5)\n' +
      'threading.Thread(target=late).start()\n' +
      // pthread_exit(3) of the first thread: the process lives on.
      'ctypes.CDLL(None).syscall(60,0)'
    const child = spawn('/usr/bin/python3', ['-c', script], { stdio: 'ignore' })
    await once(child, 'exit')
    await until(() => of('exit', child.pid).length > 0)
    expect(of('exit', child.pid)).toMatchObject([{ exitCode: 5, signal: null }])
    expect(of('fork', child.pid)).toHaveLength(1)
  })

  test('other listeners that come and go are no loss', async () => {
    for (let count = 0; count < 20; count++) expect(probeProcConnector(native)).toEqual({ ok: true })
    const child = spawn('/bin/true', { stdio: 'ignore' })
    await until(() => of('exit', child.pid).length > 0)
    expect(records.filter(({ kind }) => kind === 'loss')).toEqual([])
  })

  test('a process that is excluded is left out', async () => {
    const child = spawn('/bin/sleep', ['60'], { stdio: 'ignore' })
    await until(() => of('exec', child.pid).length > 0)
    excludedPids.add(child.pid ?? 0)
    child.kill('SIGKILL')
    await once(child, 'exit')
    const other = spawn('/bin/true', { stdio: 'ignore' })
    await until(() => of('exit', other.pid).length > 0)
    expect(of('exit', child.pid)).toEqual([])
  })
})

test('a kernel that gives no socket is a reason', () => {
  const unwilling = {
    netlinkOpen: () => {
      throw Object.assign(new Error('socket: Protocol not supported'), { code: 'EPROTONOSUPPORT' })
    },
    netlinkSend: () => undefined,
    netlinkDrain: () => 0,
    netlinkClose: () => undefined,
  }
  expect(probeProcConnector(unwilling)).toMatchObject({
    ok: false,
    reason: expect.stringContaining('CONFIG_PROC_EVENTS'),
  })
})

test('a subscription that is not answered is refused with the reason', () => {
  const silent = {
    netlinkOpen: () => ({}) as never,
    netlinkSend: () => undefined,
    netlinkDrain: () => 0,
    netlinkClose: () => undefined,
  }
  expect(probeProcConnector(silent)).toMatchObject({
    ok: false,
    reason: expect.stringContaining('namespace'),
  })
})
