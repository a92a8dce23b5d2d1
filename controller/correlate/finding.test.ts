import { expect, test } from 'vitest'
import type { DetectionEvent } from '../../shared/events/event.ts'
import { findingFromDetection, type Origin } from './finding.ts'

const foundAt = '2026-11-24T10:00:00.000Z'
const foundMs = Date.parse(foundAt)
const origin: Origin = {
  agentId: 'a'.repeat(32),
  hostName: 'host',
  receivedMs: foundMs + 70,
  source: 'agent',
}
const detection: DetectionEvent = {
  '@timestamp': foundAt,
  'event.kind': 'alert',
  'event.category': 'threat',
  'event.type': 'indicator',
  'event.action': 'detection',
  'cordon.detection.id': '0'.repeat(32),
  'cordon.detection.engine': 'yara',
  'cordon.detection.severity': 'high',
  'cordon.detection.matched': {},
  'rule.id': 'test.rule',
  'rule.name': 'Test rule',
  'cordon.detection.event_action': 'exec',
}
const startOf = (start: string | undefined) =>
  findingFromDetection({ ...detection, ...(start === undefined ? {} : { 'event.start': start }) }, origin)

test('what was found happened when its event says', () => {
  expect(startOf('2026-11-24T09:59:58.500Z')).toMatchObject({ startedMs: foundMs - 1_500, eventMs: foundMs })
})

test.each([
  ['an agent that does not tell', undefined],
  ['a time after the finding', '2026-11-24T11:00:00.000Z'],
  ['a time that is none', '2026-13-31T10:00:00.000Z'],
])('with %s it is the time of the finding', (_what, start) => {
  expect(startOf(start)).toMatchObject({ startedMs: foundMs, eventMs: foundMs })
})
