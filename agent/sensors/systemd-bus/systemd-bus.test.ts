import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { expectEvent } from '../configuration/testing/watched-root.ts'
import type { ConfigurationRecord, SensorRecord } from '../records.ts'
import { type BusConnection, connectToBus } from './bus-connection.ts'
import { MESSAGE_TYPES, NO_REPLY_EXPECTED } from './message.ts'
import { createServiceStateMerge } from './service-state-merge.ts'
import { createSystemdBusSensor, probeSystemdBus } from './systemd-bus-sensor.ts'
import { canRunBus, GONE_JOB_PATH, startFakeSystemd, startPrivateBus } from './testing/private-bus.ts'

const MANAGER = [
  'org.freedesktop.systemd1',
  '/org/freedesktop/systemd1',
  'org.freedesktop.systemd1.Manager',
] as const

describe.skipIf(!canRunBus || !existsSync('/usr/bin/busctl'))('on a real bus', () => {
  let bus: Awaited<ReturnType<typeof startPrivateBus>>
  let systemd: BusConnection
  let records: SensorRecord[]
  let sensor: ReturnType<typeof createSystemdBusSensor>
  let stop: AbortController
  let ended: Promise<void>

  beforeAll(async () => {
    bus = await startPrivateBus()
  })
  afterAll(() => bus.stop())
  beforeEach(async () => {
    systemd = await startFakeSystemd(bus.socketPath)
    records = []
    stop = new AbortController()
    sensor = createSystemdBusSensor({
      clock: Date.now,
      socketPath: bus.socketPath,
      backoffMs: { min: 5, max: 20 },
    })
    const attached = Promise.withResolvers<void>()
    ended = sensor.run((batch) => records.push(...batch), stop.signal, attached.resolve)
    await attached.promise
  })
  afterEach(async () => {
    stop.abort()
    await ended
    systemd.close()
  })

  /** Runs a caller to its end; gives its pid. */
  async function run(program: string, ...parameters: string[]): Promise<number> {
    const caller = spawn(program, parameters, { stdio: 'ignore', timeout: 20_000 })
    await new Promise((resolve) => caller.once('exit', resolve))
    return caller.pid ?? 0
  }
  const call = (...parameters: string[]) =>
    run('/usr/bin/busctl', `--address=${bus.address}`, '--', 'call', ...MANAGER, ...parameters)

  const until = (count: number) =>
    vi.waitFor(() => expect(records.length).toBeGreaterThanOrEqual(count), 10_000)
  const told = () =>
    records.flatMap((record) => {
      if (record.kind !== 'configuration') return []
      expectEvent(record.change)
      return [record]
    })

  test.each([
    [['StartUnit', 'ss', 'evil.service', 'replace'], 'started', ['evil.service']],
    [['StopUnit', 'ss', 'auditd.service', 'fail'], 'stopped', ['auditd.service']],
    [['RestartUnit', 'ss', 'a.service', 'fail'], 'restarted', ['a.service']],
    [['ReloadUnit', 'ss', 'a.service', 'fail'], 'reloaded', ['a.service']],
    [
      ['EnableUnitFiles', 'asbb', '2', '/tmp/a.service', 'b.timer', 'false', 'true'],
      'enabled',
      ['a.service', 'b.timer'],
    ],
    [['DisableUnitFiles', 'asb', '1', 'a.service', 'false'], 'disabled', ['a.service']],
    [['MaskUnitFiles', 'asbb', '1', 'auditd.service', 'true', 'true'], 'masked', ['auditd.service']],
  ])('%s is told with the pid of its caller', async (parameters, operation, units) => {
    const pid = await call(...parameters)
    await until(units.length)
    expect(told().map(({ change, process }) => [change, process])).toEqual(
      units.map((unit) => [
        { 'event.action': 'service-state-changed', 'service.name': unit, 'cordon.operation': operation },
        { pid, startTicks: null },
      ]),
    )
  })

  test('a transient unit is told with what it runs, and one of a logon is not', async () => {
    const properties = ['1', 'ExecStart', 'a(sasb)', '1', '/bin/sh', '3', 'sh', '-c', 'id', 'false']
    await call('StartTransientUnit', 'ssa(sv)a(sa(sv))', 'session-1.scope', 'fail', '0', '0')
    const pid = await call(
      'StartTransientUnit',
      'ssa(sv)a(sa(sv))',
      'run-1.service',
      'fail',
      ...properties,
      '0',
    )
    await until(2)
    expect(told().map(({ change }) => change)).toEqual([
      {
        'event.action': 'service-created',
        'service.name': 'run-1.service',
        'file.path': '/run/systemd/transient/run-1.service',
        'cordon.change.after': 'ExecStart=/bin/sh -c id',
      },
      {
        'event.action': 'service-state-changed',
        'service.name': 'run-1.service',
        'cordon.operation': 'started',
      },
    ])
    expect(told().every(({ process }) => process?.pid === pid)).toBe(true)
  })

  test('a timer that systemd-run makes is a scheduled task, with the unit that it starts', async () => {
    const timer = ['1', 'TimersCalendar', 'a(ss)', '1', 'OnCalendar', 'hourly']
    const service = ['1', 'run-2.service', '1', 'ExecStart', 'a(sasb)', '1', '/bin/id', '1', 'id', 'false']
    await call('StartTransientUnit', 'ssa(sv)a(sa(sv))', 'run-2.timer', 'fail', ...timer, ...service)
    await until(3)
    expect(told().map(({ change }) => change)).toMatchObject([
      { 'event.action': 'scheduled-task-changed', 'cordon.change.after': 'OnCalendar=hourly' },
      {
        'event.action': 'service-created',
        'service.name': 'run-2.service',
        'cordon.change.after': 'ExecStart=/bin/id',
      },
      { 'event.action': 'service-state-changed', 'service.name': 'run-2.timer' },
    ])
  })

  test('a call that is refused, and one that only asks, are not told', async () => {
    await call('StartUnit', 'ss', 'denied.service', 'fail')
    await call('GetUnit', 's', 'a.service')
    await call('StartUnit', 'ss', 'last.service', 'fail')
    await until(1)
    expect(told().map(({ change }) => 'service.name' in change && change['service.name'])).toEqual([
      'last.service',
    ])
  })

  test('the unit itself can be called', async () => {
    const parameters = [`--bus=${bus.address}`, '--dest=org.freedesktop.systemd1', '--print-reply']
    const unit = '/org/freedesktop/systemd1/unit/my_2dapp_2eservice'
    const stopCall = [unit, 'org.freedesktop.systemd1.Unit.Stop', 'string:fail']
    const pid = await run('/usr/bin/dbus-send', ...parameters, ...stopCall)
    await until(1)
    expect(told()).toMatchObject([
      { change: { 'service.name': 'my-app.service', 'cordon.operation': 'stopped' }, process: { pid } },
    ])
  })

  test('a call that wants no answer is told as it was made, also one that does not name its interface', async () => {
    const caller = await connectToBus({ socketPath: bus.socketPath, message: () => undefined })
    const to = {
      type: MESSAGE_TYPES.call,
      flags: NO_REPLY_EXPECTED,
      destination: MANAGER[0],
      path: MANAGER[1],
    }
    caller.send({ ...to, member: 'StartUnit', signature: 'ss', body: ['quiet.service', 'fail'] })
    await until(1)
    expect(told()).toMatchObject([
      { change: { 'service.name': 'quiet.service' }, process: { pid: process.pid } },
    ])
    caller.close()
  })

  test('a job that systemd begins by itself is told without a caller', async () => {
    const signal = {
      type: MESSAGE_TYPES.signal,
      path: MANAGER[1],
      interface: MANAGER[2],
      member: 'JobNew',
    } as const
    for (const unit of ['dev-sda.device', 'cron.service']) {
      systemd.send({ ...signal, signature: 'uos', body: [7, '/org/freedesktop/systemd1/job/7', unit] })
    }
    await until(1)
    expect(told()).toMatchObject([
      { process: null, change: { 'service.name': 'cron.service', 'cordon.operation': 'started' } },
    ])
  })

  test('the second half of a restart is told as one', async () => {
    const signal = {
      type: MESSAGE_TYPES.signal,
      path: MANAGER[1],
      interface: MANAGER[2],
      member: 'JobNew',
    } as const
    const job = '/org/freedesktop/systemd1/job/7'
    systemd.send({ ...signal, signature: 'uos', body: [7, job, 'restarted.service'] })
    await until(1)
    expect(told()).toMatchObject([{ change: { 'cordon.operation': 'restarted' } }])
  })

  test('a job that is over before it can be asked is told by the times of its unit', async () => {
    const signal = {
      type: MESSAGE_TYPES.signal,
      path: MANAGER[1],
      interface: MANAGER[2],
      member: 'JobNew',
    } as const
    for (const unit of ['started.service', 'stopped.service', 'restarted@1.service', 'untouched.service']) {
      systemd.send({ ...signal, signature: 'uos', body: [99, GONE_JOB_PATH, unit] })
    }
    await until(3)
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(
      told().map(
        ({ change }) => 'cordon.operation' in change && [change['service.name'], change['cordon.operation']],
      ),
    ).toEqual([
      ['started.service', 'started'],
      ['stopped.service', 'stopped'],
      ['restarted@1.service', 'restarted'],
    ])
  })

  test('somebody who only pretends to be systemd is not believed', async () => {
    const liar = await connectToBus({ socketPath: bus.socketPath, message: () => undefined })
    const signal = {
      type: MESSAGE_TYPES.signal,
      path: MANAGER[1],
      interface: MANAGER[2],
      member: 'JobNew',
    } as const
    liar.send({ ...signal, signature: 'uos', body: [7, '/org/freedesktop/systemd1/job/7', 'lie.service'] })
    await call('StartUnit', 'ss', 'true.service', 'fail')
    await until(1)
    expect(told().map(({ change }) => 'service.name' in change && change['service.name'])).toEqual([
      'true.service',
    ])
    liar.close()
  })

  test('calls that do not hold together, or are too long, are passed over', async () => {
    const caller = await connectToBus({ socketPath: bus.socketPath, message: () => undefined })
    const toManager = { destination: MANAGER[0], path: MANAGER[1], interface: MANAGER[2] }
    await caller.call({ ...toManager, member: 'StartUnit' })
    await caller.call({ ...toManager, member: 'StartUnit', signature: 'u', body: [7] })
    await caller.call({ ...toManager, member: 'EnableUnitFiles', signature: 's', body: ['x'] })
    await caller.call({ ...toManager, member: '__proto__', signature: 's', body: ['x'] })
    await caller.call({
      ...toManager,
      member: 'StopUnit',
      signature: 'ss',
      body: ['x'.repeat(2_000_000), ''],
    })
    await caller.call({ ...toManager, member: 'StopUnit', signature: 'ss', body: ['last.service', ''] })
    await until(2)
    expect(told().map(({ change }) => 'service.name' in change && change['service.name'])).toEqual([
      '7',
      'last.service',
    ])
    expect(sensor.refusedMessages()).toBeGreaterThan(0)
    caller.close()
  })

  test('a bus that restarts is watched again, and the gap is told', async () => {
    await bus.restart()
    systemd = await startFakeSystemd(bus.socketPath)
    await vi.waitFor(async () => {
      await call('StartUnit', 'ss', 'after.service', 'fail')
      expect(told().length).toBeGreaterThan(0)
    }, 20_000)
    expect(records[0]).toMatchObject({ kind: 'loss', source: 'systemd-bus', count: null })
  })

  test('the probe says yes here, and why not elsewhere', () => {
    expect(probeSystemdBus(bus.socketPath)).toMatchObject({ ok: true })
    expect(probeSystemdBus('/no/such/bus')).toEqual({
      ok: false,
      reason: 'there is no system bus at /no/such/bus',
    })
    expect(probeSystemdBus('/etc/passwd')).toEqual({ ok: false, reason: '/etc/passwd is no socket' })
  })
})

