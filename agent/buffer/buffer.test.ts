import { spawnSync } from 'node:child_process'
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { CHAIN_START, verifyChain } from '../../shared/node/chain.ts'
import { createSilentLogger } from '../../shared/node/logger.ts'
import { parseEvent } from '../../shared/protocol/parse.ts'
import { type BufferOptions, type EventBuffer, openBuffer } from './buffer.ts'
import { detectionEvent, execEvent, fileEvent, stoppedEvent } from './testing/sample-events.ts'
import { verifyBuffer } from './verify.ts'

const MEGABYTE = 1024 ** 2
let folder: string
let path: string
const opened: EventBuffer[] = []

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-buffer-'))
  path = join(folder, 'buffer.db')
})
afterEach(() => {
  for (const buffer of opened.splice(0)) buffer.close()
  rmSync(folder, { recursive: true, force: true })
})

function open(options: Partial<BufferOptions> = {}): EventBuffer {
  const buffer = openBuffer({
    path,
    bytesMax: 16 * MEGABYTE,
    reservedBytes: MEGABYTE,
    logger: createSilentLogger(),
    ...options,
  })
  opened.push(buffer)
  return buffer
}

function rowsOf(eventClass: number) {
  const db = new Database(path, { readonly: true })
  try {
    return db
      .prepare<[], { sequence: number; body: string }>(
        `SELECT sequence, body FROM class_${eventClass} ORDER BY sequence`,
      )
      .all()
  } finally {
    db.close()
  }
}

function bodiesOf(eventClass: number): Record<string, unknown>[] {
  return rowsOf(eventClass).map(({ body }) => JSON.parse(body) as Record<string, unknown>)
}

test('events of class 0 are on disk when add returns, detections take what waits along, others wait', () => {
  const buffer = open({ groupMs: 60_000 })
  buffer.add(execEvent(1))
  expect(rowsOf(2)).toEqual([])
  buffer.add(stoppedEvent(1))
  expect(rowsOf(0).map(({ sequence }) => sequence)).toEqual([1])
  expect(rowsOf(2).map(({ sequence }) => sequence)).toEqual([1])
})

test('a lone ordinary event reaches the disk within its group time, and listeners hear of it', async () => {
  const buffer = open({ groupMs: 20 })
  const heard = new Promise<void>((resolve) => buffer.onRows(resolve))
  buffer.add(fileEvent(1))
  await heard
  expect(rowsOf(3).length).toBe(1)
})

test('a storm of detections does not sync the disk for each, and is on disk within moments', async () => {
  const buffer = open()
  let commits = 0
  buffer.onRows(() => {
    commits += 1
  })
  for (let index = 0; index < 200; index += 1) buffer.add(detectionEvent(index))
  await expect.poll(() => rowsOf(1).length, { timeout: 20_000 }).toBe(200)
  expect(commits).toBeLessThan(20)
})

test('the same bytes are in the row, in the lease and in the chain', () => {
  const buffer = open()
  const events = [execEvent(1, 'ü \u{1F600} \ud800 \u0000 "quoted"'), execEvent(2), execEvent(3)]
  for (const event of events) buffer.add(event)
  buffer.flush()
  const lease = buffer.lease(2, 500, 256 * 1024)
  if (!lease) throw new Error('no lease')
  expect(lease.bodies.map(String)).toEqual(events.map((event) => JSON.stringify(event)))
  expect(rowsOf(2).map(({ body }) => body)).toEqual(events.map((event) => JSON.stringify(event)))
  expect(lease.previousHash).toBe(CHAIN_START.toString('hex'))
  expect(verifyChain(lease, lease.bodies)).toBe(true)
  expect(lease).toMatchObject({ firstSequence: 1, lastSequence: 3, full: false, streamId: buffer.streamId })
})

