import { expect, test } from 'vitest'
import { createOwnRecords } from './own-records.ts'
import type { FileRecord, SensorRecord } from './records.ts'
import { compileTelemetryLists } from './volume/telemetry-matcher.ts'
import { createVolume } from './volume/volume.ts'

const concernsAgent = createOwnRecords({ ownPids: new Set([7]), ownFolders: ['/var/lib/cordon'] })

function file(path: FileRecord['path'], changes: Partial<FileRecord> = {}): FileRecord {
  return {
    kind: 'file',
    timestampMs: 1_000,
    pid: 9,
    action: 'modification',
    path,
    previousPath: null,
    contentComplete: true,
    ...changes,
  }
}
const access = (pid: number): SensorRecord => ({
  kind: 'process-access',
  timestampMs: 1_000,
  process: { pid: 9, startTicks: 1 },
  target: { pid, startTicks: 1 },
  operation: 'ptrace-attach',
  result: 0,
})

test.each([
  ['/var/lib/cordon', true],
  ['/var/lib/cordon/journal.db', true],
  [Buffer.from([...Buffer.from('/var/lib/cordon/'), 0xff]), true],
  ['/var/lib/cordons', false],
  ['/var/lib', false],
])('a file record of %s is about the agent: %s', (path, isOwn) => {
  expect(concernsAgent(file(path))).toBe(isOwn)
})

test('a file of the agent that is renamed out of its folder is about the agent, too', () => {
  expect(concernsAgent(file('/tmp/stolen', { previousPath: '/var/lib/cordon/key.pem' }))).toBe(true)
})

test('a rule cannot hide what is done to the files and processes of the agent', () => {
  const told: SensorRecord[] = []
  const volume = createVolume({
    sink: (records) => told.push(...records),
    clock: () => 0,
    lookUpProcess: () => ({ executable: '/usr/bin/x', parentExecutable: null, userId: 0 }),
    concernsAgent,
  })
  const compiled = compileTelemetryLists({
    rules: [
      { name: 'folder', verdict: 'drop', pathPrefix: '/var/lib' },
      { name: 'users', verdict: 'drop', actions: ['process-access'], userId: 0 },
    ],
  })
  if (!compiled.ok) throw new Error(compiled.problems.join())
  volume.setLists(compiled.matcher)
  const [own, other] = [file('/var/lib/cordon/journal.db'), file('/var/lib/else')]
  volume.accept([own, other, access(7), access(8)])
  expect(told).toEqual([own, access(7)])
})
