import { spawn } from 'node:child_process'
import { appendFileSync, closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { findHolders, readProcess } from '../../platform/linux/proc.ts'
import type { Sensor, SensorRecord } from '../records.ts'
import { createFilePollingSensor } from './files.ts'
import { createPollingSensor } from './processes.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-polling-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

function start(sensor: Sensor) {
  const records: SensorRecord[] = []
  const stop = new AbortController()
  const attached = Promise.withResolvers<void>()
  const stopped = sensor.run((batch) => records.push(...batch), stop.signal, attached.resolve)
  return {
    records,
    attached: attached.promise,
    async stop() {
      stop.abort()
      await stopped
    },
  }
}

test('a process that lives across two looks is seen with its arguments, and so is its end', async () => {
  const sensor = start(createPollingSensor({ readProcess, clock: Date.now, intervalMs: 100 }))
  try {
    await sensor.attached
    const child = spawn('/bin/sleep', ['31.7'], { cwd: folder })
    const isChild = (record: SensorRecord) =>
      (record.kind === 'exec' || record.kind === 'exit') && record.process.pid === child.pid
    await vi.waitFor(() => expect(sensor.records.filter(isChild)).toHaveLength(1), 20_000)
    expect(sensor.records.find(isChild)).toMatchObject({
      kind: 'exec',
      arguments: ['/bin/sleep', '31.7'],
      workingDirectory: folder,
      parent: { pid: process.pid },
    })
    child.kill('SIGKILL')
    await vi.waitFor(() => expect(sensor.records.filter(isChild).at(-1)?.kind).toBe('exit'), 20_000)
  } finally {
    await sensor.stop()
  }
})

test('a pid that another process has at the next look is the end of one and the start of the other', async () => {
  const own = readProcess(process.pid)
  if (own === null) throw new Error('this process can be read')
  let startTicks = 100
  const sensor = start(
    createPollingSensor({
      readProcess: (pid) => ({ ...own, process: { pid, startTicks } }),
      clock: Date.now,
      intervalMs: 5,
      listPids: async () => [70],
      listConnections: async () => [],
    }),
  )
  try {
    await sensor.attached
    startTicks = 200
    await vi.waitFor(() => expect(sensor.records).toHaveLength(2), 10_000)
    expect(sensor.records).toMatchObject([
      { kind: 'exit', process: { pid: 70, startTicks: 100 } },
      { kind: 'exec', process: { pid: 70, startTicks: 200 } },
    ])
  } finally {
    await sensor.stop()
  }
})

test('an outbound connection is told with its process, the accepted side is not', async () => {
  const server = createServer(() => undefined)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const port = typeof address === 'object' && address ? address.port : 0
  const sensor = start(createPollingSensor({ readProcess, clock: Date.now, intervalMs: 100 }))
  try {
    await sensor.attached
    const socket = connect(port, '127.0.0.1')
    const found = () =>
      sensor.records.filter((record) => record.kind === 'connect' && record.destinationPort === port)
    await vi.waitFor(() => expect(found()).toHaveLength(1), 20_000)
    expect(found()[0]).toMatchObject({ process: { pid: process.pid }, destinationAddress: '127.0.0.1' })
    socket.destroy()
  } finally {
    await sensor.stop()
    server.close()
  }
})

test('a watched file is told with the process that holds it open, and own folders are left out', async () => {
  const own = join(folder, 'own')
  mkdirSync(own)
  const sensor = start(
    createFilePollingSensor({
      paths: [folder],
      ownFolders: [own],
      clock: Date.now,
      findHolders: (path) => findHolders(path, 4),
    }),
  )
  try {
    await sensor.attached
    const path = join(folder, 'dropped')
    const held = openSync(path, 'w')
    writeFileSync(join(own, 'secret'), 'x')
    await vi.waitFor(() => expect(sensor.records).toHaveLength(1), 10_000)
    expect(sensor.records[0]).toMatchObject({
      action: 'creation',
      path,
      pid: process.pid,
      attribution: 'open-descriptor',
      contentComplete: true,
    })
    closeSync(held)
    appendFileSync(path, 'more')
    await vi.waitFor(
      () => expect(sensor.records.at(-1)).toMatchObject({ action: 'modification', pid: null }),
      10_000,
    )
    rmSync(path)
    await vi.waitFor(() => expect(sensor.records.at(-1)).toMatchObject({ action: 'deletion' }), 10_000)
  } finally {
    await sensor.stop()
  }
})
