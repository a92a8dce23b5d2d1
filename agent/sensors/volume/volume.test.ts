import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { TelemetryRule } from '../../../shared/protocol/telemetry-lists.ts'
import type { FileRecord, SensorRecord, SuppressedRecord } from '../records.ts'
import { actionOf, isMeasured } from './record-actions.ts'
import { compileTelemetryLists, type TelemetryMatcher } from './telemetry-matcher.ts'
import { createVolume, type VolumeOptions } from './volume.ts'

function file(overrides: Partial<FileRecord> = {}): FileRecord {
  return {
    kind: 'file',
    timestampMs: 1_000,
    pid: 7,
    action: 'modification',
    path: '/tmp/a',
    previousPath: null,
    contentComplete: true,
    ...overrides,
  }
}

const key = (pid: number) => ({ pid, startTicks: 100 })
const sysctl = (pid: number | null): SensorRecord => ({
  kind: 'sysctl',
  timestampMs: 1_000,
  process: pid === null ? null : key(pid),
  path: '/proc/sys/kernel/x',
})
const exec = (pid: number, executable = '/bin/x', parentPid = 1, userId = 0): SensorRecord => ({
  kind: 'exec',
  timestampMs: 1_000,
  process: key(pid),
  parent: key(parentPid),
  userId,
  groupId: 0,
  sessionId: 0,
  executable,
  arguments: [],
  argumentsTruncated: false,
  workingDirectory: '/',
  file: null,
})
const connect = (pid: number, destinationAddress = '192.0.2.1', destinationPort = 443): SensorRecord => ({
  kind: 'connect',
  timestampMs: 1_000,
  process: key(pid),
  outcome: 'success',
  sourceAddress: '',
  sourcePort: 0,
  destinationAddress,
  destinationPort,
})

function createWorld(options: Partial<VolumeOptions> = {}) {
  const out: SensorRecord[] = []
  let nowMs = 0
  const volume = createVolume({ sink: (batch) => out.push(...batch), clock: () => nowMs, ...options })
  return {
    volume,
    out,
    pass(durationMs: number) {
      nowMs += durationMs
      volume.tick()
    },
    files: () => out.filter((record): record is FileRecord => record.kind === 'file'),
    suppressed: () => out.filter((record): record is SuppressedRecord => record.kind === 'suppressed'),
  }
}

function matcherOf(rules: readonly TelemetryRule[]): TelemetryMatcher {
  const compiled = compileTelemetryLists({ rules: [...rules] })
  if (!compiled.ok) throw new Error(compiled.problems.join())
  return compiled.matcher
}

