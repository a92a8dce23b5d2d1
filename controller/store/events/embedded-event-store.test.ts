import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, openSync, readdirSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createSilentLogger } from '../../../shared/node/logger.ts'
import { openSqlite } from '../../../shared/node/sqlite.ts'
import type { IncomingBatch, StoredEvent } from '../event-store.ts'
import { type EmbeddedEventStore, openEmbeddedEventStore } from './embedded-event-store.ts'
import { eventFilePath, isSealed, openEventFile } from './event-file.ts'
import { findChangedBatches } from './stored-chain.ts'
import { STREAMS_PER_AGENT_MAX } from './stream-table.ts'
import { createSampleStream, HOUR_MS, START_MS, sampleAgentId, sampleExec } from './testing/sample-stream.ts'

const agentId = sampleAgentId(1)
let folder: string
let store: EmbeddedEventStore

const open = () => openEmbeddedEventStore({ folder, logger: createSilentLogger() })
const reopen = async () => {
  await store.close()
  store = await open()
}
const sequences = (events: readonly StoredEvent[]) => events.map((event) => event.sequence)
const all = () => store.readAfter('', 10_000)

/** Breaks the pages in the middle of a closed file, where its rows are. */
function corrupt(hour: string): void {
  const fd = openSync(eventFilePath(folder, hour), 'r+')
  writeSync(fd, Buffer.alloc(200_000, 0xa5), 0, 200_000, 0)
}

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-events-'))
  store = await open()
})
afterEach(async () => {
  await store.close()
  rmSync(folder, { recursive: true, force: true })
})

test('a stored batch is read back in order, with who sent it and when it came', async () => {
  const stream = createSampleStream(agentId)
  expect(await store.append(stream.batch(1, 3))).toMatchObject({ kind: 'stored', sequence: 3, duplicates: 0 })
  const events = await all()
  expect(sequences(events)).toEqual([1, 2, 3])
  expect(events[1]).toEqual({
    cursor: '20260101T10-0000000000000002',
    agentId,
    streamId: agentId,
    class: 2,
    sequence: 2,
    receivedMs: START_MS,
    event: sampleExec(agentId, 2),
  })
  expect(sequences(await store.readAfter(events[1]?.cursor ?? '', 10))).toEqual([3])
  expect(await store.counts()).toEqual([{ class: 2, rows: 3 }])
})

test('a batch sent twice is stored once and answered twice', async () => {
  const batch = createSampleStream(agentId).batch(1, 5)
  const [first, second] = await Promise.all([store.append(batch), store.append(batch)])
  expect(first).toMatchObject({ kind: 'stored', sequence: 5, duplicates: 0 })
  expect(second).toMatchObject({ kind: 'stored', sequence: 5, duplicates: 5 })
  expect(sequences(await all())).toEqual([1, 2, 3, 4, 5])
})

test('of a batch that overlaps what is stored only the new rows are added', async () => {
  const stream = createSampleStream(agentId)
  await store.append(stream.batch(1, 5))
  expect(await store.append(stream.batch(3, 6))).toMatchObject({ kind: 'stored', sequence: 8, duplicates: 3 })
  expect(await store.append(stream.batch(2, 3))).toMatchObject({ kind: 'stored', sequence: 8, duplicates: 3 })
  expect(sequences(await all())).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
})

test('a batch after a hole is refused with the sequence that is expected', async () => {
  const stream = createSampleStream(agentId)
  expect(await store.append(stream.batch(2, 2))).toEqual({ kind: 'gap', expectedSequence: 1 })
  await store.append(stream.batch(1, 2))
  expect(await store.append(stream.batch(5, 2))).toEqual({ kind: 'gap', expectedSequence: 3 })
  expect(sequences(await all())).toEqual([1, 2])
})

