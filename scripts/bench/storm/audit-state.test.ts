import { expect, test } from 'vitest'
import { parseAuditState, whyNotToTouch } from './audit-state.ts'

const TEXT = `enabled 0
failure 1
pid 0
rate_limit 0
backlog_limit 64
lost 3
backlog 0
backlog_wait_time 15000
backlog_wait_time_actual 20
loginuid_immutable 0 unlocked
`
const state = {
  enabled: 0,
  failure: 1,
  pid: 0,
  rateLimit: 0,
  backlogLimit: 64,
  backlogWaitTime: 15_000,
  lost: 3,
}

test('the settings of audit are read from what auditctl says', () => {
  expect(parseAuditState(TEXT)).toEqual(state)
  expect(whyNotToTouch(state)).toBeNull()
})

test.each(['', 'enabled 0', TEXT.replace('failure 1', 'failure one'), '\0', 'No rules\n'])(
  'hostile output %j of auditctl is no state, and then audit is left alone',
  (text) => {
    expect(parseAuditState(text)).toBeNull()
    expect(whyNotToTouch(parseAuditState(text))).toMatch(/cannot be read/)
  },
)

test('locked settings and those that another daemon uses are left alone', () => {
  expect(whyNotToTouch({ ...state, enabled: 2 })).toMatch(/locked/)
  expect(whyNotToTouch({ ...state, pid: 312 })).toMatch(/312/)
})