describe('repeats', () => {
  test('the same again within two seconds is told once, and then once more with how many came between', () => {
    const { volume, files, pass, out } = createWorld()
    for (let index = 0; index < 10; index++) volume.accept([file({ timestampMs: 1_000 + index })])
    expect(files()).toEqual([file()])
    pass(1_999)
    expect(files().length).toBe(1)
    pass(1)
    expect(files()[1]).toEqual(file({ timestampMs: 1_009, repeated: 8 }))
    pass(60_000)
    expect(out.length).toBe(2)
    volume.accept([file()])
    expect(out.length).toBe(3)
  })

  test('what goes on is told every two seconds', () => {
    const { volume, files, pass } = createWorld()
    for (let index = 0; index < 100; index++) {
      volume.accept([file()])
      pass(100)
    }
    volume.finish()
    expect(files().length).toBeLessThan(9)
    expect(files().length + files().reduce((sum, { repeated = 0 }) => sum + repeated, 0)).toBe(100)
  })

  test('that the content is complete survives, whichever of the repeats said so', () => {
    const { volume, files } = createWorld()
    const incomplete = file({ action: 'creation', contentComplete: false })
    volume.accept([incomplete, { ...incomplete, contentComplete: true }, incomplete])
    volume.finish()
    expect(files()).toEqual([incomplete, { ...incomplete, contentComplete: true, repeated: 1 }])
  })

  test('a write that is held is told before the deletion or the rename that follows it', () => {
    const { volume, files } = createWorld()
    volume.accept([file(), file(), file({ action: 'deletion', contentComplete: false })])
    volume.accept([file({ path: '/b' }), file({ path: '/b' }), file({ path: '/b', action: 'rename' })])
    expect(files().map(({ action }) => action)).toEqual([
      ...['modification', 'modification', 'deletion'],
      ...['modification', 'modification', 'rename'],
    ])
  })

  test('a lock that comes and goes is told once, and at the end in the right order', () => {
    const { volume, files, pass } = createWorld()
    for (let index = 0; index < 50; index++) {
      volume.accept([file({ action: 'creation' }), file({ action: 'deletion', contentComplete: false })])
    }
    pass(2_000)
    expect(files().map(({ action, repeated }) => [action, repeated])).toEqual([
      ['creation', undefined],
      ['deletion', undefined],
      ['creation', 48],
      ['deletion', 48],
    ])
  })

  test('other processes, other paths, renames and links are told one by one', () => {
    const { volume, out } = createWorld()
    const link = file({ action: 'creation', names: { type: 'symlink', links: 1, target: 'x' } })
    const bytes = file({ path: new Uint8Array([0x2f, 0xff]) })
    const records = [file(), file({ pid: 8 }), file({ pid: null }), file({ path: '/tmp/b' }), bytes]
    volume.accept([...records, file({ action: 'rename' }), file({ action: 'rename' }), link, link])
    expect(out.length).toBe(9)
    volume.accept([bytes])
    expect(out.length).toBe(9)
  })

  test('what is held of a process is told when it ends, before its end, and does not pass to the next of its pid', () => {
    const { volume, out } = createWorld()
    const exit = { kind: 'exit', timestampMs: 1, process: key(7), exitCode: 0, signal: null } as const
    volume.accept([file(), file(), exit, file()])
    expect(out.map(({ kind }) => kind)).toEqual(['file', 'file', 'exit', 'file'])
  })

  test('a table without room tells what it gives up', () => {
    const { volume, files } = createWorld({ pathsMax: 1 })
    volume.accept([file(), file(), file(), file({ path: '/b' }), file({ path: '/c' })])
    expect(files().map(({ path, repeated }) => [path, repeated])).toEqual([
      ['/tmp/a', undefined],
      ['/b', undefined],
      ['/tmp/a', 1],
      ['/c', undefined],
    ])
  })

  test('many paths that repeat are told twice each, in a table that has the room', () => {
    const { volume, files, pass } = createWorld({ pathsMax: 65_536 })
    const paths = Array.from({ length: 2_000 }, (_, index) => `/srv/data/${index}`)
    for (let round = 0; round < 5; round++) volume.accept(paths.map((path) => file({ path })))
    pass(2_000)
    const repeated = files().reduce((sum, record) => sum + (record.repeated ?? 0), 0)
    expect(files().length + repeated).toBe(10_000)
    expect(files().length).toBeLessThan(4_500)
  })
})

