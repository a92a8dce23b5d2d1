import { expect, test } from 'vitest'
import { compileSchema } from '../../shared/protocol/parse.ts'
import { GROUPING_WINDOW_MS } from '../correlate/correlate.ts'
import type { Finding } from '../correlate/finding.ts'
import { entity, findingOn, HOST_A, HOST_B, NOW_MS, processFinding } from '../correlate/testing/findings.ts'
import {
  agentState,
  createTestDomain,
  killRequest,
  killTarget,
  scanRequest,
  sentKill,
  type TestDomain,
} from '../dispatch/testing/domain.ts'
import { forgetEndedIncidents } from './formation.ts'
import { DetectionRecord, Incident } from './incident.ts'

const incidentCheck = compileSchema(Incident)
const detectionCheck = compileSchema(DetectionRecord)

function incident(domain: TestDomain, id = 'INC-1'): Incident {
  const found = domain.incidents.get(id)
  if (found === undefined) throw new Error(`there is no ${id}`)
  expect(incidentCheck.Check(found)).toBe(true)
  return found
}

const statusTexts = (domain: TestDomain, number = 1) =>
  domain.state.incidentEntries.list(number).map(({ text }) => text)

/** Runs a kill for the incident up to `done`; the agent's clock says `doneMs`. */
function contain(domain: TestDomain, doneMs: number, pid = 4242): string {
  domain.gateway.connect(HOST_A)
  const targets = [{ agentId: HOST_A, target: killTarget(pid) }]
  const id = sentKill(domain, { incidentId: 'INC-1', targets })
  const event = agentState(id, 'done', { '@timestamp': new Date(doneMs).toISOString() })
  domain.dispatch.applyAgentState(HOST_A, event, domain.clock.nowMs)
  return id
}

test('a finding opens an incident that says what, where, when and how bad', () => {
  using domain = createTestDomain()
  domain.formation.take(
    processFinding(HOST_A, [50, 40], 1, {
      ruleName: 'EICAR',
      filePath: '/srv/x/eicar.com',
      severity: 'medium',
    }),
  )
  expect(incident(domain)).toMatchObject({
    id: 'INC-1',
    title: 'EICAR in eicar.com by sh (pid 50) on host-a',
    status: 'open',
    severity: 'medium',
    startedAt: new Date(NOW_MS).toISOString(),
    openedAt: new Date(NOW_MS + 50).toISOString(),
    containedAt: null,
    hosts: [{ agentId: HOST_A, hostName: 'host-a' }],
    detectionCount: 1,
  })
  expect(domain.changes).toEqual([{ kind: 'incident', id: 'INC-1' }])
})

test('an incident began when what was found happened, not when it was found', () => {
  using domain = createTestDomain()
  const take = (startedMs: number, eventMs: number) =>
    domain.formation.take(processFinding(HOST_A, [50], 0, { startedMs, eventMs }))
  take(NOW_MS - 3_000, NOW_MS)
  expect(incident(domain)).toMatchObject({ startedAt: new Date(NOW_MS - 3_000).toISOString() })
  take(NOW_MS - 2_000, NOW_MS + 10)
  expect(incident(domain)).toMatchObject({ startedAt: new Date(NOW_MS - 3_000).toISOString() })
  take(NOW_MS - 9_000, NOW_MS + 20)
  expect(incident(domain)).toMatchObject({ startedAt: new Date(NOW_MS - 9_000).toISOString() })
})

test('the most severe and then the earliest detection names the incident and gives its severity', () => {
  using domain = createTestDomain()
  const take = (severity: Finding['severity'], eventMs: number, ruleName: string) =>
    domain.formation.take(processFinding(HOST_A, [50], 0, { severity, eventMs, ruleName }))
  take('low', NOW_MS, 'Low')
  take('critical', NOW_MS + 10, 'Worst')
  take('critical', NOW_MS + 5, 'Worst and earlier')
  take('critical', NOW_MS + 20, 'Worst and later')
  take('high', NOW_MS - 1_000, 'High and first')
  expect(incident(domain)).toMatchObject({
    title: 'Worst and earlier by sh (pid 50) on host-a',
    severity: 'critical',
    startedAt: new Date(NOW_MS - 1_000).toISOString(),
    detectionCount: 5,
  })
})