test('leases are contiguous, bounded in rows and bytes, and never hand out a row twice', () => {
  const buffer = open()
  for (let index = 0; index < 25; index += 1) buffer.add(execEvent(index, 'x'.repeat(1_000)))
  buffer.flush()
  expect(buffer.waiting(2)).toBe(25)
  const first = buffer.lease(2, 10, 256 * 1024)
  expect(first).toMatchObject({ firstSequence: 1, lastSequence: 10, full: true })
  const second = buffer.lease(2, 500, 5_000)
  expect(second).toMatchObject({ firstSequence: 11, full: true })
  expect(second?.bodies.length).toBe(3)
  const third = buffer.lease(2, 500, 256 * 1024)
  expect(third).toMatchObject({ firstSequence: 14, lastSequence: 25, full: false })
  expect(third?.previousHash).toBe(second?.lastHash)
  expect(buffer.lease(2, 500, 256 * 1024)).toBeNull()
  expect(buffer.waiting(2)).toBe(0)
})

test('a rollback leases again what was not acknowledged, and nothing before it', () => {
  const buffer = open()
  for (let index = 0; index < 20; index += 1) buffer.add(execEvent(index))
  buffer.flush()
  buffer.lease(2, 10, 256 * 1024)
  buffer.lease(2, 10, 256 * 1024)
  buffer.acknowledge(2, 10)
  buffer.rollback()
  expect(buffer.lease(2, 500, 256 * 1024)).toMatchObject({ firstSequence: 11, lastSequence: 20 })
})

test('sequences, chain and acknowledgements go on over restarts, and an orderly end leaves no gap', () => {
  const first = open()
  for (let index = 0; index < 5; index += 1) first.add(execEvent(index))
  first.flush()
  first.lease(2, 3, 256 * 1024)
  first.acknowledge(2, 3)
  const { streamId } = first
  first.close()
  const second = open()
  expect(second.streamId).toBe(streamId)
  second.add(execEvent(5))
  second.flush()
  expect(second.watermarks()[2]).toEqual({ class: 2, first: 4, last: 6, acknowledged: 3 })
  expect(second.lease(2, 500, 256 * 1024)).toMatchObject({ firstSequence: 4, lastSequence: 6 })
  expect(rowsOf(0)).toEqual([])
  expect(verifyBuffer(path)).toMatchObject({ kind: 'whole', rows: 6, absentRows: 0 })
})

test('the controller behind the buffer gets everything again, ahead of it is told and changes nothing', () => {
  const buffer = open()
  for (let index = 0; index < 10; index += 1) buffer.add(execEvent(index))
  buffer.flush()
  buffer.lease(2, 10, 256 * 1024)
  buffer.acknowledge(2, 10)
  expect(buffer.resume([{ class: 2, sequence: 4 }])).toEqual({ kind: 'resumed' })
  expect(buffer.lease(2, 500, 256 * 1024)).toMatchObject({ firstSequence: 5, lastSequence: 10 })
  expect(buffer.resume([{ class: 2, sequence: 11 }])).toEqual({
    kind: 'ahead',
    class: 2,
    sequence: 11,
    last: 10,
  })
  expect(buffer.watermarks()[2]?.acknowledged).toBe(4)
  expect(buffer.resume([])).toEqual({ kind: 'resumed' })
  expect(buffer.lease(2, 500, 256 * 1024)?.firstSequence).toBe(1)
})

test('a new stream tells why, keeps the old file, and counts what was not delivered', () => {
  const buffer = open()
  for (let index = 0; index < 4; index += 1) buffer.add(execEvent(index))
  buffer.flush()
  buffer.lease(2, 1, 256 * 1024)
  buffer.acknowledge(2, 1)
  const before = buffer.streamId
  buffer.startNewStream('the controller has events that this buffer never had')
  buffer.lease(0, 500, 256 * 1024)
  expect(buffer.streamId).not.toBe(before)
  expect(bodiesOf(0)).toEqual([
    expect.objectContaining({
      'event.action': 'tamper',
      'event.reason': expect.stringContaining('never had'),
    }),
    expect.objectContaining({ 'event.action': 'gap', 'cordon.gap.class': 2, 'cordon.gap.count': 3 }),
  ])
  const aside = readdirSync(folder).find((name) => /aside-[0-9TZ]+$/.test(name)) ?? ''
  expect(verifyBuffer(join(folder, aside))).toMatchObject({ kind: 'whole', rows: 4 })
  buffer.add(execEvent(9))
  buffer.flush()
  expect(buffer.lease(2, 500, 256 * 1024)).toMatchObject({ firstSequence: 1, lastSequence: 1 })
})

