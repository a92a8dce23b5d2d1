import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, unlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import fc from 'fast-check'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createSilentLogger } from '../../shared/node/logger.ts'
import { type BufferOptions, type EventBuffer, openBuffer } from './buffer.ts'
import { bufferBytesMax, planSpace, reservedBytesFor } from './size.ts'
import { eventOfClass, execEvent, fileEvent, stoppedEvent } from './testing/sample-events.ts'
import { verifyBuffer } from './verify.ts'

const KILOBYTE = 1024
const MEGABYTE = 1024 ** 2
let folder: string
let path: string
const opened: EventBuffer[] = []

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-buffer-full-'))
  path = join(folder, 'buffer.db')
})
afterEach(() => {
  for (const buffer of opened.splice(0)) buffer.close()
  rmSync(folder, { recursive: true, force: true })
})

function open(bytesMax: number, options: Partial<BufferOptions> = {}): EventBuffer {
  const buffer = openBuffer({
    path,
    bytesMax,
    reservedBytes: reservedBytesFor(bytesMax),
    logger: createSilentLogger(),
    groupMs: 60_000,
    ...options,
  })
  opened.push(buffer)
  return buffer
}

interface GapBody {
  readonly 'cordon.gap.class': number
  readonly 'cordon.gap.from'?: number
  readonly 'cordon.gap.to'?: number
  readonly 'cordon.gap.count': number | null
  readonly 'cordon.gap.bytes': number | null
  readonly 'event.reason': string
}

/** What a closed buffer file says of each class. */
function accountOf(file: string) {
  const db = new Database(file, { readonly: true })
  try {
    const gaps = db
      .prepare<[], { body: string }>(
        `SELECT body FROM class_0 WHERE json_extract(body, '$."event.action"') = 'gap'`,
      )
      .all()
      .map(({ body }) => JSON.parse(body) as GapBody)
    const classes = [0, 1, 2, 3].map((eventClass) => ({
      present: db
        .prepare<[], number>(`SELECT sequence FROM class_${eventClass} ORDER BY sequence`)
        .pluck()
        .all(),
      last: Number(db.prepare('SELECT next_sequence - 1 FROM class WHERE class = ?').pluck().get(eventClass)),
      gaps: gaps.filter((gap) => gap['cordon.gap.class'] === eventClass),
    }))
    return { classes, gaps }
  } finally {
    db.close()
  }
}

function diskBytes(): number {
  return ['', '-wal', '.reserve'].reduce(
    (sum, suffix) => sum + (statSync(path + suffix, { throwIfNoEntry: false })?.size ?? 0),
    0,
  )
}

test('the cap is a twentieth of the free space, within bounds', () => {
  expect(bufferBytesMax(100 * 1024 ** 3)).toBe(1024 ** 3)
  expect(bufferBytesMax(10 * 1024 ** 3)).toBe(Math.floor(10 * 1024 ** 3 * 0.05))
  expect(bufferBytesMax(0)).toBe(8 * MEGABYTE)
  const plan = planSpace(64 * MEGABYTE, reservedBytesFor(64 * MEGABYTE))
  expect(plan.criticalBytes - plan.ordinaryBytes).toBe(8 * MEGABYTE)
})

test('a full buffer drops activity first, then processes, keeps class 0, and stays within its cap', () => {
  const bytesMax = MEGABYTE
  const buffer = open(bytesMax)
  for (let index = 0; index < 1_500; index += 1) {
    buffer.add(fileEvent(index))
    if (index % 50 === 0) buffer.add(stoppedEvent(index))
  }
  buffer.flush()
  expect(buffer.stats().droppedRows).toBe(0)
  for (let index = 0; index < 1_600; index += 1) buffer.add(execEvent(index))
  buffer.flush()
  const [, , processes, activity] = buffer.watermarks()
  expect(processes).toMatchObject({ first: 1, last: 1_600 })
  expect(activity?.first).toBeGreaterThan(1)
  for (let index = 1_600; index < 6_000; index += 1) buffer.add(execEvent(index))
  buffer.flush()
  expect(diskBytes()).toBeLessThanOrEqual(bytesMax)
  const after = buffer.watermarks()
  expect(after[3]).toMatchObject({ first: 1_501, last: 1_500 })
  expect(after[2]?.first).toBeGreaterThan(1)
  expect(after[0]?.first).toBe(1)
  // Activity finds no room among processes, and never pushes one out.
  for (let index = 0; index < 1_000; index += 1) buffer.add(fileEvent(index))
  buffer.flush()
  expect(buffer.watermarks()[2]?.first).toBe(after[2]?.first)
  buffer.close()
  const account = accountOf(path)
  expect(account.classes[0]?.present.length).toBe(account.classes[0]?.last)
  const activityGaps = account.classes[3]?.gaps ?? []
  const unnumbered = activityGaps.find((gap) => gap['cordon.gap.from'] === undefined)
  const numbered = activityGaps.filter((gap) => gap['cordon.gap.from'] !== undefined)
  expect(numbered.length).toBe(1)
  expect(numbered[0]).toMatchObject({ 'cordon.gap.from': 1 })
  const kept = account.classes[3]?.present.length ?? 0
  const lost = (unnumbered?.['cordon.gap.count'] ?? 0) + (numbered[0]?.['cordon.gap.count'] ?? 0)
  expect(unnumbered?.['cordon.gap.count']).toBeGreaterThan(0)
  expect(kept + lost).toBe(2_500)
  // Thousands of drops over hundreds of commits are one gap event.
  expect(account.classes[2]?.gaps.length).toBe(1)
  expect(verifyBuffer(path)).toMatchObject({ kind: 'whole' })
})