describe('a hostile bus', () => {
  const folder = mkdtempSync(join(tmpdir(), 'cordon-hostile-bus-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  test.each([
    ['says nothing', () => undefined, 'no logon'],
    ['refuses', (socket: Socket) => socket.write('REJECTED EXTERNAL\r\n'), 'refuses the logon'],
    ['never ends its line', (socket: Socket) => socket.write('x'.repeat(100_000)), 'refuses the logon'],
    ['hangs up', (socket: Socket) => socket.destroy(), 'closed'],
    [
      'sends no messages',
      (socket: Socket) => socket.write(`OK 1\r\n${'x'.repeat(1_000)}`),
      'no message of D-Bus',
    ],
    [
      'announces 4 GB',
      (socket: Socket) =>
        socket.write(Buffer.concat([Buffer.from('OK 1\r\nl\x04\x00\x01'), Buffer.alloc(12, 0xff)])),
      'longer than the bus allows',
    ],
  ])('that %s is given up with a reason', async (_, behave, reason) => {
    const socketPath = join(folder, 'socket')
    const sockets = new Set<Socket>()
    const server = createServer((socket) => {
      sockets.add(socket)
      socket.on('error', () => undefined)
      socket.once('data', () => behave(socket))
    })
    await new Promise<void>((resolve) => server.listen(socketPath, resolve))
    try {
      await expect(connectToBus({ socketPath, message: () => undefined, timeoutMs: 300 })).rejects.toThrow(
        reason,
      )
    } finally {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    }
  })
})

