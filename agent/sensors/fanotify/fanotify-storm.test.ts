import { execFileSync } from 'node:child_process'
import {
  closeSync,
  constants,
  mkdirSync,
  mkdtempSync,
  openSync,
  renameSync,
  rmdirSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { loadBuiltAddon } from '../../native/testing/compile.ts'
import type { SensorRecord } from '../records.ts'
import { unmount } from '../testing/unmount.ts'
import { createFanotifySensor } from './fanotify-sensor.ts'

const asRoot = process.geteuid?.() === 0

describe.skipIf(!asRoot)('more file events than are fetched', () => {
  if (!asRoot) return
  const native = loadBuiltAddon()
  const mountPoint = mkdtempSync(join(tmpdir(), 'cordon-storm-'))
  const at = (name: string) => join(mountPoint, name)
  const pids = new Set<number>()

  beforeAll(() => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=512m,nr_inodes=0', 'cordon-test', mountPoint])
  })
  afterAll(() => {
    unmount(mountPoint)
    rmdirSync(mountPoint)
  })

  /** Counts what was told and what was lost, by action, of what `act` does while nothing is fetched. */
  async function countsOf(act: () => void, waitingEventsMax: number, stalledMs = 0) {
    const told: Record<string, number> = {}
    const lost: Record<string, number> = {}
    let uncounted = 0
    const stop = new AbortController()
    const sensor = createFanotifySensor({
      native,
      listMountPoints: () => [mountPoint],
      drainIntervalMs: 3_600_000,
      waitingEventsMax,
      excludedPids: pids,
    })
    const add = (counts: Record<string, number>, action: string, count: number) => {
      counts[action] = (counts[action] ?? 0) + count
    }
    const count = (record: SensorRecord) => {
      if (record.kind === 'file') add(told, record.action, 1)
      if (record.kind !== 'loss') return
      if (record.count === null) uncounted += 1
      const actions = Object.entries(record.actions ?? {})
      expect(actions.reduce((sum, [, each]) => sum + each, 0)).toBe(record.count)
      for (const [action, each] of actions) add(lost, action, each)
    }
    const ended = sensor.run(
      (batch) => batch.forEach(count),
      stop.signal,
      () => undefined,
    )
    act()
    // The main thread stands still, as a long garbage collection would have it.
    if (stalledMs > 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, stalledMs)
    stop.abort()
    await ended
    return { told, lost, uncounted }
  }

  const files = 60_000
  const name = (index: number) => at(`storm/${index}`)
  /**
   * Each phase over all files, so that the kernel has nothing near that it could merge; and made without writing,
   * because the end of that is merged with the making only as long as nobody has read in between.
   */
  function createWriteDelete() {
    mkdirSync(at('storm'))
    for (let index = 0; index < files; index++)
      closeSync(openSync(name(index), constants.O_CREAT | constants.O_RDONLY))
    for (let index = 0; index < files; index++) writeFileSync(name(index), 'content')
    for (let index = 0; index < files; index++) unlinkSync(name(index))
  }

  test('60,000 files made, written and deleted while nothing is fetched are all told', async () => {
    const { told, lost, uncounted } = await countsOf(createWriteDelete, 1_000_000)
    expect({ told, lost, uncounted }).toEqual({
      told: { creation: files, modification: files, deletion: files },
      lost: {},
      uncounted: 0,
    })
    rmSync(at('storm'), { recursive: true })
  })

  test('what does not fit is counted to the unit, by kind', async () => {
    const { told, lost, uncounted } = await countsOf(createWriteDelete, 50_000)
    const sum = {
      creation: (told['creation'] ?? 0) + (lost['file-created'] ?? 0),
      modification: (told['modification'] ?? 0) + (lost['file-modified'] ?? 0),
      deletion: (told['deletion'] ?? 0) + (lost['file-deleted'] ?? 0),
    }
    expect(sum).toEqual({ creation: files, modification: files, deletion: files })
    expect(uncounted).toBe(0)
    expect(lost['file-created']).toBe(files)
    expect(told['deletion']).toBeGreaterThan(40_000)
    rmSync(at('storm'), { recursive: true })
  })

  test('merged events, renames and folders are counted as they would have been told', async () => {
    const act = () => {
      mkdirSync(at('mixed'))
      for (let index = 0; index < 2_000; index++) {
        writeFileSync(at(`mixed/${index}`), 'x')
        renameSync(at(`mixed/${index}`), at(`mixed/${index}-new`))
        unlinkSync(at(`mixed/${index}-new`))
        mkdirSync(at(`mixed/folder-${index}`))
        renameSync(at(`mixed/folder-${index}`), at(`mixed/moved-${index}`))
        rmdirSync(at(`mixed/moved-${index}`))
      }
    }
    const { told, lost } = await countsOf(act, 1)
    const sum = (action: string, event: string) => (told[action] ?? 0) + (lost[event] ?? 0)
    expect(sum('creation', 'file-created')).toBe(2_000)
    expect(sum('rename', 'file-renamed')).toBe(4_000)
    expect(sum('deletion', 'file-deleted')).toBe(2_000)
    expect(sum('modification', 'file-modified')).toBe(0)
    rmSync(at('mixed'), { recursive: true })
  })

  test('the bound holds while the main thread stands still, and the count is still exact', async () => {
    const act = () => {
      mkdirSync(at('stalled'))
      for (let index = 0; index < 30_000; index++) writeFileSync(at(`stalled/${index}`), '')
    }
    const { told, lost } = await countsOf(act, 1_000, 2_500)
    expect((told['creation'] ?? 0) + (lost['file-created'] ?? 0)).toBe(30_000)
    expect(told['creation']).toBeLessThanOrEqual(1_000)
    rmSync(at('stalled'), { recursive: true })
  })

  test('what is left out anyway is not counted as lost', async () => {
    pids.add(process.pid)
    const { told, lost } = await countsOf(() => {
      for (let index = 0; index < 1_000; index++) writeFileSync(at(`own-${index}`), '')
    }, 10)
    pids.clear()
    expect({ told, lost }).toEqual({ told: {}, lost: {} })
  })
})
