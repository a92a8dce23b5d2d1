import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createSilentLogger } from '../../../shared/node/logger.ts'
import type { Cursor, EventTail } from '../event-store.ts'
import { type EmbeddedEventStore, openEmbeddedEventStore } from './embedded-event-store.ts'
import { createTail, type TailSource } from './tail.ts'
import { createSampleStream, HOUR_MS, START_MS, sampleAgentId } from './testing/sample-stream.ts'

const never = new AbortController().signal
let folder: string
let store: EmbeddedEventStore
const open = () => openEmbeddedEventStore({ folder, logger: createSilentLogger() })
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-tail-'))
  store = await open()
})
afterEach(async () => {
  await store.close()
  rmSync(folder, { recursive: true, force: true })
})

/** The store, and how often the disk was read. */
function counted(): { source: TailSource; reads: () => number } {
  let reads = 0
  const source: TailSource = {
    head: store.head,
    subscribe: store.subscribe,
    readAfter: (cursor, rowsMax) => {
      reads += 1
      return store.readAfter(cursor, rowsMax)
    },
  }
  return { source, reads: () => reads }
}

async function follow(tail: EventTail, from: Cursor, rows: number, rowsMax = 7): Promise<number[]> {
  const seen: number[] = []
  let cursor = from
  while (seen.length < rows) {
    const stretch = await tail.next(cursor, rowsMax, never)
    expect(stretch.events.length).toBeLessThanOrEqual(rowsMax)
    seen.push(...stretch.events.map((event) => event.sequence))
    cursor = stretch.cursor
  }
  return seen
}

/** Every event is notable. */
const weigh = () => []
const upTo = (last: number) => Array.from({ length: last }, (_, index) => index + 1)

test('a consumer that keeps up sees every event once, in order, without reading the disk', async () => {
  const { source, reads } = counted()
  const tail = createTail(source, { weigh })
  const stream = createSampleStream(sampleAgentId(1))
  const seen = follow(tail, '', 60)
  for (const hour of [0, 1, 2]) {
    await store.append(stream.batch(hour * 20 + 1, 20, START_MS + hour * HOUR_MS))
    // Duplicates are no news.
    await store.append(stream.batch(hour * 20 + 1, 20, START_MS + hour * HOUR_MS))
  }
  expect(await seen).toEqual(upTo(60))
  expect(reads()).toBe(0)
})

test('what memory gives is what the disk gives', async () => {
  const tail = createTail(store, { weigh })
  const stream = createSampleStream(sampleAgentId(1))
  await store.append(stream.batch(1, 5))
  await store.append(stream.batch(3, 5))
  const onDisk = (await store.readAfter('', 100)).map((event) => ({ ...event, detections: [] }))
  expect(await tail.next('', 100, never)).toEqual({ events: onDisk, cursor: onDisk.at(-1)?.cursor })
})

test('ordinary events are passed over, in memory and on the disk, and the cursor passes them too', async () => {
  const stream = createSampleStream(sampleAgentId(1))
  const ordinary = (first: number) => {
    const batch = stream.batch(first, 10)
    return { ...batch, notable: batch.notable.filter(({ row }) => row === 3) }
  }
  const tail = createTail(store, { weigh: () => null })
  await store.append(ordinary(1))
  const last = await store.append(ordinary(11))
  expect(last).toMatchObject({ kind: 'stored' })
  const stretch = await tail.next('', 100, never)
  expect(stretch.events.map(({ sequence }) => sequence)).toEqual([4, 14])
  expect(stretch).toMatchObject({ cursor: last.kind === 'stored' ? last.cursor : null })
  const first = await tail.next('', 1, never)
  expect(first.events.map(({ sequence }) => sequence)).toEqual([4])
  expect(first.cursor).toBe(first.events[0]?.cursor)

  await store.close()
  store = await open()
  const again = createTail(store, { weigh: () => null })
  expect(await again.next('', 100, never)).toEqual({ events: [], cursor: stretch.cursor })
})

test('a consumer that lags reads the disk until memory takes over, and misses nothing', async () => {
  const { source, reads } = counted()
  const tail = createTail(source, { weigh, eventsMax: 30 })
  const stream = createSampleStream(sampleAgentId(1))
  for (let first = 1; first <= 91; first += 10) await store.append(stream.batch(first, 10))
  expect(await follow(tail, '', 100)).toEqual(upTo(100))
  expect(reads()).toBeGreaterThan(5)
  expect(reads()).toBeLessThan(15)
})

test('events of before the start are read from the disk', async () => {
  const stream = createSampleStream(sampleAgentId(1))
  await store.append(stream.batch(1, 10))
  await store.close()
  store = await open()
  const tail = createTail(store, { weigh })
  await store.append(stream.batch(11, 10))
  expect(await follow(tail, '', 20)).toEqual(upTo(20))
})

test('a consumer whose place was removed by retention goes on at the oldest event', async () => {
  const stream = createSampleStream(sampleAgentId(1))
  await store.append(stream.batch(1, 10, START_MS))
  await store.append(stream.batch(11, 10, START_MS + HOUR_MS))
  await store.close()
  store = await open()
  const tail = createTail(store, { weigh })
  await expect
    .poll(() => store.drop(['20260101T10']), { timeout: 20_000 })
    .toMatchObject({ hours: ['20260101T10'] })
  await store.append(stream.batch(21, 1, START_MS + HOUR_MS))
  expect(await follow(tail, '', 11)).toEqual(upTo(21).slice(10))
})

test('waiting ends with nothing when the signal aborts, and text that is no cursor is refused', async () => {
  const tail = createTail(store, { weigh })
  const stop = new AbortController()
  const waiting = tail.next('', 10, stop.signal)
  stop.abort()
  expect(await waiting).toEqual({ cursor: '', events: [] })
  await expect(tail.next('nonsense', 10, never)).rejects.toThrow('cursor')
})
