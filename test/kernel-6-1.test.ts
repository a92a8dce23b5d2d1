/**
 * Another kernel than the machine's: Debian bookworm's own, 6.1, in qemu. Runs with `npm run test:long`, as root;
 * the kernel comes from Debian's mirror the first time. It shows what the program that sensors are tested with can do
 * there (32-bit calls, modules), that the kernel programs tell it, and in a second guest that the packed agent enrols
 * over the guest's network at a real controller, tells what it sees there, and delivers it.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { compileMakeActivity, compileTinyExit } from '../agent/native/testing/compile.ts'
import { EXPECTED_ACTIVITIES } from '../agent/sensors/ebpf/testing/expected-activities.ts'
import type { SensorRecord } from '../agent/sensors/records.ts'
import { ensurePrograms, packageVersion } from '../scripts/package/build.ts'
import { ensureSystemPrograms, GUESTS } from '../scripts/setup/system-packages.ts'
import { CLASS_ACTIVITY, CLASS_PROCESS } from '../shared/events/delivery-class.ts'
import { readStored } from './testing/databases.ts'
import { type GuestAgent, startGuestAgent } from './testing/guest-agent.ts'
import { ensureGuestKernel } from './testing/guest-kernel.ts'
import { GUEST_ADDON_PATH, type GuestProgram, prepareGuestProgram } from './testing/guest-node.ts'
import { bootGuest, type Guest } from './testing/qemu.ts'

const isLong = process.env['CORDON_TEST_LONG'] === '1'
const say = (line: string) => console.error(`cordon: ${line}`)
const reason = isLong ? whyNoGuest() : 'only in the long run'
if (isLong && reason !== null) say(`no guest is tested: ${reason}`)

function whyNoGuest(): string | null {
  const system = ensureSystemPrograms(GUESTS, say)
  if (system.kind === 'missing') return system.mend
  try {
    ensureGuestKernel(say)
    return null
  } catch (error) {
    return `no kernel: ${error instanceof Error ? error.message : String(error)}`
  }
}

const COUNT = 40
const BEHAVIOURS = [
  ...['exec', 'exec-proc-fd', 'exec-memfd', 'exec-deleted', 'memfd-create', 'setuid', 'setresuid', 'capset'],
  ...['ptrace-attach', 'ptrace-seize', 'ptrace-peek', 'ptrace-poke', 'vm-read', 'vm-write'],
  ...['mem-open-read', 'mem-open-write', 'map-writable-executable', 'protect-executable', 'map-library'],
  ...['tcp-connect', 'tcp-accept', 'tcp-exchange', 'udp-flow', 'listen', 'raw-socket'],
  ...['bpf-program', 'bpf-attach', 'unshare', 'setns', 'mount', 'umount'],
]

describe.skipIf(reason !== null)('Linux 6.1 in a guest', { timeout: 120_000 }, () => {
  let work: string
  let guest: Guest
  let sensor: GuestProgram

  beforeAll(async () => {
    work = mkdtempSync(join(tmpdir(), 'cordon-guest-test-'))
    const dummy = ensureGuestKernel(say).modulePath('dummy')
    sensor = await prepareGuestProgram(join(import.meta.dirname, 'testing', 'guest-sensor.ts'), work)
    guest = await bootGuest({
      files: {
        ...sensor.files,
        '/bin/sh': '/bin/sh',
        '/bin/cat': '/bin/cat',
        '/bin/mkdir': '/bin/mkdir',
        '/bin/sleep': '/bin/sleep',
        '/usr/bin/cordon-agent': join(ensurePrograms(say), 'cordon-agent'),
        '/usr/bin/make-activity': compileMakeActivity(work),
        '/usr/bin/tiny-exit': compileTinyExit(work),
        '/lib/modules/dummy.ko': dummy,
      },
      texts: { '/etc/told': 'told\n' },
    })
    say(`the guest took commands after ${(guest.bootMs / 1_000).toFixed(1)} s`)
  }, 400_000)
  afterAll(async () => {
    await guest?.[Symbol.asyncDispose]()
    rmSync(work, { recursive: true, force: true })
  })

  const make = async (behaviour: string, ...options: readonly string[]) => {
    const ran = await guest.run(['make-activity', behaviour, String(COUNT), '--folder', '/tmp', ...options])
    return { status: ran.status, report: JSON.parse(ran.stdout || `{"error":${JSON.stringify(ran.stderr)}}`) }
  }
  const optionsOf = (behaviour: string) =>
    behaviour.startsWith('exec') || behaviour === 'map-library'
      ? ['--program', '/usr/bin/tiny-exit']
      : behaviour === 'udp-flow'
        ? ['--port', '9999']
        : []

  test('it is another kernel, with what the kernel sensors need', async () => {
    expect(await guest.must(['cat', '/proc/sys/kernel/osrelease'])).toBe(`${guest.kernel.release}\n`)
    expect(guest.kernel.release).toMatch(/^6\.1\./)
    await guest.must(['sh', '-c', '[ -s /sys/kernel/btf/vmlinux ]'])
    expect(await guest.must(['cat', '/etc/told'])).toBe('told\n')
  })

  test('commands tell their outputs and how they ended', async () => {
    const both = await guest.run(['sh', '-c', 'echo one; echo two >&2; exit 9'])
    expect(both).toEqual({ status: 9, stdout: 'one\n', stderr: 'two\n' })
    expect(await guest.run(['no-such-program'])).toMatchObject({ status: 127 })
    expect(await guest.run(['sh', '-c', 'kill -9 $$'])).toMatchObject({ status: 137 })
    expect(
      (await guest.must(['sh', '-c', 'i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done']))
        .length,
    ).toBe(220_000)
    expect(await guest.run(['sh', '-c', 'sleep 100 & echo left'])).toMatchObject({
      status: 0,
      stdout: 'left\n',
    })
    await expect(guest.run(['x'.repeat(70_000)])).rejects.toThrow('65536 bytes')
  })

  test('the packed agent starts', async () => {
    expect(await guest.must(['cordon-agent', '--version'])).toBe(`${packageVersion()}\n`)
    expect(await guest.must(['cordon-agent', '--help'])).toMatch(/^Usage:/)
  })

  test.each(['', '--compat'])(
    'the kernel programs load there, and see every program that runs %s',
    async (variant) => {
      const activity = [
        'make-activity',
        'exec',
        String(COUNT),
        '--program',
        '/usr/bin/tiny-exit',
        '--folder',
        '/tmp',
      ]
      const observed = await guest.must([
        ...[...sensor.command, 'exec,exit', GUEST_ADDON_PATH],
        ...[...activity, ...(variant === '' ? [] : [variant])],
      ])
      const [probe, ...records] = observed
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line))
      expect(probe).toEqual({ ok: true })
      const execs = (records as SensorRecord[]).filter((record) => record.kind === 'exec')
      const sequences = execs.flatMap(({ arguments: words }) => (words[0] === 'tiny-exit' ? [words[1]] : []))
      expect(sequences).toEqual(Array.from({ length: COUNT }, (_, index) => `--sequence=${index}`))
      const exits = (records as SensorRecord[]).filter((record) => record.kind === 'exit')
      expect(exits.filter(({ exitCode }) => exitCode === 3)).toHaveLength(COUNT)
    },
  )

  /** Attributes of users' own are not kept in memory (tmpfs) before Linux 6.6. */
  const NOT_THERE = ['file-setxattr']
  const expected = EXPECTED_ACTIVITIES.filter(
    ({ behaviour, words }) => words !== '--io-uring' && !NOT_THERE.includes(behaviour),
  )
  test.each(expected)(
    'the kernel programs tell there of $behaviour $words as often as it is done',
    async (one) => {
      const places = { folder: '/tmp', program: '/usr/bin/tiny-exit' }
      if (one.behaviour.startsWith('file-'))
        await make('file-create', ...one.variant.filter((word) => word !== '--compat'))
      const observed = await guest.must([
        ...[...sensor.command, `${one.kind},loss`, GUEST_ADDON_PATH],
        ...['make-activity', one.behaviour, String(COUNT), ...one.arguments(places)],
      ])
      const [probe, ...lines] = observed.trim().split('\n')
      expect(JSON.parse(probe ?? '')).toEqual({ ok: true })
      const records = lines.map((line) => JSON.parse(line) as SensorRecord)
      expect(records.filter(one.matches)).toHaveLength(COUNT)
      expect(records.filter(({ kind }) => kind === 'loss')).toEqual([])
    },
  )

  test.each(BEHAVIOURS)('%s works', async (behaviour) => {
    const { status, report } = await make(behaviour, ...optionsOf(behaviour))
    expect(report).toMatchObject({ made: COUNT, failed: 0 })
    expect(status).toBe(0)
  })

  test.each(BEHAVIOURS)('%s works by 32-bit calls', async (behaviour) => {
    const { status, report } = await make(behaviour, '--compat', ...optionsOf(behaviour))
    expect(report).toMatchObject({ made: COUNT, failed: 0 })
    expect(status).toBe(0)
  })

  test.each(['tcp-connect', 'tcp-accept', 'tcp-exchange', 'udp-flow', 'listen', 'raw-socket'])(
    '%s works by socketcall(2), and by io_uring',
    async (behaviour) => {
      for (const variant of ['--socketcall', '--io-uring']) {
        // Linux 6.1 has no operations that listen.
        if (behaviour === 'listen' && variant === '--io-uring') continue
        const { status, report } = await make(behaviour, variant, ...optionsOf(behaviour))
        expect(report).toMatchObject({ made: COUNT, failed: 0 })
        expect(status).toBe(0)
      }
    },
  )

  test.each(['', '--compat', '--io-uring'])('files are made, changed and deleted %s', async (variant) => {
    const folder = `/tmp/files${variant}`
    await guest.must(['mkdir', folder])
    const order = ['create', 'write', 'rename', 'create', 'link', 'symlink', 'chmod', 'chown', 'delete']
    for (const behaviour of order) {
      const fits = variant !== '' && !(variant === '--io-uring' && behaviour.startsWith('ch'))
      const { report } = await make(`file-${behaviour}`, '--folder', folder, ...(fits ? [variant] : []))
      expect(report).toMatchObject({ made: COUNT, failed: 0 })
    }
    const count = `cd ${folder}; for name in renamed linked symlinked; do set -- $name-*; echo $#; done; set -- *; echo $#`
    expect(await guest.must(['sh', '-c', count])).toBe(`${COUNT}\n${COUNT}\n${COUNT}\n${3 * COUNT}\n`)
  })

  test.each(['', '--compat'])('a module is loaded and unloaded %s', async (variant) => {
    const at = ['--path', '/lib/modules/dummy.ko', '--name', 'dummy']
    const { status, report } = await make('module-cycle', ...at, ...(variant === '' ? [] : [variant]))
    expect(report).toMatchObject({ made: COUNT, failed: 0 })
    expect(status).toBe(0)
    expect(await guest.must(['cat', '/proc/modules'])).toBe('')
  })

  test.each(['', '--compat'])('modules that are none are refused as such %s', async (variant) => {
    const options = variant === '' ? [] : [variant]
    const errors = { 'finit-module': 'ENOEXEC', 'init-module': 'ENOEXEC', 'delete-module': 'ENOENT' }
    for (const [behaviour, error] of Object.entries(errors)) {
      const { status, report } = await make(behaviour, ...options)
      expect(report).toMatchObject({ made: COUNT, failed: COUNT, error })
      expect(status).toBe(0)
    }
  })

  test('names are asked for over both transports, by 32-bit calls too', async () => {
    for (const options of [
      [],
      ['--compat'],
      ['--socketcall', '--tcp'],
      ['--compat', '--split'],
      ['--tcp', '--compat'],
    ]) {
      const words = options.join(' ')
      const told = await guest.must([
        ...['sh', '-c'],
        `make-activity dns-serve ${COUNT} > /dev/null & sleep 1; exec make-activity dns-query ${COUNT} ${words}`,
      ])
      expect(JSON.parse(told)).toMatchObject({ made: COUNT, failed: 0 })
    }
  })
})

