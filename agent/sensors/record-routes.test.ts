import { expect, test, vi } from 'vitest'
import { createRecordRoutes } from './record-routes.ts'
import type { FileRecord, SensorRecord } from './records.ts'

const file: FileRecord = {
  kind: 'file',
  timestampMs: 1,
  pid: 7,
  action: 'modification',
  path: '/etc/passwd',
  previousPath: null,
  contentComplete: true,
}
const exit: SensorRecord = {
  kind: 'exit',
  timestampMs: 1,
  process: { pid: 7, startTicks: 1 },
  exitCode: 0,
  signal: null,
}
const logon = (source: 'pam' | 'btmp'): SensorRecord => ({
  kind: 'logon',
  timestampMs: 1,
  process: source === 'pam' ? { pid: 7, startTicks: 1 } : null,
  action: 'logon-failed',
  account: 'alice',
  source,
  service: 'sshd',
  terminal: 'ssh:notty',
  remote: '192.0.2.1',
})

function setUp() {
  const told: SensorRecord[] = []
  const calls: unknown[] = []
  const routes = createRecordRoutes({
    sink: (records) => told.push(...records),
    clock: Date.now,
    observeFile: (record) => calls.push(['file', record.path]),
    filesLost: () => calls.push('lost'),
    noticeMounts: (pid) => calls.push(['mounts', pid]),
  })
  return { routes, told, calls }
}

test('what nobody waits for passes in its order, and readers of files hear of each file', () => {
  const { routes, told, calls } = setUp()
  routes.accept([exit, file, exit])
  expect(told).toEqual([exit, file, exit])
  expect(calls).toEqual([['file', '/etc/passwd']])
  routes.close()
})

test('a logon that two sources tell is told once, among records that pass', async () => {
  const { routes, told } = setUp()
  routes.accept([exit, logon('btmp'), file, logon('pam')])
  await vi.waitFor(() => expect(told.filter(({ kind }) => kind === 'logon')).toHaveLength(1))
  routes.close()
  expect(told.filter(({ kind }) => kind === 'logon')).toMatchObject([{ source: 'pam', process: { pid: 7 } }])
  expect(told.filter(({ kind }) => kind !== 'logon')).toEqual([exit, file])
})

test('mounts, new namespaces and lost file records are passed on to who looks again', () => {
  const { routes, calls } = setUp()
  const process = { pid: 9, startTicks: 1 }
  routes.accept([
    { kind: 'namespace', timestampMs: 1, process, operation: 'unshare', flags: 0x2_0000 },
    {
      kind: 'mount',
      timestampMs: 1,
      process,
      operation: 'mount',
      result: 0,
      source: null,
      target: '/x',
      type: null,
    },
    { kind: 'loss', timestampMs: 1, source: 'fanotify', count: 3 },
    { kind: 'loss', timestampMs: 1, source: 'ebpf:exec', count: 3 },
  ])
  expect(calls).toEqual([['mounts', 9], ['mounts', 9], 'lost'])
  routes.close()
})

test('what still waits is told at the end', () => {
  const { routes, told } = setUp()
  routes.accept([logon('btmp')])
  expect(told).toEqual([])
  routes.close()
  expect(told).toHaveLength(1)
})
