import { expect, test } from 'vitest'
import type { StatusReport } from '../health/report.ts'
import { describeStatus } from './describe-status.ts'

const report: StatusReport = {
  running: true,
  pid: 42,
  version: '1.0.0',
  agentId: '12345678'.repeat(4),
  fleet: 'fleet',
  startedAt: '2026-03-01T10:00:00.000Z',
  bootId: '0'.repeat(32),
  sensors: [],
  telemetry: [],
  refusedMounts: [],
  events: { added: 1, buffered: 0, bufferedBytes: 0, dropped: 0, trouble: null },
  scanner: {
    state: 'ready',
    engine: 'yara-x',
    isolation: [],
    scanned: 7,
    skipped: 0,
    restarts: 0,
    queued: 3,
    ruleProblems: [],
    budget: { share: 0.25, usedLastMinuteMs: 15_040, oldestWaitMs: 2_460 },
  },
  connection: { state: 'connected', gatewayUrl: 'https://127.0.0.1:1', detail: '', held: false },
  certificate: { expiresAt: '2026-06-01T10:00:00.000Z', renewal: null, keysetVersion: 1 },
  interlock: 'off',
  networkIsolation: {
    state: 'off',
    possible: true,
    reason: 'nftables',
    commandId: null,
    since: null,
    leaseEnds: null,
  },
  telemetryLists: null,
  residentBytes: 1024 ** 2,
}

const budgetRow = (budget: StatusReport['scanner']['budget']) =>
  describeStatus({ ...report, scanner: { ...report.scanner, budget } })
    .split('\n')
    .find((row) => row.startsWith('scanner budget'))

test("the scanner's budget, what was used of it, and how long the oldest file waits are shown", () => {
  expect(budgetRow(report.scanner.budget)).toBe(
    'scanner budget 25% of one core; 15.0 s used in the last minute; the oldest file waits 2.5 s',
  )
  expect(budgetRow({ share: 1, usedLastMinuteMs: 0, oldestWaitMs: 0 })).toBe(
    'scanner budget 100% of one core; 0.0 s used in the last minute; nothing waits',
  )
})

test('telemetry lists in force are shown with how many rules, since when, by which command and their hash', () => {
  const row = (telemetryLists: StatusReport['telemetryLists']) =>
    describeStatus({ ...report, telemetryLists })
      .split('\n')
      .find((line) => line.startsWith('lists'))
  expect(row(null)).toBe('lists          none: nothing is left out by a rule of operators')
  const lists = { rules: 1, sha256: 'ab', commandId: 'cd', since: '2026-03-01T10:00:00.000Z' }
  expect(row(lists)).toBe(
    'lists          1 telemetry rule in force since 2026-03-01T10:00:00.000Z, by command cd, SHA-256 ab',
  )
})