test('refused rows are kept aside, told by a gap, and the chain holds around them', () => {
  const buffer = open()
  for (let index = 0; index < 9; index += 1) buffer.add(execEvent(index))
  buffer.flush()
  buffer.lease(2, 3, 256 * 1024)
  buffer.acknowledge(2, 3)
  const lease = buffer.lease(2, 3, 256 * 1024)
  buffer.setAside(2, 4, 6, 'refused three times: invalidEvent')
  expect(bodiesOf(0)).toEqual([
    expect.objectContaining({
      'cordon.gap.class': 2,
      'cordon.gap.from': 4,
      'cordon.gap.to': 6,
      'cordon.gap.count': 3,
      'event.reason': 'refused three times: invalidEvent',
    }),
  ])
  const next = buffer.lease(2, 500, 256 * 1024)
  expect(next).toMatchObject({ firstSequence: 7, lastSequence: 9, previousHash: lease?.lastHash })
  expect(verifyBuffer(path)).toMatchObject({ kind: 'whole', absentRows: 3 })
  const db = new Database(path, { readonly: true })
  expect(db.prepare('SELECT class, sequence FROM refused').all().length).toBe(3)
  db.close()
})

test.each([
  ['bytes that are no database', () => writeFileSync(path, 'not a database at all'.repeat(1_000))],
  ['an overwritten page', () => overwrite(path, 4_096 * 2, 4_096)],
  ['a cut file', () => writeFileSync(path, Buffer.alloc(5_000, 'SQLite format 3\0'))],
])('a buffer damaged by %s is set aside, never deleted, and a new stream tells it', (_name, damage) => {
  const first = open()
  for (let index = 0; index < 2_000; index += 1) first.add(execEvent(index))
  first.close()
  damage()
  const damaged = statSync(path).size
  const second = open()
  expect(second.streamId).not.toBe(first.streamId)
  expect(second.stats().trouble).toBeNull()
  second.lease(0, 500, 256 * 1024)
  const aside = readdirSync(folder).find((name) => /aside-[0-9TZ]+$/.test(name)) ?? ''
  expect(statSync(join(folder, aside)).size).toBe(damaged)
  expect(bodiesOf(0)[0]).toMatchObject({ 'event.action': 'tamper' })
  expect(bodiesOf(0).slice(1)).toEqual(
    [0, 1, 2, 3].map((eventClass) =>
      expect.objectContaining({ 'cordon.gap.class': eventClass, 'cordon.gap.count': null }),
    ),
  )
})

test('a file that is taken away while the agent runs is replaced and told', async () => {
  const buffer = open()
  buffer.add(stoppedEvent(1))
  rmSync(path)
  await expect
    .poll(() => statSync(path, { throwIfNoEntry: false })?.size ?? 0, { timeout: 20_000 })
    .toBeGreaterThan(0)
  await expect
    .poll(() => bodiesOf(0).map((body) => body['event.action']), { timeout: 20_000 })
    .toEqual(['tamper'])
  buffer.lease(0, 500, 256 * 1024)
  expect(bodiesOf(0).map((body) => body['event.action'])).toEqual(['tamper', 'gap'])
})

test('a newer program’s buffer is refused and left as it is', () => {
  open().close()
  const db = new Database(path)
  db.pragma('user_version = 99')
  db.close()
  expect(() => open()).toThrow(/newer Cordon/)
  expect(readdirSync(folder).filter((name) => name.includes('aside'))).toEqual([])
})