describe('budgets', () => {
  const budgets = {
    file: { perSecond: 10, burst: 20 },
    network: { perSecond: 10, burst: 20 },
    activity: { perSecond: 10, burst: 20 },
  }
  const flood = (count: number, from = 0, pid = 7) =>
    Array.from({ length: count }, (_, index) => file({ pid, path: `/tmp/${from + index}` }))

  test('what a process tells over its budget is counted, told once a second and at the end with its name', () => {
    const { volume, files, suppressed, pass } = createWorld({ budgets })
    // 20 of the budget, 16 as the first of their kind and 16 as the first of their folder.
    volume.accept(flood(100))
    expect(files().length).toBe(52)
    expect(suppressed()).toEqual([])
    pass(1_000)
    expect(suppressed()).toMatchObject([
      {
        process: { pid: 7, startTicks: null },
        counts: { 'file-modified': 48 },
        reason: expect.stringContaining('file 10/s'),
      },
    ])
    volume.accept(flood(100, 1_000))
    volume.finish()
    expect(suppressed()[1]).toMatchObject({ counts: { 'file-modified': 90 } })
    pass(10_000)
    expect(suppressed().length).toBe(2)
    expect(volume.isWaiting()).toBe(false)
  })

  test('a budget fills up again, and one process does not use up what is another one’s', () => {
    const { volume, files, pass } = createWorld({ budgets })
    volume.accept(flood(200))
    const before = files().length
    pass(1_000)
    volume.accept(flood(200, 1_000))
    expect(files().length).toBe(before + 10)
    volume.accept(flood(20, 0, 8))
    expect(files().length).toBe(before + 30)
  })

  test('in a flood, the first of another kind and the first in another folder are told', () => {
    const { volume, out } = createWorld({ budgets })
    volume.accept(flood(1_000))
    const before = out.length
    volume.accept([file({ path: '/etc/cron.d/job' }), sysctl(7), connect(7)])
    expect(out.length).toBe(before + 3)
    for (let index = 0; index < 200; index++) volume.accept([sysctl(7)])
    out.length = 0
    volume.accept([
      {
        kind: 'bpf',
        timestampMs: 1,
        process: key(7),
        operation: 'program-load',
        result: 0,
        programName: null,
        programType: null,
      } as SensorRecord,
    ])
    expect(out.length).toBe(1)
  })

  test('starts and ends of processes, logons, tampering and losses pass in any number', () => {
    const { volume, out } = createWorld({ budgets })
    const records = Array.from({ length: 1_000 }, (_, index): SensorRecord[] => [
      { kind: 'fork', timestampMs: 1, process: key(100 + index), parent: key(7) },
      exec(7),
      { kind: 'exit', timestampMs: 1, process: key(100 + index), exitCode: 0, signal: null },
      { kind: 'tamper', timestampMs: 1, process: key(7), reason: 'x' },
      {
        kind: 'logon',
        timestampMs: 1,
        process: key(7),
        action: 'logon-failed',
        account: 'root',
        source: 'pam',
        service: null,
        terminal: null,
        remote: null,
      },
      { kind: 'loss', timestampMs: 1, source: 'ebpf:exec', count: 1 },
    ]).flat()
    volume.accept(records)
    expect(out).toEqual(records)
  })

  test('files that are not told are handed to be examined, and a held write is told on credit', () => {
    const examined: FileRecord[] = []
    const { volume, files } = createWorld({ budgets, examine: (record) => examined.push(record) })
    volume.accept([file({ path: '/x/first' }), ...flood(100), file({ path: '/x/first' })])
    const told = files().length
    expect(examined.length).toBe(101 - told)
    volume.finish()
    expect(files().length).toBe(told + 1)
    expect(files().at(-1)?.path).toBe('/x/first')
  })

  test('more processes than there is room for lose no count', () => {
    const { volume, out, suppressed, files } = createWorld({ budgets, processesMax: 16 })
    for (let pid = 1; pid <= 500; pid++) volume.accept(flood(60, 0, pid))
    volume.finish()
    const counted = suppressed().reduce((sum, { counts }) => sum + (counts['file-modified'] ?? 0), 0)
    expect(files().length + counted).toBe(30_000)
    expect(out.length).toBe(files().length + suppressed().length)
  })
})

