import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  compileGenerateExec,
  compileMakeCalls,
  compileTinyExit,
  loadBuiltAddon,
} from '../../native/testing/compile.ts'
import { listStats, readStat } from '../../platform/linux/processes.ts'
import type { ExecRecord, ExitRecord, SensorRecord } from '../records.ts'
import { createAuditSensor } from './audit-sensor.ts'
import { AUDIT_PROTOCOL, daemonMessage, openAuditControl } from './control.ts'
import { probeAudit } from './probe.ts'
import { isOwnRule, RULE_KEY } from './rules.ts'
import { failToLogOn, foreignRule, stateOf, takeDaemonsPlace } from './testing/host-audit.ts'

const asRoot = process.getuid?.() === 0

async function until(condition: () => boolean): Promise<void> {
  const deadlineMs = Date.now() + 10_000
  while (!condition()) {
    if (Date.now() > deadlineMs) throw new Error('nothing came within 10 s')
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

describe.skipIf(!asRoot)('the audit sensor', () => {
  if (!asRoot) return
  const native = loadBuiltAddon()
  const folder = mkdtempSync(join(tmpdir(), 'cordon-audit-'))
  // The folder is not there before: /run is empty after a boot.
  const statePath = join(folder, 'run', 'audit-state.json')
  const control = openAuditControl(native)
  let records: SensorRecord[] = []
  const sensor = createAuditSensor({
    native,
    states: { readStat, listStats },
    statePath,
    drainIntervalMs: 5,
    protectedPids: () => protectedPids,
  })
  const protectedPids = [process.pid]
  const execsOf = (pid: number | undefined) =>
    records.filter((record): record is ExecRecord => record.kind === 'exec' && record.process.pid === pid)
  const exitOf = (pid: number | undefined) =>
    records.find((record): record is ExitRecord => record.kind === 'exit' && record.process.pid === pid)

  /** Runs the sensor while `use` runs, and waits for its end. */
  async function withSensor(use: () => Promise<void>): Promise<void> {
    records = []
    const stop = new AbortController()
    const attached = Promise.withResolvers<void>()
    const running = sensor.run((batch) => records.push(...batch), stop.signal, attached.resolve)
    try {
      await Promise.race([running, attached.promise])
      await use()
    } finally {
      stop.abort()
      await running
    }
  }

  beforeAll(async () => {
    await control.addRule(foreignRule('theirs'))
  })
  afterAll(async () => {
    await control.deleteRule(foreignRule('theirs'))
    control.close()
    rmSync(folder, { recursive: true, force: true })
  })

  test('can work here, unless somebody locked it', () => {
    expect(probeAudit(native)).toMatchObject({ ok: true })
  })

  test('a process that lives for one system call is seen with its arguments, its exit and its circumstances', async () => {
    const tinyExit = compileTinyExit(folder)
    const before = await stateOf(control)
    await withSensor(async () => {
      const long = 'x'.repeat(20_000)
      const child = spawn(tinyExit, ['two words', '', 'a\nb', long, '--exit=3'], {
        cwd: folder,
        stdio: 'ignore',
      })
      await once(child, 'exit')
      await until(() => exitOf(child.pid) !== undefined)
      const [exec] = execsOf(child.pid)
      expect(exec).toMatchObject({
        parent: { pid: process.pid, startTicks: readStat(process.pid)?.startTicks },
        userId: 0,
        executable: tinyExit,
        arguments: [tinyExit, 'two words', '', 'a\nb', long, '--exit=3'],
        argumentsTruncated: false,
        workingDirectory: folder,
        sessionId: readStat(process.pid)?.sessionId,
        file: { sizeBytes: readFileSync(tinyExit).length },
        circumstances: { effectiveUserId: 0, fileless: null },
      })
      expect(exitOf(child.pid)).toMatchObject({ process: exec?.process, exitCode: 3, signal: null })
      const order = records.filter((record) => 'process' in record && record.process?.pid === child.pid)
      expect(order.map(({ kind }) => kind)).toEqual(['fork', 'exec', 'exit'])
    })
    expect(await stateOf(control)).toEqual(before)
  })

  test('every one of many short lives is seen with its arguments and its exit code', async () => {
    const [generator, tinyExit] = [compileGenerateExec(folder), compileTinyExit(folder, 'many')]
    await withSensor(async () => {
      const child = spawn(generator, ['300', '600', tinyExit], { stdio: 'ignore' })
      await once(child, 'exit')
      await until(() => exitOf(child.pid) !== undefined)
      const execs = records.filter(
        (record): record is ExecRecord => record.kind === 'exec' && record.executable === tinyExit,
      )
      const expected = Array.from(
        { length: 300 },
        (_, index) => `--sequence=${String(index).padStart(8, '0')}`,
      )
      expect(execs.map(({ arguments: [, sequence] }) => sequence)).toEqual(expected)
      expect(execs.map(({ process }) => exitOf(process.pid)?.exitCode)).toEqual(
        execs.map((_, index) => index % 7),
      )
      expect(records.filter(({ kind }) => kind === 'loss')).toEqual([])
    })
  })

  test('a command line of 2 MB is cut off and says so; newlines, escapes and bytes that are no text stay', async () => {
    const tinyExit = compileTinyExit(folder, 'hostile')
    const before = await stateOf(control)
    await withSensor(async () => {
      const script = [
        'import os,sys',
        "odd = [b'odd', b'', b'a\\nb type=EXECVE a0=\"x\"', b'\\x1b[2J', b'\\xff\\xfe', 'ü'.encode()]",
        'if os.fork() == 0: os.execv(sys.argv[1], odd)',
        'os.wait()',
        "os.execv(sys.argv[1], [b'huge'] + [b'x'*100_000]*20 + [b'0'])",
      ].join('\n')
      const child = spawn('/usr/bin/python3', ['-c', script, tinyExit], { stdio: 'ignore' })
      await once(child, 'exit')
      await until(() => exitOf(child.pid) !== undefined)
      const execs = records.filter(
        (record): record is ExecRecord => record.kind === 'exec' && record.executable === tinyExit,
      )
      expect(execs.map(({ argumentsTruncated }) => argumentsTruncated)).toEqual([false, true])
      expect(execs[0]?.arguments).toEqual([
        'odd',
        '',
        'a\nb type=EXECVE a0="x"',
        '\x1b[2J',
        new Uint8Array([0xff, 0xfe]),
        'ü',
      ])
      expect(execs[1]?.arguments[0]).toBe('huge')
      expect(exitOf(execs[1]?.process.pid)).toMatchObject({ exitCode: 0 })
    })
    expect(await stateOf(control)).toEqual(before)
  })

  test('what programs do by direct system calls is told, with who did it', async () => {
    const makeCalls = compileMakeCalls(folder)
    const file = join(folder, 'touched')
    writeFileSync(file, '')
    await withSensor(async () => {
      const { stdout } = await promisify(execFile)(makeCalls, [file])
      const { pid, child, port } = JSON.parse(stdout) as { pid: number; child: number; port: number }
      await until(() => exitOf(pid) !== undefined)
      const by = (actor: number) =>
        records.flatMap((record) => {
          if (!('process' in record) || record.process?.pid !== actor) return []
          const { timestampMs, process, ...rest } = record
          return ['fork', 'exec', 'exit'].includes(record.kind) ? [] : [rest]
        })
      const tcp = { kind: 'connect', sourceAddress: '', sourcePort: 0 }
      const accepted = { kind: 'accept', transport: 'tcp', direction: 'ingress', destinationPort: port }
      const target = { pid: child, startTicks: execsOf(pid).length > 0 ? expect.any(Number) : null }
      const access = (operation: string) =>
        expect.objectContaining({ kind: 'process-access', operation, target })
      expect(by(pid)).toMatchObject([
        { kind: 'listen', transport: 'tcp', address: '::', port },
        { ...tcp, outcome: 'success', destinationAddress: '127.0.0.1', destinationPort: port },
        { ...accepted, sourceAddress: '127.0.0.1' },
        { ...tcp, outcome: 'success', destinationAddress: '::1', destinationPort: port },
        { ...accepted, sourceAddress: '::1' },
        { ...tcp, outcome: 'failure', destinationAddress: '127.0.0.1', destinationPort: 1 },
        { kind: 'raw-socket', family: 'ipv4', protocol: 1 },
        { kind: 'raw-socket', family: 'packet', protocol: 3 },
        { kind: 'memory-file', name: 'harmless', flags: 1 },
        { kind: 'file-attributes', operation: 'mode', path: file, mode: 0o640 },
        { kind: 'file-attributes', operation: 'owner', path: file, userId: 65_534, groupId: null },
        { kind: 'module', operation: 'unload' },
        { kind: 'bpf', operation: 'program-load' },
        access('process_vm_readv'),
        access('process_vm_writev'),
        access('ptrace-seize'),
        access('ptrace-read'),
        access('ptrace-write'),
      ])
      expect(by(child)).toMatchObject([
        { kind: 'namespace', operation: 'unshare', flags: 0x2_0000 },
        { kind: 'mount', operation: 'mount', target: '/' },
        { kind: 'mount', operation: 'mount', source: '/tmp', target: '/tmp', result: 0 },
        { kind: 'mount', operation: 'unmount', target: '/tmp' },
        { kind: 'credentials', operation: 'setresgid', requested: [65_534, -1, 65_534] },
        { kind: 'credentials', operation: 'setuid', requested: [65_534], effectiveUserId: 65_534 },
      ])
      expect(exitOf(child)).toMatchObject({ exitCode: null, signal: 9 })
    })
  })

  test('a signal to a protected process is told, also when it comes in a program of its own', async () => {
    const protectedChild = spawn('/bin/sleep', ['60'], { stdio: 'ignore' })
    protectedPids.push(protectedChild.pid ?? 0)
    await withSensor(async () => {
      const sender = spawn('/bin/sh', ['-c', `kill -TERM ${protectedChild.pid}`], { stdio: 'ignore' })
      await once(protectedChild, 'exit')
      await until(() => records.some(({ kind }) => kind === 'tamper'))
      expect(records.find(({ kind }) => kind === 'tamper')).toMatchObject({
        process: { pid: sender.pid },
        reason: expect.stringContaining(`signal 15 to the agent's process ${protectedChild.pid} was sent by`),
      })
    })
    protectedPids.pop()
  })

  test('a logon that PAM tells of is told, and nothing counts as lost by it', async () => {
    await withSensor(async () => {
      const { stdout } = await promisify(execFile)('/usr/bin/python3', ['-c', failToLogOn], {
        timeout: 20_000,
      })
      await until(() => exitOf(Number(stdout)) !== undefined)
      expect(records.find(({ kind }) => kind === 'logon')).toMatchObject({
        action: 'logon-failed',
        process: { pid: Number(stdout), startTicks: expect.any(Number) },
        account: 'nobody-here',
        source: 'audit',
        service: 'sshd',
        remote: '192.0.2.7',
      })
    })
    expect(records.filter(({ kind }) => kind === 'loss')).toEqual([])
  })

  test('beside another audit daemon it only listens, sees the same, and leaves the daemon in place', async () => {
    const daemon = native.netlinkOpen(AUDIT_PROTOCOL, 0, 8 * 1024 ** 2)
    const fetch = Buffer.alloc(256 * 1024)
    native.netlinkSend(daemon, daemonMessage(process.pid))
    const draining = setInterval(() => native.netlinkDrain(daemon, fetch), 5)
    try {
      const before = await stateOf(control)
      expect(before.pid).toBe(process.pid)
      expect(probeAudit(native)).toMatchObject({ reason: expect.stringContaining(`pid ${process.pid}`) })
      await withSensor(async () => {
        const child = spawn('/bin/true', ['beside'], { stdio: 'ignore' })
        await once(child, 'exit')
        await until(() => exitOf(child.pid) !== undefined)
        expect(execsOf(child.pid)[0]).toMatchObject({ arguments: ['/bin/true', 'beside'] })
        expect((await control.status()).pid).toBe(process.pid)
      })
      expect(await stateOf(control)).toEqual(before)
    } finally {
      clearInterval(draining)
      native.netlinkSend(daemon, daemonMessage(0))
      native.netlinkClose(daemon)
    }
  })

  test('it leaves the daemon’s place to another program that asks for it', async () => {
    const before = await stateOf(control)
    await withSensor(async () => {
      expect((await control.status()).pid).toBe(process.pid)
      const taken = await promisify(execFile)('/usr/bin/python3', ['-c', takeDaemonsPlace], {
        timeout: 30_000,
      })
      // EEXIST at first, which is the question; then it is given way to.
      expect(taken.stdout).toBe('-17 0\n')
      expect((await control.status()).pid).toBe(0)
    })
    expect(await stateOf(control)).toEqual(before)
  })

  test('rules and settings that a crashed agent left are put right, and nobody else is touched', async () => {
    const before = await stateOf(control)
    const found = {
      enabled: before.enabled,
      backlogLimit: before.backlogLimit,
      backlogWaitTime: before.backlogWaitTime,
    }
    mkdirSync(dirname(statePath), { recursive: true })
    writeFileSync(statePath, JSON.stringify(found))
    await control.addRule(foreignRule(RULE_KEY))
    await control.set({ enabled: 1, backlogLimit: 16_384, backlogWaitTime: 0 })
    await withSensor(async () => {
      const rules = await control.listRules()
      expect(rules.some((rule) => rule.equals(foreignRule(RULE_KEY)))).toBe(false)
      expect(rules.filter((rule) => !isOwnRule(rule)).map((rule) => rule.toString('hex'))).toEqual(
        before.rules,
      )
    })
    expect(await stateOf(control)).toEqual(before)
    expect(existsSync(statePath)).toBe(false)
  })

  test('when audit is switched off by another program, it ends with the reason and puts the rest back', async () => {
    const before = await stateOf(control)
    await expect(
      withSensor(async () => {
        await control.set({ enabled: 0 })
        await new Promise((resolve) => setTimeout(resolve, 2_500))
      }),
    ).rejects.toThrow('switched off')
    await control.set({ enabled: before.enabled })
    expect(await stateOf(control)).toEqual(before)
  })

  test('rules that another program deletes are told and added again', async () => {
    await withSensor(async () => {
      const own = (await control.listRules()).filter(isOwnRule)
      const script = join(import.meta.dirname, 'testing/delete-rule.ts')
      const first = own[0]?.toString('hex') ?? ''
      await promisify(execFile)(process.execPath, [script, first], { timeout: 20_000 })
      await until(() => records.some(({ kind }) => kind === 'tamper'))
      expect(records.find(({ kind }) => kind === 'tamper')).toMatchObject({
        process: { pid: expect.any(Number) },
        reason: expect.stringContaining('1 audit rules of Cordon'),
      })
      expect((await control.listRules()).filter(isOwnRule)).toHaveLength(own.length)
    })
  })
})