test('delivered rows stay until a quarter of the cap needs their room, and leave without a gap', () => {
  const buffer = open(2 * MEGABYTE)
  for (let index = 0; index < 20_000; index += 1) {
    buffer.add(execEvent(index))
    if (index % 100 === 99) {
      buffer.flush()
      const lease = buffer.lease(2, 500, 256 * KILOBYTE)
      if (lease) buffer.acknowledge(2, lease.lastSequence)
    }
  }
  expect(buffer.watermarks()[2]).toEqual({ class: 2, first: 20_001, last: 20_000, acknowledged: 20_000 })
  const oldest = accountOf(path).classes[2]?.present[0] ?? 0
  expect(oldest).toBeGreaterThan(1)
  // Something is kept for a controller that was restored from a backup.
  expect(20_000 - oldest).toBeGreaterThan(500)
  expect(statSync(path).size).toBeLessThan(MEGABYTE)
  // A controller that lost what the buffer retired is told exactly what.
  buffer.resume([{ class: 2, sequence: 10 }])
  expect(buffer.lease(2, 1, 256 * KILOBYTE)?.firstSequence).toBe(oldest)
  buffer.close()
  expect(accountOf(path).gaps).toEqual([
    expect.objectContaining({ 'cordon.gap.from': 11, 'cordon.gap.to': oldest - 1 }),
  ])
})

test('rows on their way are not dropped, so nothing is both delivered and told as lost', () => {
  const buffer = open(512 * KILOBYTE)
  for (let index = 0; index < 100; index += 1) buffer.add(fileEvent(index))
  buffer.flush()
  const lease = buffer.lease(3, 50, 256 * KILOBYTE)
  for (let index = 100; index < 4_000; index += 1) buffer.add(fileEvent(index))
  buffer.flush()
  expect(buffer.watermarks()[3]?.first).toBe(1)
  const next = buffer.lease(3, 500, 256 * KILOBYTE)
  expect(next?.firstSequence).toBeGreaterThan(51)
  buffer.rollback()
  const again = buffer.lease(3, 500, 256 * KILOBYTE)
  expect(again).toMatchObject({ firstSequence: lease?.firstSequence, lastSequence: lease?.lastSequence })
  // The drop is a row of class 0 before the rows behind it can be leased.
  buffer.close()
  expect(accountOf(path).classes[3]?.gaps).toEqual([
    expect.objectContaining({ 'cordon.gap.from': 51, 'cordon.gap.to': (next?.firstSequence ?? 0) - 1 }),
  ])
})

type Step =
  | { readonly kind: 'add'; readonly class: number; readonly count: number }
  | { readonly kind: 'lease'; readonly class: number; readonly rows: number }
  | { readonly kind: 'acknowledge' | 'rollback' | 'flush' | 'restart' }

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('add' as const),
      class: fc.integer({ min: 0, max: 3 }),
      count: fc.integer({ min: 1, max: 600 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('lease' as const),
      class: fc.integer({ min: 0, max: 3 }),
      rows: fc.integer({ min: 1, max: 500 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('acknowledge' as const) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constantFrom('rollback' as const, 'flush' as const, 'restart' as const),
    }),
  },
)

test('whatever happens, sequences are delivered or present or in a gap, and all that was made is counted', () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 5, maxLength: 30 }), (steps) => {
      const scene = mkdtempSync(join(folder, 'scene-'))
      runScene(join(scene, 'buffer.db'), steps)
      rmSync(scene, { recursive: true, force: true })
    }),
    { numRuns: 25 },
  )
})