describe('lists', () => {
  test('what a rule drops is counted and told once a minute with the name of the rule', () => {
    const { volume, out, pass, suppressed } = createWorld()
    volume.setLists(matcherOf([{ name: 'scratch', verdict: 'drop', pathPrefix: '/scratch' }]))
    volume.accept([file({ path: '/scratch/a', timestampMs: 5 }), file({ path: '/scratch', timestampMs: 9 })])
    volume.accept([file({ path: '/scratchy' })])
    expect(out.length).toBe(1)
    pass(59_999)
    expect(suppressed()).toEqual([])
    pass(1)
    expect(suppressed()).toEqual([
      {
        kind: 'suppressed',
        timestampMs: 9,
        process: null,
        counts: { 'file-modified': 2 },
        startedMs: 5,
        endedMs: 9,
        reason: 'the telemetry rule "scratch" drops them',
      },
    ])
  })

  test('rules ask for the program, its parent and its user, also of one that started in the same batch', () => {
    const { volume, files } = createWorld()
    volume.setLists(
      matcherOf([
        { name: 'backup', verdict: 'drop', executable: '/bin/tar', parentExecutable: '/bin/cron', userId: 5 },
      ]),
    )
    volume.accept([
      exec(1, '/bin/cron'),
      exec(20, '/bin/tar', 1, 5),
      file({ pid: 20 }),
      exec(21, '/bin/tar', 1, 6),
      file({ pid: 21 }),
      exec(22, '/bin/tar', 30, 5),
      file({ pid: 22 }),
      exec(20, '/bin/other', 1, 5),
      file({ pid: 20 }),
      file({ pid: null }),
    ])
    expect(files().map(({ pid }) => pid)).toEqual([21, 22, 20, null])
  })

  test('the first rule that holds decides; `always` is told past every cap and repeat', () => {
    const budgets = {
      file: { perSecond: 1, burst: 1 },
      network: { perSecond: 1, burst: 1 },
      activity: { perSecond: 1, burst: 1 },
    }
    const { volume, files } = createWorld({ budgets })
    volume.setLists(
      matcherOf([
        { name: 'keys', verdict: 'always', pathPrefix: '/etc/ssh' },
        { name: 'hosts', verdict: 'keep', pathPrefix: '/etc/hosts' },
        { name: 'rest', verdict: 'drop', pathPrefix: '/etc' },
      ]),
    )
    for (let index = 0; index < 100; index++) volume.accept([file({ path: '/etc/ssh/key' })])
    volume.accept([file({ path: '/etc/hosts' }), file({ path: '/etc/passwd' })])
    expect(files().length).toBe(101)
    expect(files().at(-1)?.path).toBe('/etc/hosts')
  })

  test('destinations are compared as addresses, and a rule for one action leaves the others alone', () => {
    const { volume, out } = createWorld()
    volume.setLists(
      matcherOf([
        {
          name: 'monitor',
          verdict: 'drop',
          actions: ['connection'],
          destinationAddress: '2001:DB8:0::1',
          destinationPort: 9_100,
        },
      ]),
    )
    volume.accept([
      connect(7, '2001:db8::1', 9_100),
      connect(7, '2001:db8::1', 9_101),
      connect(7, '2001:db8::2', 9_100),
      {
        ...connect(7, '2001:db8::1', 9_100),
        kind: 'datagram',
        transport: 'udp',
        direction: 'egress',
      } as SensorRecord,
    ])
    expect(out.length).toBe(3)
  })

  test('lists that are taken back hold no more, and what they dropped is told', () => {
    const { volume, files, suppressed } = createWorld()
    volume.setLists(matcherOf([{ name: 'all', verdict: 'drop', userId: 0, pathPrefix: '/tmp' }]))
    volume.accept([exec(7), file()])
    volume.setLists(null)
    volume.accept([file()])
    expect([files().length, suppressed().length]).toEqual([1, 1])
  })
})

test('run ticks while something waits, sleeps when nothing does and tells the rest at the end', async () => {
  const out: SensorRecord[] = []
  const volume = createVolume({
    sink: (batch) => out.push(...batch),
    clock: () => performance.now(),
    windowMs: 50,
  })
  const stop = new AbortController()
  const ended = volume.run(stop.signal)
  volume.accept([file(), file()])
  while (out.length < 2 || volume.isWaiting()) await new Promise((resolve) => setTimeout(resolve, 10))
  expect(out.length).toBe(2)
  volume.accept([file({ path: '/b' }), file({ path: '/b' })])
  stop.abort()
  await ended
  expect(out.length).toBe(4)
  const aborted = createVolume({ sink: () => undefined, clock: () => 0 })
  await aborted.run(AbortSignal.abort())
  expect(aborted.isWaiting()).toBe(false)
})

