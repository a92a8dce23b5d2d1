import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, renameSync, rmdirSync, rmSync, unlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { loadBuiltAddon } from '../../native/testing/compile.ts'
import { createEbpfSensor } from '../ebpf/ebpf-sensor.ts'
import type { FileRecord, SensorRecord } from '../records.ts'
import { unmount } from '../testing/unmount.ts'
import { createFanotifySensor } from './fanotify-sensor.ts'

const asRoot = process.getuid?.() === 0

async function until(condition: () => boolean): Promise<void> {
  const deadlineMs = Date.now() + 10_000
  while (!condition()) {
    if (Date.now() > deadlineMs) throw new Error('nothing came within 10 s')
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

describe.skipIf(!asRoot)('the fanotify sensor, on a file system of its own', () => {
  if (!asRoot) return
  const native = loadBuiltAddon()
  const mountPoint = mkdtempSync(join(tmpdir(), 'cordon-fanotify-'))
  let stop = new AbortController()
  let records: SensorRecord[] = []
  let ended = Promise.resolve()
  const excludedPids = new Set<number>()
  const at = (name: string) => join(mountPoint, name)

  beforeAll(() => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64m', 'cordon-test', mountPoint])
  })
  afterAll(() => {
    unmount(mountPoint)
    rmdirSync(mountPoint)
  })
  beforeEach(async () => {
    await start()
  })
  afterEach(async () => {
    stop.abort()
    await ended
    excludedPids.clear()
  })

  /** Starts a sensor in place of the one before. */
  async function start(
    mountPoints: readonly string[] = [mountPoint],
    drainIntervalMs = 5,
    waitingEventsMax = 200_000,
  ) {
    stop.abort()
    await ended
    stop = new AbortController()
    records = []
    const sensor = createFanotifySensor({
      native,
      listMountPoints: () => mountPoints,
      drainIntervalMs,
      waitingEventsMax,
      excludedPids,
      rescanIntervalMs: 50,
    })
    ended = sensor.run(
      (batch) => records.push(...batch),
      stop.signal,
      () => undefined,
    )
    return sensor
  }

  const files = () => records.filter((record): record is FileRecord => record.kind === 'file')
  const short = (record: FileRecord) => [
    record.action,
    record.path,
    record.previousPath,
    record.contentComplete,
  ]

  /** Stops the sensor, which fetches what is left, and gives what it told. */
  async function finish(): Promise<FileRecord[]> {
    stop.abort()
    await ended
    return files()
  }

  test('the program that wrote a file is known before the file is told, however seldom processes are fetched', async () => {
    stop.abort()
    await ended
    stop = new AbortController()
    records = []
    const sink = (batch: readonly SensorRecord[]) => {
      records.push(...batch)
    }
    const processes = createEbpfSensor({ native, drainIntervalMs: 3_600_000 })
    const sensor = createFanotifySensor({
      native,
      listMountPoints: () => [mountPoint],
      drainIntervalMs: 5,
      beforeHandingUp: processes.drainNow,
    })
    const runBoth = [processes, sensor].map((each) => each.run(sink, stop.signal, () => undefined))
    ended = Promise.all(runBoth).then(() => undefined)
    const { pid } = spawnSync('/bin/sh', ['-c', 'echo content > "$0"', at('told')])
    await until(() => files().length > 0)
    const order = records.flatMap((record) => {
      if (record.kind === 'exec' && record.process.pid === pid) return ['exec']
      return record.kind === 'file' && record.pid === pid ? ['file'] : []
    })
    expect(order).toEqual(['exec', 'file'])
  })

  test('a file that one process creates, writes and closes is one creation with its content complete', async () => {
    writeFileSync(at('new'), 'content')
    const told = await finish()
    expect(told.map(short)).toEqual([['creation', at('new'), null, true]])
    expect(told[0]).toMatchObject({ kind: 'file', pid: process.pid, timestampMs: expect.any(Number) })
  })

  test('a later write is a modification, told with the pid of the writer', async () => {
    writeFileSync(at('old'), 'content')
    await until(() => files().length === 1)
    const writer = spawnSync('/bin/sh', ['-c', `echo more >> ${at('old')}; echo $$`], { encoding: 'utf8' })
    const told = await finish()
    expect(told.slice(1).map(short)).toEqual([['modification', at('old'), null, true]])
    expect(told[1]?.pid).toBe(Number(writer.stdout))
  })

  test('a rename tells both paths, also across folders, and a folder that is renamed is told', async () => {
    mkdirSync(at('from'))
    mkdirSync(at('to'))
    writeFileSync(at('from/a'), '')
    await until(() => files().length === 1)
    renameSync(at('from/a'), at('to/b'))
    await until(() => files().length === 2)
    renameSync(at('to'), at('moved'))
    await until(() => files().length === 3)
    unlinkSync(at('moved/b'))
    const told = await finish()
    expect(told.slice(1).map(short)).toEqual([
      ['rename', at('to/b'), at('from/a'), false],
      ['rename', at('moved'), at('to'), false],
      ['deletion', at('moved/b'), null, false],
    ])
  })

  test('names that are not UTF-8, or hold a newline, keep what they are', async () => {
    const name = Buffer.concat([Buffer.from(at('caf')), Buffer.from([0xe9])])
    writeFileSync(name, '')
    writeFileSync(at('a\nb'), '')
    writeFileSync(at('naïve'), '')
    const told = await finish()
    expect(told.map((record) => record.path)).toEqual([new Uint8Array(name), at('a\nb'), at('naïve')])
  })

  test('a file that is made and removed at once is a creation and then a deletion', async () => {
    await start([mountPoint], 60_000)
    writeFileSync(at('brief'), 'x')
    unlinkSync(at('brief'))
    expect((await finish()).map(short)).toEqual([
      ['creation', at('brief'), null, true],
      ['deletion', at('brief'), null, false],
    ])
  })

  test('files of a tree that was removed since are told with the paths they had', async () => {
    mkdirSync(at('tree/inner'), { recursive: true })
    writeFileSync(at('tree/inner/a'), '')
    await until(() => files().length === 1)
    rmSync(at('tree'), { recursive: true })
    const told = await finish()
    expect(told.slice(1).map(short)).toEqual([['deletion', at('tree/inner/a'), null, false]])
  })

  test('events in a folder that was never seen and is gone are counted as lost', async () => {
    await start([mountPoint], 60_000)
    mkdirSync(at('passing'))
    writeFileSync(at('passing/a'), '')
    rmSync(at('passing'), { recursive: true })
    expect(await finish()).toEqual([])
    expect(records).toMatchObject([
      {
        kind: 'loss',
        source: 'fanotify:folder-gone',
        count: 2,
        actions: { 'file-created': 1, 'file-deleted': 1 },
      },
    ])
  })

  test('the processes of the live set are left out', async () => {
    excludedPids.add(process.pid)
    writeFileSync(at('own'), '')
    spawnSync('/bin/touch', [at('other')])
    expect((await finish()).map((record) => record.path)).toEqual([at('other')])
  })

  test('what the kernel does not let the agent watch is listed with the reason', async () => {
    const sensor = await start([mountPoint, '/proc', '/no/such/folder'])
    expect(sensor.watchedMountPoints()).toEqual([mountPoint])
    expect(sensor.refusedMounts().map((refused) => refused.mountPoint)).toEqual(['/proc', '/no/such/folder'])
    expect(sensor.refusedMounts()[1]?.reason).toContain('ENOENT')
  })

  test('a file system that is mounted later is watched, and watching keeps none from being unmounted', async () => {
    const inner = at('inner')
    mkdirSync(inner)
    const mountPoints = [mountPoint]
    const sensor = await start(mountPoints)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'cordon-test', inner])
    mountPoints.push(inner)
    await until(() => sensor.watchedMountPoints().includes(inner))
    writeFileSync(join(inner, 'file'), '')
    await until(() => files().length === 1)
    unmount(inner)
    mountPoints.pop()
    await until(() => !sensor.watchedMountPoints().includes(inner))
    expect(files().map((record) => record.path)).toEqual([join(inner, 'file')])
  })
})