test('the same finding from both ends is one detection; reported again it is a repeat', () => {
  using domain = createTestDomain()
  const finding = processFinding(HOST_A, [50, 40, 30], 1)
  domain.formation.take({ ...finding, source: 'fleet', ancestors: [], sessionAncestors: 0 })
  domain.formation.take(finding)
  const repeats = () => domain.incidents.detections('INC-1').map((detection) => detection.repeats)
  expect(repeats()).toEqual([0])
  // What the agent knew in addition groups what comes later.
  domain.formation.take(processFinding(HOST_A, [51, 40, 30], 1))
  expect(domain.incidents.list({ limit: 10 })).toHaveLength(1)
  domain.formation.take(finding)
  expect(repeats()).toEqual([1, 0])
})

test('an agent cannot hide another host’s detection by taking its id', () => {
  using domain = createTestDomain()
  const finding = processFinding(HOST_A, [50], 0)
  domain.formation.take({ ...processFinding(HOST_B, [50], 0), id: finding.id })
  domain.formation.take(finding)
  const all = domain.incidents.list({ limit: 10 })
  expect(all.flatMap(({ hosts }) => hosts.map(({ agentId }) => agentId))).toEqual([HOST_A, HOST_B])
})

test('each detection says why it is in its incident, and related incidents are told in both', () => {
  using domain = createTestDomain()
  const indicator = { type: 'ipv4', name: '192.0.2.7' }
  domain.formation.take(processFinding(HOST_A, [50], 0, { indicator }))
  domain.formation.take(processFinding(HOST_A, [90], 0, { indicator }))
  for (let count = 0; count < 3; count += 1) {
    domain.formation.take(processFinding(HOST_B, [10], 0, { indicator }))
  }
  const because = domain.incidents.detections('INC-1').map(({ groupedBecause }) => groupedBecause)
  expect(because[0]).toMatch(/^First detection/)
  expect(because[1]).toMatch(/^Same indicator 192\.0\.2\.7/)
  expect(statusTexts(domain, 1)).toEqual([
    'Opened.',
    expect.stringMatching(/^Related to INC-2: Same indicator/),
  ])
  expect(statusTexts(domain, 2)).toEqual([
    'Opened.',
    expect.stringMatching(/^Related to INC-1: Same indicator/),
  ])
  for (const detection of domain.incidents.detections('INC-1')) {
    expect(detectionCheck.Check(detection)).toBe(true)
  }
})

test('a closed incident takes nothing new, and a quiet one takes nothing after a day', () => {
  using domain = createTestDomain()
  domain.formation.take(processFinding(HOST_A, [50], 0))
  expect(domain.incidents.close('INC-1', 'ada', 'false alarm')).toBe(true)
  expect(domain.formation.take(processFinding(HOST_A, [50], 0))).toBe(2)
  const late = NOW_MS + 51 + GROUPING_WINDOW_MS
  expect(domain.formation.take(processFinding(HOST_A, [50], 0, { receivedMs: late }))).toBe(3)
  expect(incident(domain, 'INC-1').status).toBe('closed')
})

test('incidents whose window has ended are no longer recognised, and others still are', async () => {
  using domain = createTestDomain()
  domain.formation.take(processFinding(HOST_A, [50], 0))
  const receivedMs = NOW_MS + GROUPING_WINDOW_MS
  domain.formation.take(processFinding(HOST_A, [90], 0, { receivedMs }))
  domain.clock.nowMs = NOW_MS + 51 + GROUPING_WINDOW_MS
  const stop = new AbortController()
  const running = forgetEndedIncidents(domain.state, () => domain.clock.nowMs, stop.signal)
  stop.abort()
  await running
  const has = (number: number, pid: number) =>
    domain.state.groupingKeys.has(number, HOST_A, { kind: 'suspect', value: entity(HOST_A, pid) })
  expect([has(1, 50), has(2, 90)]).toEqual([false, true])
})

test('what is found again after its incident was closed opens it again', () => {
  using domain = createTestDomain()
  const finding = findingOn(HOST_A, { filePath: '/srv/x/a' })
  domain.formation.take(finding)
  domain.incidents.close('INC-1', 'ada', 'done')
  domain.formation.take({ ...finding, source: 'fleet' })
  expect(incident(domain).status).toBe('closed')
  domain.formation.take({ ...finding, eventMs: NOW_MS + 60_000, receivedMs: NOW_MS + 60_050 })
  expect(incident(domain).status).toBe('open')
  expect(statusTexts(domain).at(-1)).toMatch(/^Opened again: Test rule was found again/)
})

