import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest'
import { loadBuiltAddon } from '../../native/testing/compile.ts'
import type { FileRecord, SensorRecord } from '../records.ts'
import { unmount } from '../testing/unmount.ts'
import { createFanotifySensor } from './fanotify-sensor.ts'

const asRoot = process.geteuid?.() === 0

async function until(condition: () => boolean): Promise<void> {
  const deadlineMs = Date.now() + 10_000
  while (!condition()) {
    if (Date.now() > deadlineMs) throw new Error('nothing came within 10 s')
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

describe.skipIf(!asRoot)('file systems that come, change and go', () => {
  if (!asRoot) return
  const native = loadBuiltAddon()
  const mountPoint = mkdtempSync(join(tmpdir(), 'cordon-mounts-'))
  const at = (name: string) => join(mountPoint, name)
  const records: SensorRecord[] = []
  let stop = new AbortController()
  let ended = Promise.resolve()
  /** Called with each batch, at a time when the sensor is in the middle of its work. */
  let onBatch: () => void = () => undefined

  const mount = () => execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16m', 'cordon-test', mountPoint])
  const files = () => records.filter((record): record is FileRecord => record.kind === 'file')

  function start(drainIntervalMs = 5) {
    stop = new AbortController()
    const sensor = createFanotifySensor({
      native,
      listMountPoints: () => [mountPoint],
      drainIntervalMs,
      rescanIntervalMs: 50,
    })
    ended = sensor.run(
      (batch) => {
        records.push(...batch)
        onBatch()
      },
      stop.signal,
      () => undefined,
    )
    return sensor
  }

  beforeEach(() => {
    mount()
    records.length = 0
    onBatch = () => undefined
  })
  afterEach(async () => {
    stop.abort()
    await ended
    spawnSync('umount', ['-q', mountPoint])
  })

  afterAll(() => rmdirSync(mountPoint))

  test('whatever the sensor is doing, it leaves no descriptor open on what it watches', async () => {
    const held = new Set<string>()
    let batches = 0
    onBatch = () => {
      batches += 1
      for (const descriptor of readdirSync('/proc/self/fd')) {
        const link = (() => {
          try {
            return readlinkSync(`/proc/self/fd/${descriptor}`)
          } catch {
            return ''
          }
        })()
        if (link.startsWith(mountPoint)) held.add(link)
      }
    }
    start()
    for (let index = 0; index < 50; index++) {
      mkdirSync(at(`folder-${index}`))
      writeFileSync(at(`folder-${index}/file`), '')
    }
    await until(() => files().length === 50)
    expect(batches).toBeGreaterThan(0)
    expect([...held]).toEqual([])
    // The same in the kernel's words.
    unmount(mountPoint)
  })

  test('a file system that is gone before its events are fetched costs their paths, and they are counted', async () => {
    start(3_600_000)
    for (let index = 0; index < 100; index++) writeFileSync(at(`${index}`), '')
    rmSync(at('0'))
    unmount(mountPoint)
    stop.abort()
    await ended
    expect(records).toMatchObject([
      {
        kind: 'loss',
        source: 'fanotify:folder-gone',
        count: 101,
        actions: { 'file-created': 100, 'file-deleted': 1 },
      },
    ])
  })

  test('a file system that is mounted anew with other options is watched on', async () => {
    start()
    execFileSync('mount', ['-o', 'remount,ro', mountPoint])
    execFileSync('mount', ['-o', 'remount,rw', mountPoint])
    writeFileSync(at('after'), '')
    await until(() => files().length === 1)
    expect(files()).toMatchObject([{ action: 'creation', path: at('after') }])
  })

  test('another file system in the place of one that went is watched without being told of', async () => {
    const sensor = start()
    writeFileSync(at('before'), '')
    await until(() => files().length === 1)
    unmount(mountPoint)
    mount()
    sensor.rescan()
    await new Promise((resolve) => setTimeout(resolve, 300))
    writeFileSync(at('after'), '')
    await until(() => files().length === 2)
    expect(files().map(({ path }) => path)).toEqual([at('before'), at('after')])
    expect(sensor.refusedMounts()).toEqual([])
  })

  test('the folder itself can be removed once nothing is mounted there', async () => {
    start()
    writeFileSync(at('file'), '')
    await until(() => files().length === 1)
    unmount(mountPoint)
    rmdirSync(mountPoint)
    mkdirSync(mountPoint)
    expect(readdirSync(mountPoint)).toEqual([])
  })
})
