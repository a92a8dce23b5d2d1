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
import { EXPECTED_ACTIVITIES } from './testing/expected-activities.ts'

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

  test.each(EXPECTED_ACTIVITIES)('tell of $behaviour $words as often as it is done', async (one) => {
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
    const { report, pids } = await make(one.behaviour, ...one.arguments({ folder, program: tiny }))
    expect(report.made).toBe(COUNT)
    const seen = await told(one.kind, pids, COUNT, one.matches)
    expect(seen).toHaveLength(COUNT)
    // Others on this machine may make more of their memory executable than is told of one process.
    const lost = records.filter((record) => record.kind === 'loss' && !record.source.includes('beyond'))
    expect(lost).toEqual([])
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
    const [first] = await told('file-attributes', pids, COUNT, ({ operation }) => operation === 'mode')
    const path = Buffer.from(first?.path as Uint8Array).toString('latin1')
    expect(path.startsWith(folder)).toBe(true)
    expect(path.slice(folder.length).split('/').length).toBeGreaterThan(200)
    expect(path).toContain('\n\x1b[31m\xff\xfe"\\')
  })
})
