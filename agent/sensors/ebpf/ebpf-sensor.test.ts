import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { compileGenerateExec, compileTinyExit, loadBuiltAddon } from '../../native/testing/compile.ts'
import { readStat } from '../../platform/linux/processes.ts'
import { createProcessTable } from '../process-table.ts'
import type {
  ConnectRecord,
  ExecRecord,
  ExitRecord,
  ForkRecord,
  LossRecord,
  SensorRecord,
} from '../records.ts'
import { createEbpfSensor } from './ebpf-sensor.ts'
import { probeEbpf } from './probe.ts'

const asRoot = process.getuid?.() === 0

/** Field 22 of /proc/PID/stat, counted from behind the name. */
function startTicksOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
  return Number(stat.slice(stat.lastIndexOf(') ') + 2).split(' ')[19])
}

async function until(condition: () => boolean): Promise<void> {
  const deadlineMs = Date.now() + 10_000
  while (!condition()) {
    if (Date.now() > deadlineMs) throw new Error('nothing came within 10 s')
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

describe.skipIf(!asRoot)('the eBPF sensor', () => {
  if (!asRoot) return
  const native = loadBuiltAddon()
  const folder = mkdtempSync(join(tmpdir(), 'cordon-ebpf-'))
  const stop = new AbortController()
  const records: SensorRecord[] = []
  let tinyExit = ''
  let running: Promise<void> | undefined
  const sensor = createEbpfSensor({ native, drainIntervalMs: 5 })

  const execsOf = (pid: number | undefined) =>
    records.filter((record): record is ExecRecord => record.kind === 'exec' && record.process.pid === pid)
  const exitOf = (pid: number | undefined) =>
    records.find((record): record is ExitRecord => record.kind === 'exit' && record.process.pid === pid)

  /** Runs a program to its end and returns its pid once its exit was seen. */
  async function runAndSee(program: string, args: readonly string[], cwd = folder): Promise<number> {
    const child = spawn(program, args, { cwd, stdio: 'ignore' })
    await once(child, 'exit')
    const pid = child.pid ?? 0
    await until(() => exitOf(pid) !== undefined)
    return pid
  }

  beforeAll(async () => {
    tinyExit = compileTinyExit(folder)
    const attached = Promise.withResolvers<void>()
    running = sensor.run((batch) => records.push(...batch), stop.signal, attached.resolve)
    await Promise.race([running, attached.promise])
  })

  afterAll(async () => {
    rmSync(folder, { recursive: true, force: true })
    stop.abort()
    await running
  })

  test('a process that lives for one system call is seen with all that is told of it', async () => {
    const beforeMs = Date.now()
    const pid = await runAndSee(tinyExit, ['two words', '', 'a\nb', '--exit=3'])
    const [exec] = execsOf(pid)
    const file = statSync(tinyExit, { bigint: true })
    expect(exec).toMatchObject({
      parent: { pid: process.pid, startTicks: startTicksOf(process.pid) },
      userId: 0,
      groupId: 0,
      executable: tinyExit,
      arguments: [tinyExit, 'two words', '', 'a\nb', '--exit=3'],
      argumentsTruncated: false,
      workingDirectory: folder,
      file: {
        device: Number(file.dev),
        inode: Number(file.ino),
        sizeBytes: Number(file.size),
        changedNs: file.ctimeNs,
      },
    })
    expect(exec?.timestampMs).toBeGreaterThanOrEqual(beforeMs - 1)
    expect(exec?.timestampMs).toBeLessThanOrEqual(Date.now())
    expect(exitOf(pid)).toMatchObject({ process: exec?.process, exitCode: 3, signal: null })
  })

  test('the start time and the session are those that /proc and ps tell', async () => {
    const child = spawn('/bin/sleep', ['60'], { detached: true, stdio: 'ignore' })
    const pid = child.pid ?? 0
    await until(() => execsOf(pid).length > 0)
    expect(execsOf(pid)[0]).toMatchObject({
      process: { pid, startTicks: startTicksOf(pid) },
      sessionId: pid,
    })
    child.kill('SIGKILL')
    await until(() => exitOf(pid) !== undefined)
    expect(exitOf(pid)).toMatchObject({ exitCode: null, signal: 9 })
  })

  test('a daemon that forked twice into a session of its own is known below who started it', async () => {
    const script =
      "import os,time\np=os.fork()\nif p==0:\n os.setsid()\n if os.fork()!=0: os._exit(0)\n os.execv('/bin/sleep',['sleep','61'])\nos.waitpid(p,0)\ntime.sleep(60)"
    const before = records.length
    const child = spawn('/usr/bin/python3', ['-c', script], { stdio: 'ignore' })
    const pid = child.pid ?? 0
    const daemonExec = () =>
      records
        .slice(before)
        .find((record): record is ExecRecord => record.kind === 'exec' && record.arguments[1] === '61')
    const ended = () => records.slice(before).some((record) => record.kind === 'exit')
    await until(() => daemonExec() !== undefined && ended())
    const daemon = daemonExec()?.process ?? { pid: 0, startTicks: 0 }
    try {
      const table = createProcessTable({
        agentId: 'a'.repeat(32),
        bootId: '0'.repeat(8),
        bootTimeMs: 0,
        clock: Date.now,
        readProcess: () => null,
      })
      for (const record of records.slice(before)) {
        if (record.kind === 'fork') table.fork(record)
        if (record.kind === 'exec') table.exec(record)
        if (record.kind === 'exit') table.exit(record)
      }
      expect(readStat(daemon.pid)?.parentPid).not.toBe(pid)
      expect(table.descendantsOf({ pid, startTicks: startTicksOf(pid) })).toEqual([daemon])
    } finally {
      child.kill('SIGKILL')
      if (readStat(daemon.pid)?.startTicks === daemon.startTicks) process.kill(daemon.pid, 'SIGKILL')
    }
  })

  test('a fork names the child and its parent, and a thread is no process', async () => {
    const script =
      'import os,threading\nthreading.Thread(target=print).start()\np=os.fork()\nif p==0: os._exit(5)\nos.waitpid(p,0)\nos._exit(7)'
    const before = records.length
    const pid = await runAndSee('/usr/bin/python3', ['-c', script])
    const forks = records
      .slice(before)
      .filter((record): record is ForkRecord => record.kind === 'fork' && record.parent.pid === pid)
    expect(forks).toHaveLength(1)
    const child = forks[0]?.process
    expect(forks[0]?.parent).toEqual(execsOf(pid)[0]?.process)
    expect(exitOf(child?.pid)).toMatchObject({ process: child, exitCode: 5, signal: null })
    expect(exitOf(pid)).toMatchObject({ exitCode: 7 })
  })

  test('a path of 60 folders is told whole, as executable and as working directory', async () => {
    const deep = join(folder, ...Array.from({ length: 60 }, (_, index) => `folder-${index}`))
    mkdirSync(deep, { recursive: true })
    const program = compileTinyExit(deep)
    const pid = await runAndSee(program, [], deep)
    expect(execsOf(pid)[0]).toMatchObject({ executable: program, workingDirectory: deep })
  })

  test('a path longer than PATH_MAX keeps its end and is marked as cut off', async () => {
    const name = 'n'.repeat(250)
    const deepen = `import os\nfor i in range(20):\n os.mkdir('${name}')\n os.chdir('${name}')\nos.execv('${tinyExit}',['a'])`
    const [, exec] = execsOf(await runAndSee('/usr/bin/python3', ['-c', deepen]))
    expect(exec?.executable).toBe(tinyExit)
    expect(exec?.workingDirectory).toBe(`…${`/${name}`.repeat(16)}`)
  })

  test('paths cross mounts and end at the root', async () => {
    const [shm] = execsOf(await runAndSee('/bin/true', [], '/dev/shm'))
    const [top] = execsOf(await runAndSee('/bin/true', [], '/'))
    expect([shm?.workingDirectory, top?.workingDirectory]).toEqual(['/dev/shm', '/'])
  })

  test('arguments and paths that are not UTF-8 keep their bytes', async () => {
    const program = Buffer.concat([Buffer.from(join(folder, 'caf')), Buffer.from([0xe9])])
    renameSync(compileTinyExit(folder, 'plain'), program)
    const script = `import os\nos.execv(os.fsencode('${folder}')+b'/caf\\xe9', [b'\\xff\\xfe', 'ü'.encode(), b'ok'])`
    const pid = await runAndSee('/usr/bin/python3', ['-c', script])
    const exec = execsOf(pid)[1]
    expect(exec?.executable).toEqual(new Uint8Array(program))
    expect(exec?.arguments).toEqual([new Uint8Array([0xff, 0xfe]), 'ü', 'ok'])
    expect(exec?.workingDirectory).toBe(folder)
  })

  test('a command line of 2 MB is cut off and says so', async () => {
    const pid = await runAndSee(
      tinyExit,
      Array.from({ length: 20 }, () => 'x'.repeat(100_000)),
    )
    const [exec] = execsOf(pid)
    expect(exec?.argumentsTruncated).toBe(true)
    expect(exec?.arguments[0]).toBe(tinyExit)
    expect(exec?.arguments.join('\0')).toHaveLength(8_192)
    expect(exec?.workingDirectory).toBe(folder)
  })

  test('the executable of a script is its interpreter', async () => {
    const pid = await runAndSee('/bin/sh', ['-c', `exec ${tinyExit} --exit=1`])
    expect(execsOf(pid).map((exec) => exec.arguments[0])).toEqual(['/bin/sh', tinyExit])
  })

  test('an excluded process is not seen, and its pid is seen again once it is another one', async () => {
    const child = spawn('/bin/sh', ['-c', `read line; exec ${tinyExit}`], {
      stdio: ['pipe', 'ignore', 'ignore'],
    })
    const pid = child.pid ?? 0
    await until(() => execsOf(pid).length === 1)
    sensor.excludeProcess({ pid, startTicks: startTicksOf(pid) })
    // The same pid with another start is another process.
    sensor.excludeProcess({ pid: process.pid, startTicks: 1 })
    child.stdin?.end('\n')
    await once(child, 'exit')
    await runAndSee(tinyExit, [])
    expect(execsOf(pid)).toHaveLength(1)
    expect(exitOf(pid)).toBeUndefined()
  })

  const connectionsTo = (port: number) =>
    records.filter(
      (record): record is ConnectRecord => record.kind === 'connect' && record.destinationPort === port,
    )

  test.each([
    ['127.0.0.1', '127.0.0.1', '127.0.0.1'],
    ['::1', '::1', '::1'],
    ['::ffff:127.0.0.1', '127.0.0.1', '127.0.0.1'],
  ])(
    'a connection to %s is told once, as a success, by the process that made it',
    async (host, listens, told) => {
      const server = createServer((socket: Socket) => socket.resume())
      server.listen(0, listens)
      await once(server, 'listening')
      const address = server.address()
      const port = typeof address === 'object' && address !== null ? address.port : 0
      const client = connect(port, host)
      await once(client, 'connect')
      const sourcePort = client.localPort
      await until(() => connectionsTo(port).length > 0)
      client.destroy()
      server.close()
      await runAndSee(tinyExit, [])
      expect(connectionsTo(port)).toEqual([
        {
          kind: 'connect',
          timestampMs: expect.any(Number),
          process: { pid: process.pid, startTicks: startTicksOf(process.pid) },
          outcome: 'success',
          sourceAddress: told,
          sourcePort,
          destinationAddress: told,
          destinationPort: port,
        },
      ])
    },
  )

  test.each(['127.0.0.1', '::1', '::ffff:127.0.0.1'])(
    'a refused connection to %s is told once, as a failure',
    async (host) => {
      const server = createServer()
      server.listen(0, host === '::1' ? '::1' : '127.0.0.1')
      await once(server, 'listening')
      const address = server.address()
      const port = typeof address === 'object' && address !== null ? address.port : 0
      server.close()
      await once(server, 'close')
      const client = connect(port, host)
      await once(client, 'error')
      await until(() => connectionsTo(port).length > 0)
      await runAndSee(tinyExit, [])
      expect(connectionsTo(port)).toMatchObject([
        {
          process: { pid: process.pid },
          outcome: 'failure',
          destinationAddress: host === '::1' ? '::1' : '127.0.0.1',
        },
      ])
    },
  )

  test('a ring that nobody reads loses records and counts each of them', async () => {
    const generator = compileGenerateExec(folder)
    const losses: SensorRecord[] = []
    const stopSmall = new AbortController()
    const small = createEbpfSensor({ native, ringBytes: 4_096, drainIntervalMs: 60_000 })
    const ended = small.run(
      (batch) => losses.push(...batch),
      stopSmall.signal,
      () => undefined,
    )
    // Synchronous, so that the small ring is not read in between.
    spawnSync(generator, ['200', '0', tinyExit])
    stopSmall.abort()
    await ended
    const lost = losses.filter((record): record is LossRecord => record.kind === 'loss')
    const made = (kind: string) => losses.filter((record) => record.kind === kind).length
    const dropped = (kind: string) => lost.find((record) => record.source === `ebpf:${kind}`)?.count ?? 0
    expect(dropped('exec')).toBeGreaterThan(0)
    // The generator itself as well as the 200 that it starts; others may run at the same time.
    expect(made('exec') + dropped('exec')).toBeGreaterThanOrEqual(201)
    expect(made('exit') + dropped('exit')).toBeGreaterThanOrEqual(201)
  })

  test('the probe is content here', () => {
    expect(probeEbpf(native)).toEqual({ ok: true })
  })
})

test('a ring that is not a power of two, and a handle that is none, are refused', () => {
  const addon = loadBuiltAddon()
  expect(() => addon.bpfOpen(5_000, '/sys/fs/cgroup', false)).toThrow(TypeError)
  expect(() => addon.bpfOpen(-1, '/sys/fs/cgroup', false)).toThrow(TypeError)
  expect(() => addon.bpfDrain({} as never, Buffer.alloc(32_768))).toThrow('handle')
})
