import { expect, test } from 'vitest'
import { buildDetection, indicatorFinding } from '../../shared/events/detection.ts'
import { loadIndicators } from '../../shared/ioc/indicator.ts'
import { compileIndicators } from '../../shared/ioc/matcher.ts'
import { detectionDigest } from '../../shared/node/detection-digest.ts'
import { parseEvent } from '../../shared/protocol/parse.ts'
import { entity, HOST_A, HOST_B, NOW_MS } from '../correlate/testing/findings.ts'
import { openTemporaryState } from '../state/testing/temporary-state.ts'
import { createExaminer, createWeigh } from './examiner.ts'
import { consumeAll } from './testing/attack.ts'
import { createMemoryStore, execEvent } from './testing/stored-events.ts'

const { indicators } = loadIndicators(
  JSON.stringify([
    {
      id: 'test.path',
      type: 'filePath',
      value: '/srv/listed',
      name: 'Listed program',
      severity: 'high',
      confidence: 90,
      source: 'test',
    },
  ]),
  'test',
)
const matcher = compileIndicators(indicators, NOW_MS)
const examine = createExaminer(() => matcher)
const listed = execEvent(50, { 'process.executable': '/srv/listed' })

test('an event with a listed field becomes a detection that holds to the schema, others none', () => {
  expect(indicators).toHaveLength(1)
  expect(examine(execEvent(50), HOST_A)).toEqual([])
  const [detection] = examine(listed, HOST_A)
  expect(parseEvent(JSON.stringify(detection))).toMatchObject({ ok: true })
  expect(detection).toMatchObject({ 'rule.id': 'test.path', 'process.entity_id': entity(HOST_A, 50) })
  expect(examine(listed, HOST_B)[0]?.['cordon.detection.id']).not.toBe(detection?.['cordon.detection.id'])
})

test('what the agent found too is one detection, whichever end tells it first', async () => {
  const [match] = matcher.match(listed)
  if (match === undefined) throw new Error('the indicator does not match')
  const ofAgent = buildDetection({
    source: listed,
    finding: indicatorFinding(match),
    context: {
      ancestors: [entity(HOST_A, 40)],
      sessionAncestors: 1,
      sessionLeaderEntityId: entity(HOST_A, 40),
      workingDirectory: '/srv',
      sha256: undefined,
    },
    file: {},
    agentId: HOST_A,
    timestamp: new Date(NOW_MS + 300).toISOString(),
    digest: detectionDigest,
  })
  for (const events of [
    [listed, ofAgent],
    [ofAgent, listed],
  ]) {
    using temporary = openTemporaryState()
    const store = createMemoryStore(createWeigh(examine, () => undefined))
    for (const event of events) store.add(event)
    await consumeAll(temporary.state, store)
    expect(temporary.state.detections.ofIncident(1)).toMatchObject([
      { seen_by_agent: 1, seen_by_fleet: 1, ancestors: JSON.stringify([entity(HOST_A, 40)]) },
    ])
  }
})