test('rows the agent told as lost may be missing, and may not come later after all', async () => {
  const stream = createSampleStream(agentId)
  await store.append(stream.batch(1, 2))
  expect(await store.append(stream.batch(6, 2, START_MS, 5))).toEqual({ kind: 'gap', expectedSequence: 3 })
  expect(await store.append(stream.batch(5, 2, START_MS, 5))).toMatchObject({ kind: 'stored', skipped: 2 })
  expect(await store.append(stream.batch(7, 2, START_MS, 5))).toMatchObject({ kind: 'stored', skipped: 0 })
  expect(await store.append(stream.batch(3, 2))).toEqual({ kind: 'hashMismatch', expectedSequence: 9 })
  expect(sequences(await all())).toEqual([1, 2, 5, 6, 7, 8])
})

test('another content under a stored sequence is a mismatch, wherever it stands', async () => {
  const stream = createSampleStream(agentId)
  await store.append(stream.batch(1, 10))
  await store.append(stream.batch(11, 10))
  const forger = createSampleStream(agentId)
  forger.add({ ...sampleExec(agentId, 1), '@timestamp': '2026-01-01T00:00:00.000Z' })
  const mismatch = { kind: 'hashMismatch', expectedSequence: 21 }
  expect(await store.append(forger.batch(1, 20))).toEqual(mismatch)
  expect(await store.append(forger.batch(3, 4))).toEqual(mismatch)
  expect(await store.append(forger.batch(15, 20))).toEqual(mismatch)
  expect(await store.append(forger.batch(21, 5))).toEqual(mismatch)
  expect(await store.append(stream.batch(3, 4))).toMatchObject({ kind: 'stored', duplicates: 4 })
})

test('a stream starts from the empty chain', async () => {
  const batch = createSampleStream(agentId).batch(1, 2)
  const other: IncomingBatch = { ...batch, previousHash: 'ab'.repeat(32) }
  expect(await store.append(other)).toEqual({ kind: 'hashMismatch', expectedSequence: 1 })
})

test('watermarks are per agent, stream and class, and last over a restart', async () => {
  const other = sampleAgentId(2)
  await store.append(createSampleStream(agentId, agentId, 0).batch(1, 2))
  await store.append(createSampleStream(agentId, agentId, 3).batch(1, 4))
  await store.append(createSampleStream(other).batch(1, 1))
  await store.append(createSampleStream(agentId, other).batch(1, 7))
  await reopen()
  const watermarks = await store.watermarks(agentId, agentId)
  expect(watermarks.map(({ class: eventClass, sequence }) => [eventClass, sequence])).toEqual([
    [0, 2],
    [3, 4],
  ])
  expect(await store.watermarks(sampleAgentId(3), agentId)).toEqual([])
  expect(await store.streams(agentId)).toEqual([agentId, other])
})

test('files follow the hour of arrival, and streams go on over them', async () => {
  const stream = createSampleStream(agentId)
  const cursors: string[] = []
  for (const hour of [0, 1, 3]) {
    const first = cursors.length * 10 + 1
    const result = await store.append(stream.batch(first, 10, START_MS + hour * HOUR_MS))
    if (result.kind === 'stored') cursors.push(result.cursor)
  }
  expect(cursors).toEqual([
    '20260101T10-0000000000000010',
    '20260101T11-0000000000000010',
    '20260101T13-0000000000000010',
  ])
  expect(cursors.toSorted()).toEqual(cursors)
  // A replay of what lies in an earlier file is known there, and checked against it.
  expect(await store.append(stream.batch(12, 4, START_MS + 3 * HOUR_MS))).toMatchObject({ duplicates: 4 })
  await reopen()
  expect(await store.append(stream.batch(31, 5, START_MS + 4 * HOUR_MS))).toMatchObject({ sequence: 35 })
  expect(sequences(await all())).toEqual(Array.from({ length: 35 }, (_, index) => index + 1))
  expect(await store.counts()).toEqual([{ class: 2, rows: 35 }])
})

