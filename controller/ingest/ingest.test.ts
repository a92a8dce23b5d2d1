import { expect, test } from 'vitest'
import { encodeBatch } from '../../shared/node/batch.ts'
import { createSilentLogger } from '../../shared/node/logger.ts'
import type { AppendResult, IncomingBatch } from '../store/event-store.ts'
import { createSampleStream, sampleAgentId } from '../store/events/testing/sample-stream.ts'
import { createIngest } from './ingest.ts'
import { verifyFrame } from './verify.ts'

const agentId = sampleAgentId(1)
const position = () => ({ agentId, streamId: agentId, oldest: new Map() })

function frame(firstSequence: number, rows: number): Buffer {
  const batch = createSampleStream(agentId).batch(firstSequence, rows)
  const { streamId, class: eventClass, previousHash, lastHash } = batch
  return encodeBatch({ streamId, class: eventClass, firstSequence, previousHash, lastHash }, batch.bodies)
}

/** An ingest over a store that answers each batch as told. */
function ingestOver(answers: AppendResult[]) {
  const appended: IncomingBatch[] = []
  const stored: number[] = []
  const alerts: string[] = []
  const ingest = createIngest({
    store: {
      append: async (batch) => {
        appended.push(batch)
        return answers.shift() ?? { kind: 'failed', cause: new Error('no answer') }
      },
      watermarks: async () => [],
      streams: async () => [],
    },
    verify: async (bytes, origin) => verifyFrame(bytes, origin, () => null),
    onStored: (batch, result) => stored.push(batch.rows.count - result.duplicates),
    onAlert: (kind) => alerts.push(kind),
    logger: createSilentLogger(),
    clock: () => 1_234,
  })
  return { ingest, appended, stored, alerts }
}

test('what the store cannot take is refused in words that tell nothing of the machine', async () => {
  const { ingest, stored } = ingestOver([{ kind: 'failed', cause: new Error('/var/lib is full') }])
  expect(await ingest.take(position(), frame(1, 1))).toEqual({
    kind: 'answer',
    message: {
      kind: 'batchRefused',
      streamId: agentId,
      class: 2,
      firstSequence: 1,
      expectedSequence: 1,
      code: 'storeFailed',
      reason: 'the event store took nothing',
    },
  })
  expect(stored).toEqual([])
})

test('the store gets the exact bytes, what it looks events up by, and the time of arrival', async () => {
  const { ingest, appended, stored } = ingestOver([
    { kind: 'stored', sequence: 3, duplicates: 1, skipped: 0, cursor: '' },
  ])
  const result = await ingest.take(position(), frame(1, 3))
  expect(result).toMatchObject({ kind: 'answer', message: { kind: 'acknowledgement', sequence: 3 } })
  const { bodies: _bodies, events: _events, ...sent } = createSampleStream(agentId).batch(1, 3, 1_234)
  expect(appended).toEqual([{ ...sent, notable: [] }])
  expect(stored).toEqual([2])
})

test('frames that are no batches are told apart from batches that are refused', async () => {
  const { ingest, appended } = ingestOver([])
  for (const bytes of [Buffer.alloc(0), Buffer.alloc(600_000), frame(1, 2).subarray(0, 300)]) {
    expect(await ingest.take(position(), bytes)).toMatchObject({ kind: 'malformed' })
  }
  expect(appended).toEqual([])
})

test('no gap event makes rows of class 0 dispensable', async () => {
  const place = position()
  const { ingest } = ingestOver([{ kind: 'stored', sequence: 1, duplicates: 0, skipped: 0, cursor: '' }])
  const stream = createSampleStream(agentId, agentId, 0)
  stream.add({
    '@timestamp': '2026-01-01T10:00:00.000Z',
    'event.kind': 'event',
    'event.category': 'host',
    'event.type': 'info',
    'event.action': 'gap',
    'cordon.gap.class': 0,
    'cordon.gap.from': 2,
    'cordon.gap.to': 9,
    'cordon.gap.count': 8,
    'cordon.gap.bytes': 1,
    'cordon.gap.started': '2026-01-01T09:00:00.000Z',
    'cordon.gap.ended': '2026-01-01T09:30:00.000Z',
    'event.reason': 'made up',
  })
  const { bodies, previousHash, lastHash } = stream.batch(1, 1)
  await ingest.take(
    place,
    encodeBatch({ streamId: agentId, class: 0, firstSequence: 1, previousHash, lastHash }, bodies),
  )
  expect(place.oldest.size).toBe(0)
})

test('an agent that knows as stored what the store does not have shows a controller that was put back', async () => {
  const { ingest, alerts } = ingestOver([])
  const mark = { class: 2, first: 1, last: 9, acknowledged: 0 }
  const hello = (acknowledged: number) =>
    ({ streamId: agentId, watermarks: [{ ...mark, acknowledged }] }) as unknown as Parameters<
      typeof ingest.open
    >[1]
  await ingest.open(agentId, hello(0))
  expect(alerts).toEqual([])
  await ingest.open(agentId, hello(5))
  expect(alerts).toEqual(['controllerBehind'])
})