describe('exactness', () => {
  const pid = fc.constantFrom(null, 1, 2, 3, 4)
  const arbitraryFile = fc.record({
    pid,
    action: fc.constantFrom('creation', 'modification', 'deletion', 'rename' as const),
    path: fc.constantFrom('/a', '/b/c', '/b/d', '/scratch/x', new Uint8Array([0x2f, 0xff])),
    contentComplete: fc.boolean(),
    names: fc.constantFrom(undefined, null, { type: 'symlink', links: 1, target: 'x' } as const),
  })
  const arbitraryRecord: fc.Arbitrary<SensorRecord> = fc.oneof(
    { weight: 8, arbitrary: arbitraryFile.map((parts) => file(parts as Partial<FileRecord>)) },
    { weight: 1, arbitrary: pid.map(sysctl) },
    { weight: 1, arbitrary: pid.map((each) => connect(each ?? 9)) },
    { weight: 1, arbitrary: pid.map((each) => exec(each ?? 9)) },
    {
      weight: 1,
      arbitrary: pid.map(
        (each): SensorRecord => ({
          kind: 'exit',
          timestampMs: 1,
          process: key(each ?? 9),
          exitCode: 0,
          signal: null,
        }),
      ),
    },
  )
  // Clocks stand still, jump ahead and are set back.
  const arbitraryStep = fc.record({
    records: fc.array(arbitraryRecord, { maxLength: 40 }),
    stepMs: fc.constantFrom(0, 1, 100, 1_000, 2_000, 60_000, -5_000, Number.NaN),
    ticks: fc.boolean(),
  })
  const lists = fc.constantFrom<readonly TelemetryRule[]>(
    [],
    [{ name: 'scratch', verdict: 'drop', pathPrefix: '/scratch' }],
    [{ name: 'always', verdict: 'always', pathPrefix: '/b' }],
    [{ name: 'user', verdict: 'drop', userId: 0, actions: ['file-modified', 'connection'] }],
  )

  test('made is told, repeated and suppressed together, for each action, whatever comes and whatever the clock', () => {
    fc.assert(
      fc.property(
        fc.array(arbitraryStep, { maxLength: 30 }),
        lists,
        fc.constantFrom(1, 2, 100),
        (steps, rules, sizeMax) => {
          const made: Record<string, number> = {}
          const found: Record<string, number> = {}
          const add = (counts: Record<string, number>, action: string, count: number) => {
            counts[action] = (counts[action] ?? 0) + count
          }
          let nowMs = 0
          const volume = createVolume({
            clock: () => nowMs,
            pathsMax: sizeMax,
            processesMax: sizeMax,
            budgets: {
              file: { perSecond: 5, burst: 5 },
              network: { perSecond: 1, burst: 1 },
              activity: { perSecond: 1, burst: 1 },
            },
            sink(batch) {
              for (const record of batch) {
                if (isMeasured(record)) {
                  const repeated = record.kind === 'file' ? (record.repeated ?? 0) : 0
                  add(found, actionOf(record), 1 + repeated)
                } else if (record.kind === 'suppressed') {
                  for (const [action, count] of Object.entries(record.counts)) add(found, action, count)
                } else {
                  add(found, record.kind, 1)
                }
              }
            },
          })
          volume.setLists(matcherOf(rules))
          for (const { records, stepMs, ticks } of steps) {
            for (const record of records) add(made, isMeasured(record) ? actionOf(record) : record.kind, 1)
            volume.accept(records)
            nowMs += stepMs
            if (ticks) volume.tick()
          }
          volume.finish()
          expect(found).toEqual(made)
          expect(volume.isWaiting()).toBe(false)
        },
      ),
      { numRuns: 1_000 },
    )
  })
})