test('an event too large for the protocol is cut, says so, and is still a valid event', () => {
  const buffer = open()
  const event = {
    ...execEvent(1, 'ß'.repeat(16_384)),
    'process.executable': `/${'é'.repeat(4_000)}`,
    'cordon.bytes': {
      'process.executable': 'QUJD'.repeat(6_000),
      'process.command_line': 'QUJD'.repeat(6_000),
    },
  }
  buffer.add(event)
  buffer.flush()
  const [row] = rowsOf(2)
  expect(Buffer.byteLength(row?.body ?? '')).toBeLessThanOrEqual(64 * 1024)
  const parsed = parseEvent(row?.body ?? '')
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.error))
  expect(parsed.value).toMatchObject({
    'process.pid': 1_001,
    'cordon.truncated': expect.arrayContaining([expect.stringMatching(/^process\./)]),
  })
})

test('an event that no cutting helps is counted as lost', () => {
  const buffer = open()
  const huge = Array.from({ length: 4_000 }, (_, index) => `T${index}.${'0'.repeat(20)}`)
  buffer.add({ ...detectionEvent(1), 'threat.technique.id': huge })
  buffer.flush()
  expect(rowsOf(1)).toEqual([])
  buffer.lease(0, 500, 256 * 1024)
  expect(bodiesOf(0)).toEqual([expect.objectContaining({ 'cordon.gap.class': 1, 'cordon.gap.count': 1 })])
  expect(buffer.stats().droppedRows).toBe(1)
})

test('a responder reads events with plain sqlite3 while the agent runs', () => {
  const buffer = open()
  buffer.add(execEvent(1, "/bin/sh -c 'id'"))
  buffer.add(fileEvent(2))
  buffer.add(detectionEvent(3))
  buffer.flush()
  const sql = 'SELECT action, pid, command_line, file, rule FROM events ORDER BY time'
  const tool = spawnSync('sqlite3', ['-readonly', '-json', path, sql], { encoding: 'utf8' })
  const rows =
    tool.status === 0
      ? (JSON.parse(tool.stdout) as unknown)
      : new Database(path, { readonly: true }).prepare(sql).all()
  expect(rows).toEqual([
    { action: 'exec', pid: 1_001, command_line: "/bin/sh -c 'id'", file: null, rule: null },
    { action: 'file-created', pid: null, command_line: null, file: '/tmp/some/folder/file-2', rule: null },
    { action: 'detection', pid: null, command_line: null, file: null, rule: 'A rule' },
  ])
})

test('the chain finds a flipped bit that integrity_check passes, and rows that went missing', () => {
  const buffer = open()
  for (let index = 0; index < 50; index += 1) buffer.add(execEvent(index))
  buffer.close()
  expect(verifyBuffer(path)).toMatchObject({ kind: 'whole', rows: 50 })
  const db = new Database(path)
  db.exec("UPDATE class_2 SET body = replace(body, 'true 20', 'true 21') WHERE sequence = 21")
  expect(db.pragma('integrity_check', { simple: true })).toBe('ok')
  expect(verifyBuffer(path)).toMatchObject({ kind: 'broken', class: 2, sequence: 21 })
  db.exec("UPDATE class_2 SET body = replace(body, 'true 21', 'true 20') WHERE sequence = 21")
  expect(verifyBuffer(path)).toMatchObject({ kind: 'whole' })
  db.exec('DELETE FROM class_2 WHERE sequence = 30')
  expect(verifyBuffer(path)).toMatchObject({ kind: 'broken', sequence: 31 })
  db.exec('DELETE FROM class_2 WHERE sequence >= 30')
  expect(verifyBuffer(path)).toMatchObject({ kind: 'broken', sequence: 50 })
  db.close()
  expect(verifyBuffer(join(folder, 'none.db'))).toMatchObject({ kind: 'unreadable' })
})

function overwrite(file: string, offset: number, bytes: number): void {
  const fd = openSync(file, 'r+')
  writeSync(fd, Buffer.alloc(bytes, 0xa5), 0, bytes, offset)
  closeSync(fd)
}