function runScene(file: string, steps: readonly Step[]): void {
  const options = {
    path: file,
    bytesMax: 512 * KILOBYTE,
    reservedBytes: 64 * KILOBYTE,
    logger: createSilentLogger(),
    groupMs: 60_000,
  }
  let buffer = openBuffer(options)
  const made = [0, 0, 0, 0]
  const delivered = [0, 1, 2, 3].map(() => new Set<number>())
  const deliveredGaps: GapBody[] = []
  let inFlight: { class: number; first: number; last: number; bodies: readonly Buffer[] }[] = []
  let index = 0
  for (const { kind, ...rest } of steps) {
    if (kind === 'add' && 'count' in rest) {
      // Class 0 is never dropped, so a scene makes little of it.
      const count = rest.class === 0 ? Math.ceil(rest.count / 20) : rest.count
      for (let added = 0; added < count; added += 1) buffer.add(eventOfClass(rest.class, index++))
      made[rest.class] = (made[rest.class] ?? 0) + count
    } else if (kind === 'lease' && 'rows' in rest) {
      const lease = buffer.lease(rest.class as 0, rest.rows, 256 * KILOBYTE)
      if (lease) {
        expect(lease.bodies.length).toBe(lease.lastSequence - lease.firstSequence + 1)
        const { firstSequence: first, lastSequence: last, bodies } = lease
        inFlight.push({ class: rest.class, first, last, bodies })
      }
    } else if (kind === 'acknowledge') {
      const batch = inFlight.shift()
      if (!batch) continue
      buffer.acknowledge(batch.class as 0, batch.last)
      deliveredGaps.push(...gapsIn(batch.bodies))
      for (let sequence = batch.first; sequence <= batch.last; sequence += 1)
        delivered[batch.class]?.add(sequence)
    } else if (kind === 'flush') {
      buffer.flush()
    } else {
      inFlight = []
      if (kind === 'rollback') buffer.rollback()
      else {
        buffer.close()
        buffer = openBuffer(options)
      }
    }
  }
  buffer.close()
  const account = accountOf(file)
  // Delivered gap events may have been retired since, and replayed ones are in both lists.
  const allGaps = [
    ...new Map([...deliveredGaps, ...account.gaps].map((gap) => [JSON.stringify(gap), gap])).values(),
  ]
  for (const eventClass of [0, 1, 2, 3]) {
    const { present, last } = account.classes[eventClass] ?? { present: [], last: 0 }
    const gaps = allGaps.filter((gap) => gap['cordon.gap.class'] === eventClass)
    const lost = new Set<number>()
    let unnumbered = 0
    for (const gap of gaps) {
      const { 'cordon.gap.from': from, 'cordon.gap.to': to, 'cordon.gap.count': count } = gap
      if (from === undefined || to === undefined) unnumbered += count ?? 0
      else {
        expect(count).toBe(to - from + 1)
        for (let sequence = from; sequence <= to; sequence += 1) {
          expect(lost.has(sequence)).toBe(false)
          lost.add(sequence)
        }
      }
    }
    const here = new Set(present)
    for (let sequence = 1; sequence <= last; sequence += 1) {
      const ways = [lost.has(sequence), delivered[eventClass]?.has(sequence) || here.has(sequence)]
      expect(ways.filter(Boolean).length).toBe(1)
    }
    const own = eventClass === 0 ? allGaps.length : 0
    expect(last - own + unnumbered).toBe(made[eventClass])
  }
  expect(verifyBuffer(file)).toMatchObject({ kind: 'whole' })
  const bytes = ['', '-wal'].reduce(
    (sum, suffix) => sum + (statSync(file + suffix, { throwIfNoEntry: false })?.size ?? 0),
    0,
  )
  expect(bytes).toBeLessThanOrEqual(512 * KILOBYTE)
}

function gapsIn(bodies: readonly Buffer[]): GapBody[] {
  return bodies
    .map((body) => JSON.parse(body.toString()) as GapBody & { readonly 'event.action': string })
    .filter((body) => body['event.action'] === 'gap')
}

test('memory for events that wait is bounded, and the least worthy go first', () => {
  // A folder in the place of the file: nothing can be opened.
  mkdirSync(path)
  const buffer = open(MEGABYTE, { pendingRowsMax: 100, retryMs: 60_000 })
  expect(buffer.stats().trouble?.reason).toMatch(/unable to open|not a file|directory/i)
  for (let index = 0; index < 1_000; index += 1) buffer.add(fileEvent(index))
  for (let index = 0; index < 90; index += 1) buffer.add(stoppedEvent(index))
  expect(buffer.stats().pendingRows).toBeLessThanOrEqual(100)
  rmSync(path, { recursive: true })
  buffer.flush()
  expect(buffer.stats().trouble).toBeNull()
  buffer.close()
  const account = accountOf(path)
  const activity = account.classes[3]
  expect(account.classes[0]?.last).toBe(90 + account.gaps.length)
  expect((activity?.last ?? 0) + (activity?.gaps[0]?.['cordon.gap.count'] ?? 0)).toBe(1_000)
})

const asRoot = process.getuid?.() === 0