test('an incident is contained when all that was asked for is done, not before', () => {
  using domain = createTestDomain()
  domain.gateway.connect(HOST_A)
  domain.formation.take(processFinding(HOST_A, [50], 0))
  const targets = [1, 2].map((index) => ({ agentId: HOST_A, target: killTarget(100 + index) }))
  sentKill(domain, { incidentId: 'INC-1', targets })
  const [first = '', second = ''] = domain.dispatch
    .list({ incidentId: 'INC-1', limit: 10 })
    .map(({ id }) => id)
  domain.clock.nowMs += 2_000
  domain.dispatch.applyAgentState(HOST_A, agentState(first, 'done'), domain.clock.nowMs)
  expect(incident(domain)).toMatchObject({ status: 'open', actionCount: 2, containedAt: null })
  domain.dispatch.applyAgentState(HOST_A, agentState(second, 'done'), domain.clock.nowMs)
  expect(incident(domain)).toMatchObject({
    status: 'contained',
    containedAt: new Date(NOW_MS + 2_000).toISOString(),
  })
  expect(statusTexts(domain).at(-1)).toBe('Contained: 2 of 2 actions are done and proved.')
})

test('a failed action is not containment until a second try at the same target is done', () => {
  using domain = createTestDomain()
  domain.gateway.connect(HOST_A)
  domain.formation.take(processFinding(HOST_A, [50], 0))
  const failed = sentKill(domain, { incidentId: 'INC-1' })
  domain.dispatch.applyAgentState(HOST_A, agentState(failed, 'failed'), NOW_MS + 1_100)
  contain(domain, NOW_MS + 1_000, 7_000)
  expect(incident(domain).status).toBe('open')
  domain.clock.nowMs += 1
  contain(domain, NOW_MS + 1_000)
  expect(incident(domain).status).toBe('contained')
})

test('a done without a proof does not contain', () => {
  using domain = createTestDomain()
  domain.gateway.connect(HOST_A)
  domain.formation.take(processFinding(HOST_A, [50], 0))
  const id = sentKill(domain, { incidentId: 'INC-1' })
  const empty = agentState(id, 'done', { 'cordon.command.proof': {} })
  domain.dispatch.applyAgentState(HOST_A, empty, NOW_MS + 1_100)
  expect(incident(domain).status).toBe('open')
})

test('cancelled actions and actions that only read neither contain nor hinder', () => {
  using domain = createTestDomain()
  domain.formation.take(processFinding(HOST_A, [50], 0))
  domain.dispatch.plan({ ...scanRequest(), incidentId: 'INC-1' }, 'ada')
  const cancelled = domain.dispatch.plan(killRequest({ incidentId: 'INC-1' }), 'ada')
  if (!cancelled.ok) throw new Error('not planned')
  domain.dispatch.cancel(cancelled.value.actions[0]?.id ?? '', 'ada', 'x')
  expect(incident(domain).status).toBe('open')
  contain(domain, NOW_MS + 1_000)
  expect(incident(domain).status).toBe('contained')
})

test('an action asked for in a contained incident opens it until that one is done or cancelled', () => {
  using domain = createTestDomain()
  domain.formation.take(processFinding(HOST_A, [50], 0))
  contain(domain, NOW_MS + 1_000)
  const more = domain.dispatch.plan(
    killRequest({ incidentId: 'INC-1', targets: [{ agentId: HOST_A, target: killTarget(77) }] }),
    'ada',
  )
  if (!more.ok) throw new Error('not planned')
  expect(incident(domain)).toMatchObject({ status: 'open', containedAt: null })
  domain.dispatch.cancel(more.value.actions[0]?.id ?? '', 'ada', 'x')
  expect(incident(domain).status).toBe('contained')
})

