import { expect, test } from 'vitest'
import type { ProcessSnapshot } from '../platform/linux/proc.ts'
import { createEventBuilder } from './event-builder.ts'
import { createProcessTable } from './process-table.ts'
import type { ExecRecord, FileRecord, KernelText, SensorRecord } from './records.ts'

const AGENT_ID = 'a1b2c3d4'.padEnd(32, '0')
const BOOT_ID = '01234567-89ab-cdef-0123-456789abcdef'
const PREFIX = 'a1b2c3d4.01234567.'

function snapshot(pid: number, parentPid: number, sessionId = pid): ProcessSnapshot {
  return {
    process: { pid, startTicks: pid * 10 },
    parentPid,
    sessionId,
    userId: 0,
    groupId: 0,
    executable: `/sbin/p${pid}`,
    arguments: [`p${pid}`],
    argumentsTruncated: false,
    workingDirectory: '/',
    file: null,
    cgroup: '/',
  }
}

function exec(pid: number, parentPid: number, more: Partial<ExecRecord> = {}): ExecRecord {
  return {
    kind: 'exec',
    timestampMs: 1_000_000,
    process: { pid, startTicks: pid * 10 },
    parent: { pid: parentPid, startTicks: parentPid * 10 },
    userId: 1_000,
    groupId: 1_000,
    sessionId: parentPid,
    executable: '/bin/sh',
    arguments: ['sh', '-c', 'echo hello'],
    argumentsTruncated: false,
    workingDirectory: '/tmp',
    file: { device: 1, inode: 2, sizeBytes: 3, changedNs: 4n },
    ...more,
  }
}

function file(pid: number | null, path: KernelText, more: Partial<FileRecord> = {}): FileRecord {
  return {
    kind: 'file',
    timestampMs: 1_000_000,
    pid,
    action: 'creation',
    path,
    previousPath: null,
    contentComplete: true,
    ...more,
  }
}

function setUp(running: readonly ProcessSnapshot[] = [], ownPids: readonly number[] = []) {
  const world = new Map(running.map((entry) => [entry.process.pid, entry]))
  let nowMs = 1_000_000
  const table = createProcessTable({
    agentId: AGENT_ID,
    bootId: BOOT_ID,
    bootTimeMs: 0,
    clock: () => nowMs,
    readProcess: (pid) => world.get(pid) ?? null,
  })
  const builder = createEventBuilder({
    table,
    knownHash: (identity) => (identity.inode === 2 ? 'ab'.repeat(32) : undefined),
    userName: (id) => (id === 1_000 ? 'alice' : undefined),
    ownPids: new Set(ownPids),
    ownFolders: ['/var/lib/cordon-agent'],
    isOwnPlace: (path) => path.startsWith('/srv/.cordon-taking/'),
    clock: () => nowMs,
    readSetting: () => null,
  })
  return {
    table,
    builder,
    world,
    pass: (ms: number) => {
      nowMs += ms
    },
    events: (records: readonly SensorRecord[]) =>
      builder.build(records).map((observation) => observation.event),
  }
}

test('an exec carries its process, parent, user, session and the known hash of its executable', () => {
  const { events } = setUp([snapshot(1, 0), snapshot(50, 1)])
  const [init, parent, started] = events([exec(100, 50)])
  expect(init).toMatchObject({ 'event.action': 'process-info', 'process.entity_id': `${PREFIX}1.10` })
  expect(parent).toMatchObject({ 'event.action': 'process-info', 'process.entity_id': `${PREFIX}50.500` })
  expect(started).toMatchObject({
    'event.action': 'exec',
    'process.entity_id': `${PREFIX}100.1000`,
    'process.name': 'sh',
    'process.executable': '/bin/sh',
    'process.command_line': 'sh -c echo hello',
    'process.args_count': 3,
    'process.parent.entity_id': `${PREFIX}50.500`,
    'process.parent.executable': '/sbin/p50',
    'process.session_leader.entity_id': `${PREFIX}50.500`,
    'process.hash.sha256': 'ab'.repeat(32),
    'user.id': '1000',
    'user.name': 'alice',
  })
})

test('what refers to a process comes after the event that tells of it, and it is told once', () => {
  const { events } = setUp([snapshot(1, 0), snapshot(50, 1)])
  const told = events([
    {
      kind: 'fork',
      timestampMs: 1,
      process: { pid: 60, startTicks: 600 },
      parent: { pid: 50, startTicks: 500 },
    },
    file(60, '/tmp/a'),
    file(60, '/tmp/b'),
  ])
  expect(told.map((event) => event['event.action'])).toEqual([
    'process-info',
    'process-info',
    'process-info',
    'file-created',
    'file-created',
  ])
  expect(told.at(-1)).toMatchObject({
    'process.entity_id': `${PREFIX}60.600`,
    'process.executable': '/sbin/p50',
    'process.parent.entity_id': `${PREFIX}50.500`,
  })
})

