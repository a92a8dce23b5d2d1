import { execFileSync } from 'node:child_process'
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import type { LogonRecord, SensorRecord } from '../records.ts'
import { createLogonFilesSensor, probeLogonFiles } from './logon-files-sensor.ts'
import { createLogonMerge } from './logon-merge.ts'

const NOW_MS = 1_700_000_000_000

interface Row {
  readonly type: number
  readonly line?: string
  readonly user?: string | Buffer
  readonly host?: string
  readonly address?: readonly number[]
}

/** As login(1) and sshd(8) write them. */
function row({ type, line = '', user = '', host = '', address = [] }: Row): Buffer {
  const bytes = Buffer.alloc(384)
  bytes.writeInt16LE(type, 0)
  bytes.writeInt32LE(77, 4)
  bytes.write(line, 8, 32)
  Buffer.from(user).copy(bytes, 44, 0, 32)
  bytes.write(host, 76, 256)
  bytes.writeInt32LE(NOW_MS / 1_000, 340)
  Buffer.from(address).copy(bytes, 348)
  return bytes
}

let folder: string
let btmpPath: string
let wtmpPath: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-logons-'))
  btmpPath = join(folder, 'btmp')
  wtmpPath = join(folder, 'wtmp')
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

async function start() {
  const records: SensorRecord[] = []
  const stop = new AbortController()
  const attached = Promise.withResolvers<void>()
  const sensor = createLogonFilesSensor({
    clock: () => NOW_MS,
    btmpPath,
    wtmpPath,
    pollIntervalMs: 20,
    architecture: 'x64',
  })
  const ended = sensor.run((batch) => records.push(...batch), stop.signal, attached.resolve)
  await attached.promise
  return {
    sensor,
    records,
    until: (count: number) => vi.waitFor(() => expect(records).toHaveLength(count), 5_000),
    async stop() {
      stop.abort()
      await ended
      return records
    },
  }
}

test('failed logons and sessions are told with whose they are, and what stood there before is not', async () => {
  writeFileSync(btmpPath, row({ type: 6, user: 'old' }))
  writeFileSync(wtmpPath, row({ type: 7, line: 'pts/9', user: 'early', host: 'there' }))
  const files = await start()
  appendFileSync(btmpPath, row({ type: 6, line: 'ssh:notty', user: 'root', address: [192, 0, 2, 7] }))
  await files.until(1)
  appendFileSync(wtmpPath, row({ type: 7, line: 'pts/0', user: 'alice', host: 'host.example' }))
  appendFileSync(wtmpPath, row({ type: 8, line: 'pts/0' }))
  appendFileSync(wtmpPath, row({ type: 8, line: 'pts/9' }))
  appendFileSync(wtmpPath, row({ type: 8, line: 'tty7' }))
  await files.until(4)
  expect(files.records).toEqual([
    {
      kind: 'logon',
      timestampMs: NOW_MS,
      process: { pid: 77, startTicks: null },
      action: 'logon-failed',
      account: 'root',
      source: 'btmp',
      service: 'sshd',
      terminal: 'ssh:notty',
      remote: '192.0.2.7',
    },
    expect.objectContaining({
      action: 'logon',
      account: 'alice',
      source: 'wtmp',
      terminal: 'pts/0',
      remote: 'host.example',
    }),
    expect.objectContaining({ action: 'logoff', account: 'alice', remote: 'host.example' }),
    expect.objectContaining({ action: 'logoff', account: 'early', remote: 'there' }),
  ])
  await files.stop()
})

test.skipIf(!existsSync('/usr/bin/utmpdump'))(
  'rows have the layout that the tools of the system write',
  async () => {
    const files = await start()
    const text =
      '[7] [00042] [ts/3] [carol   ] [pts/3       ] [far.example         ] [192.0.2.9      ] [2023-11-14T22:13:20,000000+00:00]\n'
    writeFileSync(
      wtmpPath,
      execFileSync('/usr/bin/utmpdump', ['-r'], { input: text, stdio: ['pipe', 'pipe', 'ignore'] }),
    )
    await files.until(1)
    expect((await files.stop())[0]).toMatchObject({
      action: 'logon',
      account: 'carol',
      terminal: 'pts/3',
      remote: 'far.example',
      process: { pid: 42 },
      timestampMs: NOW_MS,
    })
  },
)

test('rotation and truncation lose nothing and repeat nothing', async () => {
  writeFileSync(btmpPath, row({ type: 6, user: 'old' }))
  const files = await start()
  appendFileSync(btmpPath, row({ type: 6, user: 'one' }))
  renameSync(btmpPath, `${btmpPath}.1`)
  appendFileSync(`${btmpPath}.1`, row({ type: 6, user: 'two' }))
  writeFileSync(btmpPath, row({ type: 6, user: 'three' }))
  await files.until(3)
  truncateSync(btmpPath, 0)
  await new Promise((resolve) => setTimeout(resolve, 60))
  appendFileSync(btmpPath, row({ type: 6, user: 'four' }))
  await files.until(4)
  const accounts = (await files.stop()).map((record) => record.kind === 'logon' && record.account)
  expect(accounts).toEqual(['one', 'two', 'three', 'four'])
})