test.each([
  {
    name: 'a later detection by what survived',
    finding: processFinding(HOST_A, [51, 50], 1, { eventMs: NOW_MS + 2_000 }),
    status: 'open',
  },
  {
    name: 'late news of what the killed process had done before',
    finding: processFinding(HOST_A, [50], 0, { eventMs: NOW_MS + 500 }),
    status: 'contained',
  },
  {
    name: 'late news of a child of the killed process',
    finding: processFinding(HOST_A, [51, 50], 1, { eventMs: NOW_MS + 500 }),
    status: 'contained',
  },
  {
    name: 'late news of another process of the session, which nobody killed',
    finding: processFinding(HOST_A, [60, 40], 1, { eventMs: NOW_MS + 500 }),
    status: 'open',
  },
])('in a contained incident, after $name it is $status', ({ finding, status }) => {
  using domain = createTestDomain()
  domain.formation.take(processFinding(HOST_A, [50, 40], 1))
  contain(domain, NOW_MS + 1_000)
  domain.clock.nowMs += 10_000
  expect(domain.formation.take({ ...finding, receivedMs: domain.clock.nowMs })).toBe(1)
  expect(incident(domain).status).toBe(status)
})

test('after a reopening, what was done before it does not contain again', () => {
  using domain = createTestDomain()
  domain.formation.take(processFinding(HOST_A, [50, 40], 1))
  contain(domain, NOW_MS + 1_000)
  domain.clock.nowMs += 10_000
  const survivor = processFinding(HOST_A, [60, 40], 1, { eventMs: NOW_MS + 9_000 })
  domain.formation.take({ ...survivor, receivedMs: domain.clock.nowMs })
  const dropped = domain.dispatch.plan(killRequest({ incidentId: 'INC-1' }), 'ada')
  if (!dropped.ok) throw new Error('not planned')
  domain.dispatch.cancel(dropped.value.actions[0]?.id ?? '', 'ada', 'x')
  expect(incident(domain).status).toBe('open')
  domain.clock.nowMs += 1_000
  contain(domain, NOW_MS + 11_000, 60)
  expect(incident(domain).status).toBe('contained')
})

test('a detection on a second host opens a contained incident again', () => {
  using domain = createTestDomain()
  const indicator = { type: 'ipv4', name: '192.0.2.7' }
  domain.formation.take(processFinding(HOST_A, [50], 0, { indicator }))
  contain(domain, NOW_MS + 1_000)
  domain.formation.take(processFinding(HOST_B, [50], 0, { indicator, eventMs: NOW_MS + 500 }))
  expect(incident(domain).status).toBe('open')
})

test('hostile texts are kept as they are and break nothing', () => {
  using domain = createTestDomain()
  const text = `<img onerror=x>'"; DROP TABLE incident;--\u0000\ud800`.padEnd(256, '😀')
  domain.formation.take(
    processFinding(HOST_A, [50], 0, {
      ruleName: text,
      hostName: text,
      processName: text,
      commandLine: '\u0000'.repeat(16_384),
      filePath: `/${'x/'.repeat(2_000)}`,
    }),
  )
  expect(incident(domain).title.length).toBeLessThanOrEqual(512)
  expect(domain.incidents.detections('INC-1')).toHaveLength(1)
})

test.each([
  'INC-0',
  'INC-',
  'INC-01',
  'INC-1 OR 1=1',
  'inc-1',
  '1',
  '',
  '__proto__',
  'INC-999999999999999999',
])('the text %j names no incident', async (id) => {
  using domain = createTestDomain()
  domain.formation.take(processFinding(HOST_A, [50], 0))
  expect(domain.incidents.get(id)).toBeUndefined()
  expect(domain.incidents.note(id, 'ada', 'x')).toBe(false)
  expect(domain.incidents.close(id, 'ada', 'x')).toBe(false)
  expect(domain.incidents.detections(id)).toEqual([])
  expect(await domain.incidents.timeline(id)).toEqual([])
})

test('notes and closing are in the incident’s history and in the audit log', async () => {
  using domain = createTestDomain()
  domain.formation.take(processFinding(HOST_A, [50], 0))
  expect(domain.incidents.note('INC-1', 'ada', 'looks real')).toBe(true)
  expect(domain.incidents.close('INC-1', 'bob', 'cleaned')).toBe(true)
  expect(domain.incidents.close('INC-1', 'bob', 'again')).toBe(true)
  const told = (await domain.incidents.timeline('INC-1')).map(({ summary }) => summary)
  expect(told).toContain('ada: looks real')
  expect(told.filter((summary) => summary.startsWith('Closed'))).toEqual(['Closed: cleaned (bob)'])
  expect(domain.audit.list(10).map(({ action }) => action)).toEqual(['incident.close', 'incident.note'])
})