test('an hour with many events has several files, in order, and each closed one gets its indexes', async () => {
  await store.close()
  const openSmall = () => openEmbeddedEventStore({ folder, logger: createSilentLogger(), fileRowsMax: 20 })
  store = await openSmall()
  const stream = createSampleStream(agentId)
  for (let first = 1; first <= 41; first += 10) await store.append(stream.batch(first, 10))
  await store.close()
  store = await openSmall()
  expect(await store.append(stream.batch(31, 30))).toMatchObject({
    kind: 'stored',
    duplicates: 20,
    sequence: 60,
  })
  await store.append(stream.batch(61, 10, START_MS + HOUR_MS))
  await store.append(stream.batch(71, 10, START_MS))
  const files = ['20260101T10', '20260101T10p0001', '20260101T10p0002', '20260101T11']
  const names = readdirSync(folder).filter((name) => name.endsWith('.db'))
  expect(names.sort()).toEqual(files.map((hour) => `events-${hour}.db`))
  const events = await all()
  expect(sequences(events)).toEqual(Array.from({ length: 80 }, (_, index) => index + 1))
  expect(events.map(({ cursor }) => cursor)).toEqual(events.map(({ cursor }) => cursor).sort())
  for (let at = 0; at < 80; at += 7) {
    expect(sequences(await store.readAfter(events[at]?.cursor ?? '', 3))).toEqual(
      [at + 2, at + 3, at + 4].filter((sequence) => sequence <= 80),
    )
  }
  const mine = { agentId, limit: 100, order: 'descending', after: events[45]?.cursor ?? '' } as const
  expect(sequences(await store.query(mine))).toEqual(Array.from({ length: 45 }, (_, index) => 45 - index))
  await expect
    .poll(() => files.slice(0, 3).every((hour) => isSealed({ folder, hour: hour })), { timeout: 20_000 })
    .toBe(true)
  expect(sequences(await store.query(mine))).toEqual(Array.from({ length: 45 }, (_, index) => 45 - index))
})

test('a clock that goes back does not break the order of arrival', async () => {
  const stream = createSampleStream(agentId)
  await store.append(stream.batch(1, 2, START_MS + 5 * HOUR_MS))
  const result = await store.append(stream.batch(3, 2, START_MS))
  expect(result).toMatchObject({ kind: 'stored', cursor: '20260101T15-0000000000000004' })
})

test('closed files get their indexes, also when the program ended before it came to that', async () => {
  const stream = createSampleStream(agentId)
  for (const hour of [0, 1, 2]) await store.append(stream.batch(hour * 5 + 1, 5, START_MS + hour * HOUR_MS))
  await reopen()
  const sealed = () =>
    ['20260101T10', '20260101T11', '20260101T12'].map((hour) => {
      const db = openSqlite({ path: eventFilePath(folder, hour), migrations: [], readonly: true })
      const value = db.prepare('SELECT sealed FROM file').pluck().get()
      db.close()
      return value
    })
  await expect.poll(sealed, { timeout: 20_000 }).toEqual([1, 1, 0])
  expect(sequences(await store.query({ entityId: `${agentId.slice(0, 8)}.0badb007.7.1`, limit: 5 }))).toEqual(
    [7],
  )
})

test('a corrupt newest file is set aside, and cursors of its time miss nothing that comes after', async () => {
  const stream = createSampleStream(agentId)
  await store.append(stream.batch(1, 10, START_MS))
  await store.append(stream.batch(11, 10, START_MS + HOUR_MS))
  const consumed = (await all()).at(-1)?.cursor ?? ''
  await store.close()
  corrupt('20260101T11')
  store = await open()
  expect(readdirSync(folder).some((name) => name.startsWith('events-20260101T11.db.corrupt-1'))).toBe(true)
  expect(sequences(await all())).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
  // Its rows are gone, so the agent is asked for them again.
  expect(await store.append(stream.batch(21, 5, START_MS + HOUR_MS))).toEqual({
    kind: 'gap',
    expectedSequence: 11,
  })
  expect(await store.append(stream.batch(11, 15, START_MS + HOUR_MS))).toMatchObject({
    kind: 'stored',
    sequence: 25,
  })
  expect(await store.readAfter(consumed, 100)).toHaveLength(15)
})