test('without the files there is nothing to tell; those that come later are read', async () => {
  const files = await start()
  writeFileSync(btmpPath, row({ type: 6, user: 'first' }))
  files.sensor.observe({
    kind: 'file',
    timestampMs: NOW_MS,
    pid: null,
    action: 'creation',
    path: btmpPath,
    previousPath: null,
    contentComplete: true,
  })
  await files.until(1)
  await files.stop()
  expect(probeLogonFiles('arm64')).toMatchObject({ ok: false, reason: expect.stringContaining('arm64') })
})

test.each([
  ['half a row', Buffer.alloc(100, 1), 0],
  ['a type that there is not', row({ type: 500, user: 'x' }), 0],
  ['0xff everywhere', Buffer.alloc(3_840, 0xff), 0],
  ['fields without an end', Buffer.concat([row({ type: 6 }).subarray(0, 8), Buffer.alloc(376, 0x41)]), 1],
  ['a user that is not UTF-8', row({ type: 6, user: Buffer.from([0xff, 0xfe]) }), 1],
])('hostile btmp: %s', async (_, bytes, count) => {
  const files = await start()
  writeFileSync(btmpPath, bytes)
  const records = await files.stop()
  expect(records).toHaveLength(count)
  for (const record of records)
    if (record.kind === 'logon') expect(record.account.length).toBeLessThanOrEqual(32)
})

test('far more rows than can be told are let go, and counted', async () => {
  const files = await start()
  writeFileSync(
    btmpPath,
    Buffer.concat(Array.from({ length: 40_000 }, () => row({ type: 6, user: 'flood' }))),
  )
  await vi.waitFor(() => expect(files.records.length).toBe(32_769), 20_000)
  expect((await files.stop()).filter(({ kind }) => kind === 'loss')).toMatchObject([
    { count: 40_000 - 32_768 },
  ])
})

const pam: LogonRecord = {
  kind: 'logon',
  timestampMs: NOW_MS,
  process: { pid: 5, startTicks: 9 },
  action: 'logon',
  account: 'alice',
  source: 'pam',
  service: 'sshd',
  terminal: 'ssh',
  remote: null,
}
const wtmp: LogonRecord = {
  ...pam,
  source: 'wtmp',
  service: null,
  terminal: 'pts/0',
  remote: '192.0.2.7',
  process: null,
}

function merge(waitMs = 40) {
  const told: LogonRecord[] = []
  const merged = createLogonMerge({
    sink: (batch) => {
      for (const record of batch) if (record.kind === 'logon') told.push(record)
    },
    clock: Date.now,
    waitMs,
  })
  return { told, ...merged }
}

test('a logon that PAM, audit and wtmp tell is let through once, as PAM tells it', () => {
  const { told, observe, close } = merge()
  observe(pam)
  observe({ ...wtmp, source: 'audit' })
  observe(wtmp)
  expect(told).toEqual([pam])
  close()
  expect(told).toHaveLength(1)
})

test('what the files knew before PAM told it is lent to it', () => {
  const { told, observe, close } = merge()
  observe(wtmp)
  expect(told).toEqual([])
  observe(pam)
  close()
  expect(told).toEqual([{ ...pam, terminal: 'pts/0', remote: '192.0.2.7' }])
})

test('two logons of one user are two, and what PAM never tells comes after a moment', async () => {
  const { told, observe, close } = merge()
  observe(pam)
  observe(pam)
  observe(wtmp)
  observe(wtmp)
  observe({ ...wtmp, account: 'unknown', action: 'logon-failed', source: 'btmp' })
  expect(told).toHaveLength(2)
  await vi.waitFor(() => expect(told).toHaveLength(3), 5_000)
  expect(told[2]).toMatchObject({ account: 'unknown', source: 'btmp' })
  observe({ ...wtmp, account: 'last' })
  close()
  expect(told).toHaveLength(4)
})

test('other services, terminals and times are other logons', () => {
  const { told, observe, close } = merge()
  observe({ ...pam, service: 'login', terminal: '/dev/tty1' })
  observe({ ...wtmp, terminal: 'tty1' })
  observe({ ...wtmp, terminal: 'tty2' })
  observe({ ...pam, service: 'su', terminal: 'tty3' })
  observe({ ...wtmp, terminal: 'tty1', timestampMs: NOW_MS + 10_000 })
  close()
  expect(told.map(({ terminal }) => terminal)).toEqual(['/dev/tty1', 'tty3', 'tty2', 'tty1'])
})

test('a flood of logons is bounded, and all are told', () => {
  const { told, observe, close } = merge(60_000)
  for (let number = 0; number < 6_000; number++) observe({ ...wtmp, account: `u${number}` })
  expect(told).toHaveLength(6_000 - 4_096)
  close()
  expect(told).toHaveLength(6_000)
})
