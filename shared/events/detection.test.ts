import { expect, test } from 'vitest'
import { detectionDigest } from '../node/detection-digest.ts'
import { parseEvent } from '../protocol/parse.ts'
import { buildDetection, type DetectionParts, type Finding, indicatorFinding } from './detection.ts'
import type { CordonEvent } from './event.ts'
import { inSchemaOrder } from './schema-order.ts'

const entity = 'aaaaaaaa.bbbbbbbb.42.1234'
const exec: CordonEvent = {
  '@timestamp': '2026-01-02T03:04:05.678Z',
  'event.kind': 'event',
  'event.category': 'process',
  'event.type': 'start',
  'event.action': 'exec',
  'process.entity_id': entity,
  'process.pid': 42,
  'process.executable': '/tmp/x',
  'process.command_line': '/tmp/x -a',
  'user.id': '0',
  'process.args_count': 2,
  'cordon.bytes': { 'process.executable': 'AAAA', 'process.args_count': 'BBBB' },
  'cordon.truncated': ['process.command_line'],
}
const finding: Finding = {
  engine: 'yara',
  ruleId: 'rule-1',
  ruleName: 'Rule',
  description: undefined,
  severity: 'high',
  techniques: ['T1105', 'x'.repeat(17)],
  indicator: null,
  concerns: 'content',
  matched: { 'file.path': '/tmp/x' },
}
const parts: DetectionParts = {
  source: exec,
  finding,
  context: {
    ancestors: Array.from({ length: 40 }, (_, index) => `aaaaaaaa.bbbbbbbb.${index}.1`),
    sessionAncestors: 40,
    sessionLeaderEntityId: undefined,
    workingDirectory: '/tmp',
    sha256: undefined,
  },
  file: { 'file.path': '/tmp/x', 'file.hash.sha256': 'ab'.repeat(32) },
  agentId: 'f'.repeat(32),
  timestamp: '2026-01-02T03:04:06.000Z',
  digest: detectionDigest,
}

test('a detection is a canonical event with the actor and the facts of what it was found in', () => {
  const detection = buildDetection(parts)
  const parsed = parseEvent(JSON.stringify(detection))
  expect(parsed).toEqual({ ok: true, value: detection })
  expect(detection).toMatchObject({
    'process.entity_id': entity,
    'process.command_line': '/tmp/x -a',
    'process.working_directory': '/tmp',
    'file.hash.sha256': 'ab'.repeat(32),
    'cordon.detection.event_action': 'exec',
    '@timestamp': parts.timestamp,
    'event.start': exec['@timestamp'],
    'cordon.process.session_ancestors': 32,
    'threat.technique.id': ['T1105'],
    'cordon.bytes': { 'process.executable': 'AAAA' },
    'cordon.truncated': ['process.command_line'],
  })
  expect(detection['cordon.process.ancestors']).toHaveLength(32)
})

const idOf = (changes: Partial<DetectionParts>) =>
  buildDetection({ ...parts, ...changes })['cordon.detection.id']

test('the id depends on what was found and where, not on when or by which end', () => {
  const id = idOf({})
  expect(id).toMatch(/^[0-9a-f]{32}$/)
  expect(idOf({ timestamp: '2027-01-02T03:04:06.000Z', context: null })).toBe(id)
  const others = [
    idOf({ agentId: 'e'.repeat(32) }),
    idOf({ finding: { ...finding, ruleId: 'rule-2' } }),
    idOf({ finding: { ...finding, engine: 'ioc' } }),
    idOf({ finding: { ...finding, concerns: 'process' } }),
    idOf({ finding: { ...finding, indicator: { type: 'sha256', value: 'ab' } } }),
    idOf({ file: { ...parts.file, 'file.path': '/tmp/y' } }),
    idOf({ file: { ...parts.file, 'file.hash.sha256': 'cd'.repeat(32) } }),
    idOf({ source: { ...exec, 'process.entity_id': 'aaaaaaaa.bbbbbbbb.43.1234' } }),
  ]
  expect(new Set([id, ...others]).size).toBe(others.length + 1)
})

test('texts that are too long are cut to what the schema takes', () => {
  const long = 'x'.repeat(10_000)
  const detection = buildDetection({
    ...parts,
    finding: {
      ...finding,
      ruleId: long,
      ruleName: long,
      description: long,
      indicator: { type: 'filePath', value: long },
      matched: Object.fromEntries(Array.from({ length: 20 }, (_, index) => [`field.${index}`, long])),
      techniques: Array.from({ length: 50 }, () => 'T1105'),
    },
  })
  expect(parseEvent(JSON.stringify(detection)).ok).toBe(true)
})

test.each([
  ['process.hash.sha256', 'process'],
  ['destination.ip', 'process'],
  ['process.executable', 'process'],
  ['file.path', 'file'],
  ['cordon.file.previous_path', 'file'],
  ['file.hash.md5', 'content'],
])('an indicator that matched %s is about a %s', (field, concerns) => {
  const indicator = { id: 'i', type: 'md5', value: 'v', name: 'n', severity: 'low' } as const
  expect(indicatorFinding({ indicator, field, value: 'v' })).toMatchObject({
    concerns,
    matched: { [field]: 'v' },
  })
})

test('fields that a schema does not have are left out', () => {
  const event = inSchemaOrder('exit', { ...exec, 'event.type': 'end', 'event.action': 'exit', extra: 1 })
  expect(Object.keys(event)).not.toContain('extra')
  expect(Object.keys(event)[0]).toBe('@timestamp')
  expect(event).not.toHaveProperty('cordon.bytes')
})