test('a corrupt older file is left out, and the others are read', async () => {
  const stream = createSampleStream(agentId)
  for (const hour of [0, 1, 2]) await store.append(stream.batch(hour * 5 + 1, 5, START_MS + hour * HOUR_MS))
  await store.close()
  corrupt('20260101T11')
  store = await open()
  expect(sequences(await all())).toEqual([1, 2, 3, 4, 5, 11, 12, 13, 14, 15])
  expect(sequences(await store.query({ contains: 'tool', limit: 100 }))).toHaveLength(10)
  // A replay that would be checked against the broken file is a duplicate all the same.
  expect(await store.append(stream.batch(7, 2, START_MS + 2 * HOUR_MS))).toMatchObject({ duplicates: 2 })
})

test('a file without header, as a crash leaves it, carries the watermarks when it is opened again', async () => {
  const stream = createSampleStream(agentId)
  await store.append(stream.batch(1, 5, START_MS))
  await store.append(stream.batch(6, 5, START_MS + HOUR_MS))
  await store.close()
  const db = openEventFile({ folder, hour: '20260101T11' }, 'write')
  db.exec(
    'DELETE FROM event; DELETE FROM batch; DELETE FROM stream; DELETE FROM agent; DELETE FROM action; DELETE FROM file',
  )
  db.close()
  store = await open()
  expect(await store.append(stream.batch(6, 5, START_MS + HOUR_MS))).toMatchObject({
    kind: 'stored',
    duplicates: 0,
  })
  expect(sequences(await all())).toHaveLength(10)
})

