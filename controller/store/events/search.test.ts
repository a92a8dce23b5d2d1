import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { CordonEvent } from '../../../shared/events/event.ts'
import { createSilentLogger } from '../../../shared/node/logger.ts'
import type { EventQuery, StoredEvent } from '../event-store.ts'
import { type EmbeddedEventStore, openEmbeddedEventStore } from './embedded-event-store.ts'
import { isSealed } from './event-file.ts'
import { createSampleStream, HOUR_MS, START_MS, sampleAgentId } from './testing/sample-stream.ts'

let folder: string
let store: EmbeddedEventStore
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-search-'))
  store = await openEmbeddedEventStore({ folder, logger: createSilentLogger() })
})
afterEach(async () => {
  await store.close()
  rmSync(folder, { recursive: true, force: true })
})

const AGENTS = [1, 2, 3].map(sampleAgentId)
const PATHS = ['/bin/a', "/tmp/'; DROP TABLE event; --", '/tmp/é%_']
const HASHES = ['11'.repeat(32), 'ab'.repeat(32)]
const ADDRESSES = ['192.0.2.1', '2001:db8::1']
const entity = fc.nat(5).map((pid) => `00000001.0badb007.${pid}.1`)

const anyEvent: fc.Arbitrary<CordonEvent> = fc.oneof(
  fc
    .record({
      at: fc.nat(5_000),
      id: entity,
      parent: entity,
      path: fc.constantFrom(...PATHS),
      sha: fc.constantFrom(...HASHES),
    })
    .map(
      ({ at, id, parent, path, sha }): CordonEvent => ({
        '@timestamp': new Date(START_MS + at).toISOString(),
        'event.kind': 'event',
        'event.category': 'process',
        'event.type': 'start',
        'event.action': 'exec',
        'process.entity_id': id,
        'process.executable': path,
        'process.parent.entity_id': parent,
        'process.hash.sha256': sha,
      }),
    ),
  fc
    .record({
      at: fc.nat(5_000),
      path: fc.constantFrom(...PATHS),
      id: entity,
      sha: fc.constantFrom(...HASHES),
    })
    .map(
      ({ at, path, id, sha }): CordonEvent => ({
        '@timestamp': new Date(START_MS + at).toISOString(),
        'event.kind': 'event',
        'event.category': 'file',
        'event.type': 'info',
        'event.action': 'file-examined',
        'file.path': path,
        'file.hash.sha256': sha,
        'process.entity_id': id,
        'process.executable': '/bin/writer',
      }),
    ),
  fc.record({ at: fc.nat(5_000), to: fc.constantFrom(...ADDRESSES), id: entity }).map(
    ({ at, to, id }): CordonEvent => ({
      '@timestamp': new Date(START_MS + at).toISOString(),
      'event.kind': 'event',
      'event.category': 'network',
      'event.type': 'start',
      'event.action': 'connection',
      'event.outcome': 'success',
      'network.transport': 'tcp',
      'network.type': 'ipv4',
      'network.direction': 'egress',
      'destination.ip': to,
      'destination.port': 443,
      'process.entity_id': id,
    }),
  ),
)

const maybe = <Value>(value: fc.Arbitrary<Value>) => fc.option(value, { nil: undefined, freq: 2 })

const rarely = <Value>(value: fc.Arbitrary<Value>) =>
  fc.oneof({ weight: 4, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: value })

/** Conditions are left out, not undefined, as the types ask. */
const anyQuery = fc
  .record({
    agentId: maybe(fc.constantFrom(...AGENTS, 'f'.repeat(32))),
    action: maybe(fc.constantFrom('exec', 'connection', 'file-examined', 'gap')),
    entityId: maybe(entity),
    parentEntityId: maybe(entity),
    entityIds: rarely(fc.array(entity, { maxLength: 4 })),
    parentEntityIds: rarely(fc.array(entity, { maxLength: 4 })),
    actions: rarely(fc.subarray(['exec', 'connection', 'file-created'] as const)),
    sha256: maybe(fc.constantFrom(...HASHES)),
    destinationAddress: maybe(fc.constantFrom(...ADDRESSES)),
    path: maybe(fc.constantFrom(...PATHS)),
    contains: maybe(fc.constantFrom('DROP TABLE', 'writer', 'é%', 'EXEC', 'exec', '%')),
    fromMs: maybe(fc.nat(6_000).map((at) => START_MS + at)),
    toMs: maybe(fc.nat(6_000).map((at) => START_MS + at)),
    after: maybe(
      fc
        .tuple(fc.constantFrom('10', '11', '12', '13'), fc.nat(30))
        .map(([hour, id]) => `20260101T${hour}-${String(id).padStart(16, '0')}`),
    ),
    order: maybe(fc.constantFrom('ascending', 'descending')),
    limit: fc.integer({ min: 1, max: 40 }),
  })
  .map(
    (query) =>
      Object.fromEntries(
        Object.entries(query).filter(([, value]) => value !== undefined),
      ) as unknown as EventQuery,
  )