test.skipIf(!asRoot)(
  'on a full disk class 0 is still written, nothing throws, and it recovers with exact gaps',
  () => {
    const disk = join(folder, 'disk')
    mkdirSync(disk)
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=6m', 'tmpfs', disk])
    expect(mounted.status).toBe(0)
    try {
      path = join(disk, 'buffer.db')
      const buffer = open(16 * MEGABYTE, { reservedBytes: MEGABYTE, retryMs: 60_000 })
      for (let index = 0; index < 500; index += 1) buffer.add(execEvent(index))
      buffer.flush()
      const filler = join(disk, 'filler')
      fillDisk(filler)
      const criticalBefore = buffer.watermarks()[0]?.last ?? 0
      for (let index = 500; index < 8_000; index += 1) {
        buffer.add(index % 10 === 0 ? execEvent(index) : fileEvent(index))
        if (index % 250 === 0) fillDisk(filler)
      }
      expect(buffer.stats().trouble?.reason).toMatch(/full/)
      for (let index = 0; index < 300; index += 1) {
        buffer.add(stoppedEvent(index))
        buffer.flush()
      }
      expect((buffer.watermarks()[0]?.last ?? 0) - criticalBefore).toBeGreaterThanOrEqual(300)
      unlinkSync(filler)
      buffer.flush()
      expect(buffer.stats().trouble).toBeNull()
      buffer.close()
      const account = accountOf(path)
      const numbered = (eventClass: number) => account.classes[eventClass]?.last ?? 0
      const unnumbered = (eventClass: number) =>
        (account.classes[eventClass]?.gaps ?? [])
          .filter((gap) => gap['cordon.gap.from'] === undefined)
          .reduce((sum, gap) => sum + (gap['cordon.gap.count'] ?? 0), 0)
      expect(numbered(2) + unnumbered(2)).toBe(500 + 750)
      expect(numbered(3) + unnumbered(3)).toBe(7_500 - 750)
      expect(numbered(0)).toBe(300 + account.gaps.length)
      expect(verifyBuffer(path)).toMatchObject({ kind: 'whole' })
    } finally {
      for (const buffer of opened.splice(0)) buffer.close()
      spawnSync('umount', ['-l', disk])
    }
  },
)

test.skipIf(!asRoot)('an agent that starts on a full disk lives, and writes once there is room', () => {
  const disk = join(folder, 'disk')
  mkdirSync(disk)
  expect(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', disk]).status).toBe(0)
  try {
    path = join(disk, 'buffer.db')
    const filler = join(disk, 'filler')
    fillDisk(filler)
    const buffer = open(8 * MEGABYTE, { reservedBytes: MEGABYTE, retryMs: 60_000 })
    expect(buffer.stats().trouble).not.toBeNull()
    for (let index = 0; index < 50; index += 1) buffer.add(stoppedEvent(index))
    unlinkSync(filler)
    buffer.flush()
    expect(buffer.stats()).toMatchObject({ trouble: null, pendingRows: 0 })
    expect(buffer.watermarks()[0]?.last).toBe(50)
  } finally {
    for (const buffer of opened.splice(0)) buffer.close()
    spawnSync('umount', ['-l', disk])
  }
})

function fillDisk(file: string): void {
  for (let size = 256 * KILOBYTE; size >= 1; size = Math.floor(size / 4)) {
    try {
      for (;;) writeFileSync(file, Buffer.alloc(size), { flag: 'a' })
    } catch {
      // Smaller pieces until not a byte is left.
    }
  }
}

test('a reader who holds the log for long does not make the files outgrow their cap for good', () => {
  const bytesMax = MEGABYTE
  const buffer = open(bytesMax)
  buffer.add(stoppedEvent(0))
  const reader = new Database(path, { readonly: true })
  reader.exec('BEGIN')
  reader.prepare('SELECT count(*) FROM class_0').get()
  for (let index = 0; index < 8_000; index += 1) {
    buffer.add(fileEvent(index))
    if (index % 50 === 0) buffer.flush()
  }
  expect(diskBytes()).toBeLessThan(2 * bytesMax)
  reader.exec('COMMIT')
  reader.close()
  for (let index = 0; index < 200; index += 1) buffer.add(fileEvent(index))
  buffer.flush()
  buffer.add(stoppedEvent(1))
  expect(diskBytes()).toBeLessThanOrEqual(bytesMax)
  buffer.close()
  const activity = accountOf(path).classes[3]
  const lostUnnumbered = (activity?.gaps ?? [])
    .filter((gap) => gap['cordon.gap.from'] === undefined)
    .reduce((sum, gap) => sum + (gap['cordon.gap.count'] ?? 0), 0)
  expect((activity?.last ?? 0) + lostUnnumbered).toBe(8_200)
  expect(readFileSync(path).length).toBeLessThanOrEqual(bytesMax)
})