test('retention removes whole files and keeps the watermarks', async () => {
  const stream = createSampleStream(agentId)
  for (const hour of [0, 1, 2]) await store.append(stream.batch(hour * 5 + 1, 5, START_MS + hour * HOUR_MS))
  await expect
    .poll(() => store.drop(['20260101T10']), { timeout: 20_000 })
    .toEqual({ hours: ['20260101T10'], oldestMs: START_MS + HOUR_MS })
  expect(sequences(await all())).toEqual([6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
  // The open file stays, whatever is asked.
  await store.drop(['20260101T11', '20260101T12', '20260101T13'])
  expect(sequences(await all()).slice(-5)).toEqual([11, 12, 13, 14, 15])
  expect(await store.append(stream.batch(1, 5, START_MS + 2 * HOUR_MS))).toMatchObject({ duplicates: 5 })
  expect(await store.append(stream.batch(16, 1, START_MS + 2 * HOUR_MS))).toMatchObject({ sequence: 16 })
})

test('that the oldest file left is broken hinders no retention', async () => {
  const stream = createSampleStream(agentId)
  for (const hour of [0, 1, 2]) await store.append(stream.batch(hour * 5 + 1, 5, START_MS + hour * HOUR_MS))
  const hours = ['20260101T10', '20260101T11']
  await expect.poll(() => hours.every((hour) => isSealed({ folder, hour })), { timeout: 20_000 }).toBe(true)
  corrupt('20260101T11')
  expect(await store.drop(['20260101T10'])).toEqual({ hours: ['20260101T10'], oldestMs: null })
})

test('an agent that makes up streams is stopped, and others are not', async () => {
  const results = await Promise.all(
    Array.from({ length: STREAMS_PER_AGENT_MAX + 1 }, (_, number) =>
      store.append(createSampleStream(agentId, sampleAgentId(number)).batch(1, 1)),
    ),
  )
  expect(results.filter((result) => result.kind === 'stored')).toHaveLength(STREAMS_PER_AGENT_MAX)
  expect(results.at(-1)).toMatchObject({ kind: 'failed' })
  expect(await store.append(createSampleStream(sampleAgentId(9)).batch(1, 1))).toMatchObject({
    kind: 'stored',
  })
})

test('a batch the file does not take costs no other batch of its group', async () => {
  const poisoned = createSampleStream(agentId)
  poisoned.add({ ...sampleExec(agentId, 1), '@timestamp': 'never' })
  const good = [2, 3].map((number) => createSampleStream(sampleAgentId(number)).batch(1, 2))
  const results = await Promise.all(
    [good[0], poisoned.batch(1, 1), good[1]].map((batch) => batch && store.append(batch)),
  )
  expect(results.map((result) => result?.kind)).toEqual(['stored', 'failed', 'stored'])
  expect(await store.watermarks(agentId, agentId)).toEqual([])
  expect(await all()).toHaveLength(4)
})

test('a bit that flips inside what is stored is found by its chain; what it cannot cost is other batches', async () => {
  const other = createSampleStream(sampleAgentId(2))
  await store.append(createSampleStream(agentId).batch(1, 10))
  await store.append(other.batch(1, 10))
  await store.close()
  const db = openEventFile({ folder, hour: '20260101T10' }, 'write')
  expect(findChangedBatches(db)).toEqual([])
  const payload = db.prepare<[], Buffer>('SELECT payload FROM batch WHERE id = 2').pluck().get()
  if (!payload) throw new Error('it was stored')
  const middle = payload.length >> 1
  payload.writeUInt8(payload.readUInt8(middle) ^ 1, middle)
  db.prepare('UPDATE batch SET payload = ? WHERE id = 2').run(payload)
  expect(db.pragma('integrity_check', { simple: true })).toBe('ok')
  expect(findChangedBatches(db)).toEqual([2])
  db.close()
  store = await open()
  expect((await all()).map((event) => event.agentId)).toEqual(Array(10).fill(agentId))
  // It cannot be told any more whether these are the same rows, and the agent must not be called a forger.
  expect(await store.append(other.batch(1, 5))).toMatchObject({ kind: 'stored', duplicates: 5 })
  expect(await store.append(other.batch(11, 5))).toMatchObject({ kind: 'stored', duplicates: 0 })
  expect(await all()).toHaveLength(15)
})

test('rows that had been stored before are left out of a batch, and its other rows are read from it', async () => {
  const stream = createSampleStream(agentId)
  await store.append(stream.batch(1, 7))
  expect(await store.append(stream.batch(4, 10))).toMatchObject({ kind: 'stored', duplicates: 4 })
  await store.close()
  store = await open()
  const events = await all()
  expect(sequences(events)).toEqual(Array.from({ length: 13 }, (_, index) => index + 1))
  expect(events.map(({ event }) => event)).toEqual(stream.batch(1, 13).events)
  const db = openEventFile({ folder, hour: '20260101T10' }, 'read')
  expect(findChangedBatches(db)).toEqual([])
  db.close()
})

test('what is asked of a closed store fails as a value or a rejection, not by hanging', async () => {
  await store.close()
  expect(await store.append(createSampleStream(agentId).batch(1, 1))).toMatchObject({ kind: 'failed' })
  await expect(store.readAfter('', 1)).rejects.toThrow()
})

test('after kill -9 every acknowledged batch is there exactly once', async () => {
  await store.close()
  const acknowledged = new Map<number, number>()
  for (let round = 0; round < 3; round += 1) {
    const child = spawn(process.execPath, [join(import.meta.dirname, 'testing/store-child.ts'), folder], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, NODE_OPTIONS: '' },
    })
    let output = ''
    child.stdout.on('data', (chunk) => {
      output += String(chunk)
      if (output.split('\n').length > 200 + round * 37) child.kill('SIGKILL')
    })
    await once(child, 'close')
    for (const line of output.split('\n').slice(0, -1)) {
      const [number, sequence] = line.split(' ').map(Number)
      if (number !== undefined && sequence !== undefined) acknowledged.set(number, sequence)
    }
  }
  store = await open()
  expect(acknowledged.size).toBe(4)
  const stored = new Map<string, number[]>()
  for (
    let cursor = '', events = await all();
    events.length > 0;
    events = await store.readAfter(cursor, 10_000)
  ) {
    for (const event of events)
      stored.set(event.agentId, [...(stored.get(event.agentId) ?? []), event.sequence])
    cursor = events.at(-1)?.cursor ?? ''
  }
  for (const [number, sequence] of acknowledged) {
    const found = stored.get(sampleAgentId(number)) ?? []
    expect(found.length).toBeGreaterThanOrEqual(sequence)
    expect(found).toEqual(Array.from({ length: found.length }, (_, index) => index + 1))
  }
})