const field = (event: CordonEvent, name: string): unknown =>
  new Map<string, unknown>(Object.entries(event)).get(name)

/** The meaning of a query, said plainly. */
function plainFilter(all: readonly StoredEvent[], query: EventQuery): StoredEvent[] {
  const descending = query.order === 'descending'
  const same = (wanted: string | undefined, found: unknown) => wanted === undefined || wanted === found
  const among = (wanted: readonly string[] | undefined, found: unknown) =>
    wanted === undefined || wanted.some((each) => each === found)
  const matching = all.filter(({ event, ...row }) => {
    const timeMs = Date.parse(event['@timestamp'])
    return (
      same(query.agentId, row.agentId) &&
      same(query.action, event['event.action']) &&
      among(query.entityIds, field(event, 'process.entity_id')) &&
      among(query.parentEntityIds, field(event, 'process.parent.entity_id')) &&
      among(query.actions, event['event.action']) &&
      same(query.entityId, field(event, 'process.entity_id')) &&
      same(query.parentEntityId, field(event, 'process.parent.entity_id')) &&
      same(query.sha256, field(event, 'file.hash.sha256') ?? field(event, 'process.hash.sha256')) &&
      same(query.destinationAddress, field(event, 'destination.ip')) &&
      same(query.path, field(event, 'file.path') ?? field(event, 'process.executable')) &&
      (query.contains === undefined || JSON.stringify(event).includes(query.contains)) &&
      (query.fromMs === undefined || timeMs >= query.fromMs) &&
      (query.toMs === undefined || timeMs <= query.toMs) &&
      (query.after === undefined || (descending ? row.cursor < query.after : row.cursor > query.after))
    )
  })
  return (descending ? matching.reverse() : matching).slice(0, query.limit)
}

test('a query finds what a plain filter over all events finds, in sealed files and in the open one', async () => {
  const events =
    fc.sample(fc.array(anyEvent, { minLength: 120, maxLength: 120 }), { numRuns: 1, seed: 7 })[0] ?? []
  const streams = AGENTS.map((agentId) => ({ stream: createSampleStream(agentId), sent: 0 }))
  for (const [index, event] of events.entries()) {
    const of = streams[index % streams.length]
    if (!of) continue
    of.stream.add(event)
    of.sent += 1
    await store.append(of.stream.batch(of.sent, 1, START_MS + Math.floor(index / 40) * HOUR_MS))
  }
  // The first two hours get their indexes; the third has none yet.
  await expect
    .poll(() => isSealed({ folder, hour: '20260101T10' }) && isSealed({ folder, hour: '20260101T11' }), {
      timeout: 20_000,
    })
    .toBe(true)
  const all = await store.readAfter('', 1_000)
  expect(all).toHaveLength(120)
  const check = async (query: EventQuery) => {
    expect(await store.query(query)).toEqual(plainFilter(all, query))
  }
  await fc.assert(fc.asyncProperty(anyQuery, check), { numRuns: 400 })
})

test.each<[string, EventQuery]>([
  ['limit', { limit: 10_001 }],
  ['limit', { limit: 0 }],
  ['limit', { limit: Number.NaN }],
  ['cursor', { limit: 1, after: "' OR 1=1 --" }],
  ['contains', { limit: 1, contains: 'x'.repeat(2_000) }],
  ['sha256', { limit: 1, sha256: 'zz' }],
  ['times', { limit: 1, fromMs: Number.POSITIVE_INFINITY }],
])('a query with a wrong %s is refused', async (what, query) => {
  await expect(store.query(query)).rejects.toThrow(what)
})

test('a query past its time ends, says so, and the next one is answered', async () => {
  await store.close()
  store = await openEmbeddedEventStore({ folder, logger: createSilentLogger(), queryBudgetMs: 0 })
  const stream = createSampleStream(sampleAgentId(1))
  for (let first = 1; first <= 2_001; first += 500) await store.append(stream.batch(first, 500))
  await expect(store.query({ limit: 10, contains: 'nowhere' })).rejects.toThrow('too long')
  expect(await store.search({ limit: 10, contains: 'nowhere' })).toEqual({ events: [], complete: false })
  expect(await store.readAfter('', 10)).toHaveLength(10)
})
