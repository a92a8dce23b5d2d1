import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createSilentLogger } from '../../../shared/node/logger.ts'
import { createAuditLog } from '../../audit/audit-log.ts'
import { openTemporaryState, type TemporaryState } from '../../state/testing/temporary-state.ts'
import { type EmbeddedEventStore, openEmbeddedEventStore } from './embedded-event-store.ts'
import { eventFilePath, isSealed, listHours } from './event-file.ts'
import { applyRetention } from './retention.ts'
import { createSampleStream, HOUR_MS, START_MS, sampleAgentId } from './testing/sample-stream.ts'

const AGENT = sampleAgentId(1)
let folder: string
let store: EmbeddedEventStore
let temporary: TemporaryState
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-retention-'))
  store = await openEmbeddedEventStore({ folder, logger: createSilentLogger() })
  temporary = openTemporaryState()
})
afterEach(async () => {
  await store.close()
  temporary[Symbol.dispose]()
  rmSync(folder, { recursive: true, force: true })
})

function apply(retentionBytesMax: number | null) {
  const { state } = temporary
  return applyRetention({
    store,
    state,
    audit: createAuditLog(state, () => START_MS),
    settings: { retentionDays: 30, retentionBytesMax },
    folder,
    nowMs: () => START_MS + 6 * HOUR_MS,
  })
}

test('above its bytes the store drops its oldest whole files, never the open one, and tells it', async () => {
  const stream = createSampleStream(AGENT)
  for (let hour = 0; hour < 5; hour += 1)
    await store.append(stream.batch(hour * 10 + 1, 10, START_MS + hour * HOUR_MS))
  // Files are sealed behind the store's back, and one that is being sealed is not dropped.
  await expect
    .poll(
      async () => {
        await apply(1)
        return listHours(folder)
      },
      { timeout: 20_000 },
    )
    .toEqual(['20260101T14'])
  // Watermarks and what comes next live on.
  expect(await store.watermarks(AGENT, AGENT)).toMatchObject([{ class: 2, sequence: 50 }])
  expect(await store.append(stream.batch(51, 5, START_MS + 4 * HOUR_MS))).toMatchObject({
    kind: 'stored',
    sequence: 55,
  })
  expect((await store.readAfter('', 100)).map(({ sequence }) => sequence)).toEqual(
    Array.from({ length: 15 }, (_, index) => 41 + index),
  )
  expect(temporary.state.retention.fromMs()).toBe(START_MS + 4 * HOUR_MS)
  const told = createAuditLog(temporary.state, () => 0).list(10)
  expect(told.length).toBeGreaterThan(0)
  expect(told[0]).toMatchObject({ action: 'events.dropped', subject: 'events' })
  expect(told[0]?.detail).toMatch(
    /before 2026-01-01T14:00:00.000Z are gone .*not all of them had been examined.*blind/,
  )
})

test('of an hour with many files only those go that have to', async () => {
  await store.close()
  store = await openEmbeddedEventStore({ folder, logger: createSilentLogger(), fileRowsMax: 10 })
  const stream = createSampleStream(AGENT)
  for (let file = 0; file < 5; file += 1) await store.append(stream.batch(file * 10 + 1, 10, START_MS + file))
  const names = listHours(folder)
  expect(names).toHaveLength(5)
  // Indexes make a file larger.
  await expect
    .poll(() => names.slice(0, -1).every((hour) => isSealed({ folder, hour })), { timeout: 20_000 })
    .toBe(true)
  const sizes = names.map((name) => statSync(eventFilePath(folder, name)).size)
  // Room for the open file, its log and one more.
  const log = statSync(`${eventFilePath(folder, names[4] ?? '')}-wal`).size
  const room = log + sizes.slice(3).reduce((sum, size) => sum + size, 0) + (sizes[2] ?? 0) / 2
  await expect
    .poll(
      async () => {
        await apply(room)
        return listHours(folder)
      },
      { timeout: 20_000 },
    )
    .toEqual(names.slice(3))
  expect((await store.readAfter('', 100)).map(({ sequence }) => sequence)).toEqual(
    Array.from({ length: 20 }, (_, index) => 31 + index),
  )
  expect(temporary.state.retention.fromMs()).toBe(START_MS + 3)
})

test('within its bytes and its days nothing is dropped', async () => {
  const stream = createSampleStream(AGENT)
  for (let hour = 0; hour < 3; hour += 1)
    await store.append(stream.batch(hour * 10 + 1, 10, START_MS + hour * HOUR_MS))
  expect(await apply(1024 ** 3)).toBe(0)
  expect(await apply(null)).toBe(0)
  expect(temporary.state.retention.fromMs()).toBeNull()
})