/** The rows of telemetry by the source that tells them there; all are seen, as on newer kernels. */
const ROWS: Readonly<Record<string, readonly string[]>> = {
  ebpf: ['Process creation', 'Process termination'],
  'ebpf-system-calls': [
    ...['Script content', 'Socket listen', 'Driver load', 'Image load', 'eBPF event', 'Raw device read'],
    ...['Process access', 'Process tampering', 'Memory-backed file'],
  ],
  'ebpf-packets': ['Network connection', 'DNS query'],
  'pam-probes': ['User logon', 'User logoff', 'Logon failed'],
  fanotify: [
    ...['File creation', 'File modification', 'File deletion', 'Scheduled task'],
    ...['User account created', 'User account modified', 'User account deleted'],
    ...['Service created', 'Service modified', 'Service deleted'],
  ],
  agent: ['Agent start', 'Agent stop'],
  scanner: ['MD5', 'SHA-256', 'Fuzzy hash', 'Entropy', 'Header bytes', 'Size'],
}
/** Each look is a program that starts, which takes seconds where every instruction is translated. */
const SLOWLY = { timeout: 150_000, interval: 1_000 }

describe.skipIf(reason !== null)('the packed agent on Linux 6.1 in a guest', { timeout: 200_000 }, () => {
  let work: string
  let host: GuestAgent
  beforeAll(async () => {
    work = mkdtempSync(join(tmpdir(), 'cordon-guest-agent-test-'))
    host = await startGuestAgent(work, say)
  }, 550_000)
  afterAll(async () => {
    await host?.[Symbol.asyncDispose]()
    rmSync(work, { recursive: true, force: true })
  })

  const agent = (...words: readonly string[]) => host.guest.must(['cordon-agent', ...words])
  const bodies = async (eventClass: number, text: string, action: string) => {
    const { rows } = await host.readBuffer(eventClass, text)
    return rows.map(({ body }) => JSON.parse(body)).filter((event) => event['event.action'] === action)
  }

  test('it is enrolled and connected, with the kernel programs in force', async () => {
    const status = await vi.waitFor(async () => {
      const said = await agent('status')
      expect(said).toMatch(/^connection +connected to wss:/m)
      expect(said).toMatch(/^scanner +ready, yara-x;/m)
      return said
    }, SLOWLY)
    expect(await host.guest.must(['cat', '/proc/sys/kernel/osrelease'])).toMatch(/^6\.1\./)
    expect(status).toContain(`agent          ${host.agentId} (pid `)
    expect(status).toMatch(/^ebpf +IN FORCE: processes and what they do.*lost 0$/m)
    expect(status).toMatch(/^fanotify +IN FORCE: whole file systems.*lost 0$/m)
    for (const layer of ['audit', 'ebpf-core', 'proc-connector', 'polling'])
      expect(status).toMatch(new RegExp(`^${layer} +not in force: stands by for ebpf;`, 'm'))
  })

  test('it tells the same rows of telemetry as newer kernels, each with its source', async () => {
    const said = await agent('status', '--telemetry')
    const [, ...lines] = said.split('\n\n')[0]?.split('\n') ?? []
    const told = lines.map((line) => line.split(/ {2,}/).slice(0, 3).join('; '))
    const expected = Object.entries(ROWS).flatMap(([source, names]) =>
      names.map((name) => `${name}; yes; ${source}`),
    )
    expect(told.toSorted()).toEqual(expected.toSorted())
    expect(said.trimEnd()).toMatch(/\n34 of 34 rows are seen, 0 partly, 0 not$/)
  })

  test('a program that ran while it was cut off is in its buffer, and reaches the controller unchanged', async () => {
    await host.stopController()
    const ran = await host.guest.run(['sh', '-c', 'tiny-exit --sequence=63 & echo $! $$; wait'])
    const [pid, parent] = ran.stdout.trim().split(' ').map(Number)
    const { streamId, rows } = await vi.waitFor(async () => {
      const { streamId, rows } = await host.readBuffer(CLASS_PROCESS, '"tiny-exit --sequence=63"')
      expect(rows).not.toEqual([])
      return { streamId, rows }
    }, SLOWLY)
    const [row] = rows
    expect(rows).toHaveLength(1)
    const event = JSON.parse(row?.body ?? '')
    expect(event).toMatchObject({
      'event.action': 'exec',
      'process.pid': pid,
      'process.executable': '/usr/bin/tiny-exit',
      'process.command_line': 'tiny-exit --sequence=63',
      'process.parent.pid': parent,
      'process.parent.executable': '/bin/sh',
      'user.id': '0',
    })
    const exits = await bodies(CLASS_PROCESS, event['process.entity_id'], 'exit')
    expect(exits).toEqual([expect.objectContaining({ 'process.pid': pid, 'process.exit_code': 3 })])
    const stored = () => readStored(host.controllerFolder, host.agentId, streamId)
    const isIt = (one: { readonly class: number; readonly sequence: number }) =>
      one.class === CLASS_PROCESS && one.sequence === row?.sequence
    expect(stored().filter(isIt)).toEqual([])
    await host.startController()
    await vi.waitFor(() => expect(stored().filter(isIt)).toMatchObject([{ body: row?.body }]), SLOWLY)
    expect(await agent('verify')).toContain(`is whole: `)
  })

  test.each([
    ['file-create', CLASS_ACTIVITY, 'file-created', ['--folder', '/root']],
    ['memfd-create', CLASS_PROCESS, 'memory-file-created', []],
    ['listen', CLASS_ACTIVITY, 'socket-listen', []],
  ] as const)('%s is told by it with the process', async (behaviour, eventClass, action, words) => {
    const command = ['make-activity', behaviour, '3', ...words]
    const { pid } = JSON.parse(await host.guest.must(command))
    await vi.waitFor(async () => {
      const told = await bodies(eventClass, `"${command.join(' ')}"`, action)
      expect(told.map((event) => [event['process.pid'], event['process.executable']])).toEqual(
        Array.from({ length: 3 }, () => [pid, '/usr/bin/make-activity']),
      )
    }, SLOWLY)
  })

  test.each([
    ['audit', '21 of 34 rows are seen, 10 partly, 3 not'],
    ['ebpf-core', '20 of 34 rows are seen, 5 partly, 9 not'],
  ])('where %s is the best that it may take, it claims no more than that sees', async (layer, summary) => {
    await host.restartAgent({ CORDON_AGENT_SENSORS: layer })
    await vi.waitFor(async () => expect(await agent('status', '--telemetry')).toContain(summary), SLOWLY)
    expect(await agent('status')).toMatch(new RegExp(`^${layer} +IN FORCE: .*lost 0$`, 'm'))
    const command = `tiny-exit --sequence=${layer}-0`
    const pid = Number(await host.guest.must(['sh', '-c', `${command} & echo $!; wait`]))
    await vi.waitFor(async () => {
      expect(await bodies(CLASS_PROCESS, `"${command}"`, 'exec')).toEqual([
        expect.objectContaining({ 'process.pid': pid, 'process.executable': '/usr/bin/tiny-exit' }),
      ])
    }, SLOWLY)
  })
})
