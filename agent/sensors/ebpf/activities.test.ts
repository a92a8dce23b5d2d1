/** What programs do by direct system calls, N times, is told N times with the process that did it. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { compileMakeActivity, compileTinyExit, loadBuiltAddon } from '../../native/testing/compile.ts'
import { COMPAT_MISSING_STATUS, runActivity, startDnsServer } from '../../native/testing/run-activity.ts'
import { findUnifiedCgroup, readHostNamespaces } from '../../platform/linux/host.ts'
import { parseDnsMessage } from '../dns-message.ts'
import type { SensorRecord } from '../records.ts'
import { createEbpfSensor } from './ebpf-sensor.ts'

const COUNT = 40
const isRoot = process.geteuid?.() === 0

type Of<Kind extends SensorRecord['kind']> = Extract<SensorRecord, { kind: Kind }>

describe.skipIf(!isRoot)('the kernel programs', () => {
  const work = mkdtempSync(join(tmpdir(), 'cordon-activities-'))
  const folder = join(work, 'files')
  const stop = new AbortController()
  const records: SensorRecord[] = []
  let ended: Promise<void>
  let program: string
  let tiny: string
  let features: unknown

  beforeAll(async () => {
    program = compileMakeActivity(work)
    tiny = compileTinyExit(work)
    const cgroupPath = findUnifiedCgroup()
    const sensor = createEbpfSensor({
      native: loadBuiltAddon(),
      hostNamespaces: readHostNamespaces(),
      ...(cgroupPath === null ? {} : { cgroupPath }),
    })
    await new Promise<void>((resolve) => {
      ended = sensor.run((batch) => records.push(...batch), stop.signal, resolve)
    })
    features = sensor.features()
  })
  beforeEach(() => {
    rmSync(folder, { recursive: true, force: true })
    mkdirSync(folder)
    records.length = 0
  })
  afterAll(async () => {
    stop.abort()
    await ended
    rmSync(work, { recursive: true, force: true })
  })

  /** Records of the kind that the program or a child of its own made, once they are there. */
  async function told<Kind extends SensorRecord['kind']>(
    kind: Kind,
    pids: ReadonlySet<number>,
    count: number,
    matches: (record: Of<Kind>) => boolean = () => true,
  ): Promise<Of<Kind>[]> {
    const found = () =>
      records.filter(
        (record): record is Of<Kind> =>
          record.kind === kind &&
          'process' in record &&
          record.process !== null &&
          pids.has(record.process.pid) &&
          matches(record as Of<Kind>),
      )
    await expect.poll(() => found().length, { timeout: 5_000 }).toBeGreaterThanOrEqual(count)
    // What came twice would come now.
    await new Promise((resolve) => setTimeout(resolve, 150))
    return found()
  }

  async function make(behaviour: string, ...options: readonly string[]) {
    const { report, status } = await runActivity([program, behaviour, String(COUNT), ...options])
    return { report, status, pids: new Set([report.pid, ...(report.children ?? [])]) }
  }

  test('all of them are in force here', () => {
    expect(features).toEqual({ systemCalls: 0, packets: 0, signals: 0 })
  })

  const ways = (...list: readonly string[][]) => [[], ...list]
  const COMPAT = ['--compat']
  const THREADS = ['--threads', '3']
  interface Case {
    readonly behaviour: string
    readonly kind: SensorRecord['kind']
    readonly options?: readonly string[]
    readonly variants: readonly (readonly string[])[]
    readonly matches?: (record: never) => boolean
  }
  const operation =
    (...names: readonly string[]) =>
    (record: { operation: string }) =>
      names.includes(record.operation)

  const cases: readonly Case[] = [
    {
      behaviour: 'exec',
      kind: 'exec',
      variants: ways(THREADS, COMPAT),
      matches: (record: Of<'exec'>) => record.arguments.some((one) => String(one).startsWith('--sequence=')),
    },
    {
      behaviour: 'exec-memfd',
      kind: 'exec',
      variants: ways(),
      matches: (record: Of<'exec'>) => record.circumstances?.fileless === 'memory-file',
    },
    {
      behaviour: 'exec-deleted',
      kind: 'exec',
      variants: ways(),
      matches: (record: Of<'exec'>) => record.circumstances?.fileless === 'deleted-file',
    },
    {
      behaviour: 'exec-proc-fd',
      kind: 'exec',
      variants: ways(),
      matches: (record: Of<'exec'>) => record.circumstances?.fileless === 'descriptor',
    },
    {
      behaviour: 'fork-exit',
      kind: 'exit',
      options: ['--code', '7'],
      variants: ways(THREADS),
      matches: (record: Of<'exit'>) => record.exitCode === 7,
    },
    {
      behaviour: 'fork-signal',
      kind: 'exit',
      options: ['--signal', '9'],
      variants: ways(),
      matches: (record: Of<'exit'>) => record.signal === 9,
    },
    {
      behaviour: 'memfd-create',
      kind: 'memory-file',
      variants: ways(COMPAT, THREADS),
      matches: (record: Of<'memory-file'>) => /^activity-\d+$/.test(String(record.name)),
    },
    {
      behaviour: 'map-writable-executable',
      kind: 'memory-executable',
      variants: ways(COMPAT),
      matches: (record: Of<'memory-executable'>) => record.writable && record.operation === 'mmap',
    },
    {
      behaviour: 'protect-executable',
      kind: 'memory-executable',
      variants: ways(COMPAT),
      matches: (record: Of<'memory-executable'>) => !record.writable && record.operation === 'mprotect',
    },
    {
      behaviour: 'map-library',
      kind: 'library',
      variants: ways(COMPAT),
      matches: (record: Of<'library'>) => /\/library-\d+$/.test(String(record.path)),
    },
    {
      behaviour: 'ptrace-attach',
      kind: 'process-access',
      variants: ways(THREADS),
      matches: operation('ptrace-attach'),
    },
    {
      behaviour: 'ptrace-seize',
      kind: 'process-access',
      variants: ways(),
      matches: operation('ptrace-seize'),
    },
    { behaviour: 'ptrace-peek', kind: 'process-access', variants: ways(), matches: operation('ptrace-read') },
    {
      behaviour: 'ptrace-poke',
      kind: 'process-access',
      variants: ways(),
      matches: operation('ptrace-write'),
    },
    {
      behaviour: 'vm-read',
      kind: 'process-access',
      variants: ways(COMPAT),
      matches: operation('process_vm_readv'),
    },
    {
      behaviour: 'vm-write',
      kind: 'process-access',
      variants: ways(COMPAT),
      matches: operation('process_vm_writev'),
    },
    {
      behaviour: 'mem-open-read',
      kind: 'process-access',
      variants: ways(['--relative'], COMPAT),
      matches: operation('mem-read'),
    },
    {
      behaviour: 'mem-open-write',
      kind: 'process-access',
      variants: ways(['--relative'], COMPAT),
      matches: operation('mem-write'),
    },
    {
      behaviour: 'finit-module',
      kind: 'module',
      variants: ways(COMPAT),
      matches: (record: Of<'module'>) => record.operation === 'load' && record.result < 0,
    },
    {
      behaviour: 'init-module',
      kind: 'module',
      variants: ways(),
      matches: (record: Of<'module'>) => record.operation === 'load' && record.result < 0,
    },
    {
      behaviour: 'delete-module',
      kind: 'module',
      variants: ways(COMPAT),
      matches: (record: Of<'module'>) => record.operation === 'unload' && record.name !== null,
    },
    {
      behaviour: 'bpf-program',
      kind: 'bpf',
      variants: ways(),
      matches: (record: Of<'bpf'>) => record.operation === 'program-load' && record.programType === 1,
    },
    { behaviour: 'bpf-attach', kind: 'bpf', variants: ways(), matches: operation('raw-tracepoint') },
    { behaviour: 'unshare', kind: 'namespace', variants: ways(COMPAT), matches: operation('unshare') },
    { behaviour: 'setns', kind: 'namespace', variants: ways(COMPAT), matches: operation('setns') },
    {
      behaviour: 'mount',
      kind: 'mount',
      options: ['--folder', folder],
      variants: ways(COMPAT),
      matches: (record: Of<'mount'>) => record.operation === 'mount' && record.type === 'tmpfs',
    },
    {
      behaviour: 'umount',
      kind: 'mount',
      options: ['--folder', folder],
      variants: ways(COMPAT),
      matches: (record: Of<'mount'>) => record.operation === 'unmount' && record.result === 0,
    },
    { behaviour: 'setuid', kind: 'credentials', variants: ways(COMPAT), matches: operation('setuid') },
    {
      behaviour: 'setresuid',
      kind: 'credentials',
      variants: ways(COMPAT),
      matches: (record: Of<'credentials'>) =>
        record.operation === 'setresuid' && record.requested.length === 3,
    },
    { behaviour: 'capset', kind: 'credentials', variants: ways(), matches: operation('capset') },
    {
      behaviour: 'raw-socket',
      kind: 'raw-socket',
      variants: ways(COMPAT),
      matches: (record: Of<'raw-socket'>) => record.family === 'ipv4',
    },
    {
      behaviour: 'packet-socket',
      kind: 'raw-socket',
      variants: ways(COMPAT),
      matches: (record: Of<'raw-socket'>) => record.family === 'packet',
    },
    { behaviour: 'listen', kind: 'listen', variants: ways(COMPAT, ['--address', '::1']) },
    { behaviour: 'tcp-connect', kind: 'connect', variants: ways(COMPAT, ['--io-uring'], ['--swap']) },
    { behaviour: 'tcp-accept', kind: 'accept', variants: ways(COMPAT, ['--address', '::1']) },
    {
      behaviour: 'udp-flow',
      kind: 'datagram',
      options: ['--port', '40111'],
      variants: ways(COMPAT, ['--io-uring'], ['--address', '::1']),
      matches: (record: Of<'datagram'>) => record.direction === 'egress',
    },
    {
      behaviour: 'file-chmod',
      kind: 'file-attributes',
      options: ['--folder', folder],
      variants: ways(['--deep'], ['--strange'], COMPAT),
      matches: operation('mode'),
    },
    {
      behaviour: 'file-chown',
      kind: 'file-attributes',
      options: ['--folder', folder],
      variants: ways(['--deep'], COMPAT),
      matches: operation('owner'),
    },
    {
      behaviour: 'file-setxattr',
      kind: 'file-attributes',
      options: ['--folder', folder],
      variants: ways(),
      matches: operation('set-attribute'),
    },
  ]
  const each = cases.flatMap((one) =>
    one.variants.map((variant) => ({ ...one, variant, words: variant.join(' ') })),
  )

  test.each(each)('tell of $behaviour $words as often as it is done', async (one) => {
    if (one.words === '--compat') {
      const tried = spawnSync(program, ['memfd-create', '1', '--compat'])
      if (tried.status === COMPAT_MISSING_STATUS) {
        // A machine without 32-bit calls: they are told on the kernel that is booted for it.
        expect(tried.stderr.toString()).toContain('no 32-bit system calls')
        return
      }
    }
    if (one.behaviour.startsWith('file-')) {
      const plain = one.variant.filter((word) => word !== '--compat')
      await make('file-create', '--folder', folder, ...plain)
      records.length = 0
    }
    const options = [...(one.options ?? []), ...one.variant]
    const needsFolder = /^(?:exec|map-library|mem-open|finit)/.test(one.behaviour)
    const needsProgram = /^(?:exec|map-library)/.test(one.behaviour)
    const { report, pids } = await make(
      one.behaviour,
      ...(needsProgram ? ['--program', tiny] : []),
      ...(needsFolder ? ['--folder', folder] : []),
      ...options,
    )
    expect(report.made).toBe(COUNT)
    const seen = await told(one.kind, pids, COUNT, one.matches as never)
    expect(seen).toHaveLength(COUNT)
    expect(records.filter(({ kind }) => kind === 'loss')).toEqual([])
  })

  test('a connection ends with the bytes that went each way, at both of its ends', async () => {
    const { report, pids } = await make('tcp-exchange', '--bytes', '5000')
    expect(report.failed).toBe(0)
    const closed = await told('close', pids, 2 * COUNT)
    expect(closed).toHaveLength(2 * COUNT)
    for (const record of closed) {
      expect(record.sourceBytes + record.destinationBytes).toBeGreaterThanOrEqual(5_000)
      expect(record.durationNs).toBeGreaterThan(0)
    }
    expect(closed.filter(({ direction }) => direction === 'egress')).toHaveLength(COUNT)
  })

  test('names asked for over UDP and TCP, in one piece or in several, are told with who asks', async () => {
    const here = ['--address', '127.0.0.54', '--port', '53']
    const manners = [[], ['--tcp'], ['--split'], ['--tcp', '--split'], ['--io-uring', '--split']]
    const server = await startDnsServer([program, 'dns-serve', String(manners.length * COUNT), ...here])
    for (const manner of manners) {
      records.length = 0
      const { pids } = await make('dns-query', ...here, '--name', 'asked', ...manner)
      const messages = (await told('dns', pids, 2 * COUNT)).flatMap(
        ({ message }) => parseDnsMessage(message) ?? [],
      )
      const names = new Set(Array.from({ length: COUNT }, (_, index) => `asked-${index}`))
      const questions = messages.filter(({ isAnswer }) => !isAnswer)
      expect(new Set(questions.map(({ question }) => question.name.replace(/\..*$/, '')))).toEqual(names)
      expect(questions).toHaveLength(COUNT)
      const answers = messages.filter(({ isAnswer }) => isAnswer)
      expect(answers).toHaveLength(COUNT)
      expect(answers.every((one) => one.answers[0]?.address === '192.0.2.53')).toBe(true)
    }
    await server.served
  })

  test('a block device is told by its number, whatever its node is called', async () => {
    const device = join(folder, 'harmless')
    expect(spawnSync('mknod', [device, 'b', '7', '0']).status).toBe(0)
    const { pids } = await make('open-device', '--path', device)
    const seen = await told('device', pids, COUNT)
    expect(seen).toHaveLength(COUNT)
    expect(seen[0]).toMatchObject({ number: '7:0', writable: false, path: device })
  })

  test('a setting of the kernel that is written is told by its path', async () => {
    const path = '/proc/sys/net/ipv4/ip_default_ttl'
    const { report } = await runActivity([
      ...['unshare', '--net', '--', program, 'sysctl-write', String(COUNT), '--path', path],
    ])
    const seen = await told('sysctl', new Set([report.pid]), COUNT)
    expect(seen).toHaveLength(COUNT)
    expect(seen[0]).toMatchObject({ path })
  })

  test('a path of 200 folders and names that are no text keep their bytes', async () => {
    await make('file-create', '--folder', folder, '--deep', '--strange')
    const { pids } = await make('file-chmod', '--folder', folder, '--deep', '--strange')
    const [first] = await told('file-attributes', pids, COUNT, operation('mode') as never)
    const path = Buffer.from(first?.path as Uint8Array).toString('latin1')
    expect(path.startsWith(folder)).toBe(true)
    expect(path.slice(folder.length).split('/').length).toBeGreaterThan(200)
    expect(path).toContain('\n\x1b[31m\xff\xfe"\\')
  })
})
