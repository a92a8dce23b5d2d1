import Database from 'better-sqlite3'
import { expect, test } from 'vitest'
import { createSilentLogger } from '../../shared/node/logger.ts'
import { openTemporaryState } from '../state/testing/temporary-state.ts'
import { createAlerts } from './alerts.ts'
import { createAuditLog } from './audit-log.ts'

const NOW_MS = Date.parse('2026-11-24T10:00:00.000Z')

test('an untouched log verifies, and its entries are listed newest first', () => {
  using temporary = openTemporaryState()
  const audit = createAuditLog(temporary.state, () => NOW_MS)
  expect(audit.verify()).toMatchObject({ kind: 'intact', entries: 0 })
  for (const subject of ['one', 'two', 'three']) audit.record('ada', 'test', subject, 'detail')
  const [newest] = audit.list(10)
  expect(newest).toMatchObject({ subject: 'three', by: 'ada', at: '2026-11-24T10:00:00.000Z' })
  expect(audit.verify()).toEqual({ kind: 'intact', entries: 3, headHash: newest?.hash })
})

test.each([
  ['a changed detail', "UPDATE audit SET detail = 'x' WHERE sequence = 2", 2],
  ['a changed time', 'UPDATE audit SET at_ms = at_ms + 1 WHERE sequence = 1', 1],
  ['an entry taken out', 'DELETE FROM audit WHERE sequence = 2', 2],
  ['entries taken off the end', 'DELETE FROM audit WHERE sequence > 2', 3],
  ['two entries exchanged', 'UPDATE audit SET sequence = 10 - sequence', 1],
])('%s is found', (_name, sql, sequence) => {
  using temporary = openTemporaryState()
  const audit = createAuditLog(temporary.state, () => NOW_MS)
  for (const subject of ['one', 'two', 'three', 'four']) audit.record('ada', 'test', subject, 'detail')
  const db = new Database(temporary.path)
  expect(() => db.exec(sql)).toThrow(/audit entries never change/)
  db.exec('DROP TRIGGER audit_update; DROP TRIGGER audit_delete')
  db.exec(sql)
  db.close()
  expect(audit.verify()).toMatchObject({ kind: 'broken', sequence })
})

test('texts are bounded, and two entries whose texts run together differently have different hashes', () => {
  using temporary = openTemporaryState()
  const audit = createAuditLog(temporary.state, () => NOW_MS)
  audit.record('a'.repeat(10_000), 'b'.repeat(10_000), 'c'.repeat(10_000), '😀'.repeat(10_000))
  const [entry] = audit.list(1)
  expect(JSON.stringify(entry).length).toBeLessThan(6_000)
  expect(entry?.detail.isWellFormed()).toBe(true)
  expect(audit.verify().kind).toBe('intact')
})

test('an entry of a transaction that fails is not in the log', () => {
  using temporary = openTemporaryState()
  const audit = createAuditLog(temporary.state, () => NOW_MS)
  expect(() =>
    temporary.state.run(() => {
      audit.record('ada', 'test', 'x', '')
      throw new Error('undone')
    }),
  ).toThrow('undone')
  expect(audit.list(10)).toEqual([])
})

test('a hostile agent cannot bury the log: alerts of one kind are told once a minute, with their number', () => {
  using temporary = openTemporaryState()
  let nowMs = NOW_MS
  const clock = () => nowMs
  const audit = createAuditLog(temporary.state, clock)
  const alerts = createAlerts({ state: temporary.state, audit, log: createSilentLogger(), nowMs: clock })
  for (let count = 0; count < 1_000; count += 1) alerts.raise('forged', 'agent-a', `attempt ${count}`)
  alerts.raise('forged', 'agent-b', 'other agent')
  expect(audit.list(10).map(({ detail }) => detail)).toEqual(['other agent', 'attempt 0'])
  nowMs += 60_000
  alerts.raise('forged', 'agent-a', 'later')
  expect(audit.list(1)[0]?.detail).toBe('later (and 999 more before)')
})
