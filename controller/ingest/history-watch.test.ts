import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createSilentLogger } from '../../shared/node/logger.ts'
import { sampleHello } from '../gateway/testing/test-fleet.ts'
import type { IncomingBatch } from '../store/event-store.ts'
import { type EmbeddedEventStore, openEmbeddedEventStore } from '../store/events/embedded-event-store.ts'
import { createSampleStream, sampleAgentId, sampleExec } from '../store/events/testing/sample-stream.ts'
import { createHistoryWatch } from './history-watch.ts'

const AGENT = sampleAgentId(1)
const STREAM = 'ab'.repeat(16)
let folder: string
let store: EmbeddedEventStore
let forked: string[]
let append: (batch: IncomingBatch) => Promise<string>
let greet: (last: number) => Promise<unknown>
let noted: unknown[]

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-history-'))
  store = await openEmbeddedEventStore({ folder, logger: createSilentLogger() })
  forked = []
  noted = []
  const watch = createHistoryWatch({
    onForked: (_agentId, detail) => forked.push(detail),
    noteStorage: (_part, cause) => noted.push(cause),
  })
  const watched = watch.store(store)
  append = async (batch) => (await watched.append(batch)).kind
  const sink = watch.sink({
    open: async () => ({
      position: { agentId: AGENT, streamId: STREAM, oldest: new Map() },
      watermarks: await watched.watermarks(AGENT, STREAM),
    }),
    take: async () => ({ kind: 'malformed', reason: 'not asked' }),
  })
  greet = (last) =>
    sink.open(AGENT, { ...sampleHello(), watermarks: [{ class: 2, first: 1, last, acknowledged: 0 }] })
})
afterEach(async () => {
  await store.close()
  rmSync(folder, { recursive: true, force: true })
})

/** The same up to row 5; then what a copy, or a host restored from a snapshot, saw. */
function createHistories() {
  const [original, other] = [createSampleStream(AGENT, STREAM), createSampleStream(AGENT, STREAM)]
  original.batch(1, 5)
  other.batch(1, 5)
  for (let number = 0; number < 20; number += 1) other.add(sampleExec(AGENT, 900 + number))
  return { original, other }
}

test('a restored snapshot diverges once and begins a new stream: nobody carries the old one on', async () => {
  const { original, other } = createHistories()
  expect(await append(original.batch(1, 10))).toBe('stored')
  await greet(5)
  expect(await append(other.batch(6, 3))).toBe('hashMismatch')
  expect(await append(other.batch(6, 8))).toBe('hashMismatch')
  // Set aside and told as lost, the stream goes on from what the agent says, and stays so.
  expect(await append(other.batch(14, 2, undefined, 14))).toBe('stored')
  expect(await append(other.batch(16, 2))).toBe('stored')
  expect(forked).toEqual([])
})

test.each(['by other content under stored sequences', 'by a buffer that is behind'])(
  'a second host is found when the stored history goes on after another was shown, %s',
  async (how) => {
    const { original, other } = createHistories()
    await append(original.batch(1, 10))
    if (how.startsWith('by other')) expect(await append(other.batch(6, 5))).toBe('hashMismatch')
    else await greet(7)
    // What was stored before proves nothing: an agent sends again what was not acknowledged.
    expect(await append(original.batch(6, 5))).toBe('stored')
    expect(forked).toEqual([])
    expect(await append(original.batch(9, 4))).toBe('stored')
    expect(forked).toEqual([expect.stringMatching(/from sequence 11 on/)])
    expect(await append(original.batch(13, 2))).toBe('stored')
    expect(forked).toHaveLength(1)
  },
)

test('a reconnect, a replay and an agent that is ahead are no second host', async () => {
  const { original } = createHistories()
  await append(original.batch(1, 10))
  await greet(10)
  await append(original.batch(4, 7))
  await greet(40)
  await append(original.batch(11, 5))
  expect(forked).toEqual([])
  expect(noted.every((cause) => cause === null)).toBe(true)
})