test('a reused pid is another process', () => {
  const { events, table } = setUp()
  events([
    exec(100, 50),
    { kind: 'exit', timestampMs: 2, process: { pid: 100, startTicks: 1_000 }, exitCode: 0, signal: null },
  ])
  events([exec(100, 50, { process: { pid: 100, startTicks: 99_999 } })])
  expect(table.findExact({ pid: 100, startTicks: 1_000 })).toBeNull()
  expect(table.findExact({ pid: 100, startTicks: 99_999 })?.entityId).toBe(`${PREFIX}100.99999`)
  const late = events([
    { kind: 'exit', timestampMs: 3, process: { pid: 100, startTicks: 1_000 }, exitCode: 0, signal: null },
  ])
  expect(late).toEqual([])
})

test('a file event that comes after the exit still finds its process, until it is swept', () => {
  const { events, pass } = setUp()
  events([
    exec(100, 50),
    { kind: 'exit', timestampMs: 2, process: { pid: 100, startTicks: 1_000 }, exitCode: 3, signal: null },
  ])
  pass(2_000)
  expect(events([file(100, '/tmp/x')])[0]).toMatchObject({ 'process.entity_id': `${PREFIX}100.1000` })
  pass(20_000)
  events([])
  expect(events([file(100, '/tmp/x')])[0]).not.toHaveProperty('process.entity_id')
})

test('an exit tells code or signal', () => {
  const { events } = setUp()
  events([exec(100, 50), exec(101, 50)])
  expect(
    events([
      { kind: 'exit', timestampMs: 2, process: { pid: 100, startTicks: 1_000 }, exitCode: 7, signal: null },
      { kind: 'exit', timestampMs: 2, process: { pid: 101, startTicks: 1_010 }, exitCode: null, signal: 9 },
    ]),
  ).toMatchObject([{ 'process.exit_code': 7 }, { 'cordon.process.signal': 9 }])
})

test('bytes that are not UTF-8 survive beside the readable text', () => {
  const { events } = setUp()
  const raw = Uint8Array.from([0x2f, 0x74, 0x6d, 0x70, 0x2f, 0xff, 0x0a])
  const [event] = events([file(null, raw)])
  expect(event).toMatchObject({ 'file.path': '/tmp/\ufffd\n' })
  const kept = (event as { 'cordon.bytes'?: Record<string, string> })['cordon.bytes']?.['file.path'] ?? ''
  expect(Uint8Array.from(Buffer.from(kept, 'base64'))).toEqual(raw)
})

test('a command line past the bound is cut and says so', () => {
  const { events } = setUp()
  const [event] = events([exec(100, 50, { arguments: ['x', 'y'.repeat(100_000)] })])
  expect(event).toMatchObject({ 'cordon.truncated': ['process.command_line'], 'process.args_count': 2 })
  expect((event as { 'process.command_line': string })['process.command_line']).toHaveLength(16_384)
})

test('the agent leaves out its own processes and its own folders, and no folder that only looks alike', () => {
  const { events } = setUp([], [77])
  expect(events([exec(77, 50), file(77, '/tmp/own'), file(null, '/var/lib/cordon-agent/buffer.db')])).toEqual(
    [],
  )
  expect(events([file(null, '/var/lib/cordon-agent-evil/x')])).toHaveLength(1)
})

test('observations that the kernel lost become a gap with their count', () => {
  const { events } = setUp()
  expect(events([{ kind: 'loss', timestampMs: 1, source: 'ebpf exec', count: 12 }])).toMatchObject([
    { 'event.action': 'gap', 'cordon.gap.class': 2, 'cordon.gap.count': 12 },
  ])
})

test('the context of a process tells how many ancestors share its session', () => {
  const { builder, events } = setUp([snapshot(1, 0), snapshot(50, 1), snapshot(60, 50, 50)])
  events([exec(100, 60, { sessionId: 50 })])
  expect(builder.context(`${PREFIX}100.1000`)).toMatchObject({
    ancestors: [`${PREFIX}60.600`, `${PREFIX}50.500`, `${PREFIX}1.10`],
    sessionAncestors: 2,
    sessionLeaderEntityId: `${PREFIX}50.500`,
  })
  expect(builder.context('nonsense')).toMatchObject({ ancestors: [], sessionAncestors: 0 })
})

test('an endless chain of successors holds a bounded number of ancestors', () => {
  const { table, events } = setUp()
  for (let pid = 2; pid < 5_000; pid += 1) events([exec(pid, pid - 1)])
  let length = 0
  for (let entry = table.findExact({ pid: 4_999, startTicks: 49_990 })?.parent; entry; entry = entry.parent)
    length += 1
  expect(length).toBeGreaterThan(16)
  expect(length).toBeLessThanOrEqual(64)
})

test('what nobody did in a folder that the agent made for itself is left out, and what somebody did is told', () => {
  const { events } = setUp([snapshot(1, 0), snapshot(50, 1)])
  const file = {
    kind: 'file',
    timestampMs: 1,
    action: 'creation',
    path: '/srv/.cordon-taking/taken',
    previousPath: null,
    contentComplete: true,
  } as const
  expect(events([{ ...file, pid: null }])).toEqual([])
  expect(events([{ ...file, pid: 50 }]).at(-1)).toMatchObject({ 'event.action': 'file-created' })
})