describe('one change of a unit that several sources tell', () => {
  const byCaller: ConfigurationRecord = {
    kind: 'configuration',
    timestampMs: 1,
    process: { pid: 500, startTicks: null },
    change: {
      'event.action': 'service-state-changed',
      'service.name': 'a.service',
      'cordon.operation': 'enabled',
    },
  }
  const byLink: ConfigurationRecord = {
    ...byCaller,
    process: { pid: 1, startTicks: null },
    change: {
      'event.action': 'service-state-changed',
      'service.name': 'a.service',
      'cordon.operation': 'enabled',
      'file.path': '/etc/systemd/system/x.wants/a.service',
    },
  }
  function start(windowMs = 50) {
    const told: SensorRecord[] = []
    const merge = createServiceStateMerge({ sink: (batch) => told.push(...batch), clock: Date.now, windowMs })
    return { told, ...merge }
  }

  test('is told once, by the caller, and with the path of the link', () => {
    const { told, observe, close } = start()
    observe(byLink)
    expect(told).toEqual([])
    observe(byCaller)
    observe({ ...byCaller, process: null })
    observe(byLink)
    expect(told).toEqual([{ ...byCaller, change: byLink.change }])
    close()
    expect(told).toHaveLength(1)
  })

  test('is told of each of two callers', () => {
    const { told, observe, close } = start()
    observe(byCaller)
    observe({ ...byCaller, process: { pid: 501, startTicks: null } })
    observe({ ...byLink, process: { pid: 500, startTicks: null } })
    close()
    expect(told.map((record) => record.kind === 'configuration' && record.process?.pid)).toEqual([500, 501])
  })

  test('is told by systemd itself when no caller comes, and again when it happens again', async () => {
    const { told, observe, close } = start()
    observe(byLink)
    await vi.waitFor(() => expect(told).toEqual([byLink]), 5_000)
    observe(byCaller)
    expect(told).toHaveLength(2)
    close()
  })

  test('does not keep others waiting, and a flood of them is bounded', () => {
    const { told, observe, close } = start(60_000)
    const other: ConfigurationRecord = {
      ...byCaller,
      change: { 'event.action': 'group-created', 'group.name': 'x', 'file.path': '/etc/group' },
    }
    observe(other)
    expect(told).toEqual([other])
    for (let number = 0; number < 5_000; number++) {
      const change = { ...byLink.change, 'service.name': `${number}.service` }
      observe({ ...byLink, change } as ConfigurationRecord)
    }
    expect(told).toHaveLength(1 + 5_000 - 4_096)
    close()
    expect(told).toHaveLength(5_001)
  })
})
