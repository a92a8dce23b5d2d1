import { expect, test } from 'vitest'
import { compileSchema } from '../../shared/protocol/parse.ts'
import { entity, HOST_A, HOST_B, NOW_MS, processFinding } from '../correlate/testing/findings.ts'
import { at, createMemoryStore, execEvent } from '../detect/testing/stored-events.ts'
import { agentState, createTestDomain, sentKill } from '../dispatch/testing/domain.ts'
import { ProcessNode, TimelineEntry } from './incident.ts'
import { createIncidentService } from './incident-service.ts'

const entryCheck = compileSchema(TimelineEntry)
const nodeCheck = compileSchema(ProcessNode)

function createService() {
  const domain = createTestDomain()
  const store = createMemoryStore()
  const { state, audit } = domain
  const service = createIncidentService({
    state,
    store,
    audit,
    announce: () => undefined,
    nowMs: () => domain.clock.nowMs,
  })
  return { domain, store, service, [Symbol.dispose]: () => domain[Symbol.dispose]() }
}

test('a timeline tells in order what was detected, done by the suspects, done about it, and not seen', async () => {
  using setup = createService()
  const { domain, store, service } = setup
  domain.formation.take(
    processFinding(HOST_A, [50, 40], 1, {
      eventMs: NOW_MS + 30,
      filePath: '/srv/x/e',
      fileSha256: '5'.repeat(64),
    }),
  )
  store.add(execEvent(50, { 'process.command_line': 'sh -c drop' }))
  store.add({
    '@timestamp': at(10),
    'event.kind': 'event',
    'event.category': 'network',
    'event.type': 'start',
    'event.action': 'connection',
    'event.outcome': 'success',
    'network.transport': 'tcp',
    'network.type': 'ipv4',
    'network.direction': 'egress',
    'destination.ip': '127.0.0.9',
    'destination.port': 4444,
    'process.entity_id': entity(HOST_A, 50),
    'process.name': 'sh',
  })
  store.add({
    '@timestamp': at(20),
    'event.kind': 'event',
    'event.category': 'file',
    'event.type': 'creation',
    'event.action': 'file-created',
    'file.path': '/srv/x/e',
    'process.entity_id': entity(HOST_A, 50),
    'process.name': 'sh',
  })
  store.add({
    '@timestamp': at(900),
    'event.kind': 'event',
    'event.category': 'host',
    'event.type': 'info',
    'event.action': 'gap',
    'cordon.gap.class': 3,
    'cordon.gap.count': 312,
    'cordon.gap.bytes': 9_000,
    'cordon.gap.started': at(40),
    'cordon.gap.ended': at(60),
    'event.reason': 'the buffer was full',
  })
  store.add(execEvent(50, { 'process.command_line': 'of another host' }), HOST_B)
  domain.gateway.connect(HOST_A)
  domain.clock.nowMs = NOW_MS + 100
  const id = sentKill(domain, { incidentId: 'INC-1' })
  domain.clock.nowMs = NOW_MS + 210
  domain.dispatch.applyAgentState(HOST_A, agentState(id, 'done', { '@timestamp': at(200) }), NOW_MS + 210)
  domain.clock.nowMs = NOW_MS + 300
  service.note('INC-1', 'ada', 'it was a drill')

  const timeline = await service.timeline('INC-1')
  for (const entry of timeline) expect(entryCheck.Check(entry)).toBe(true)
  expect(timeline.find(({ kind }) => kind === 'blind')).toMatchObject({ at: at(40), until: at(60) })
  expect(timeline.map(({ at: time }) => time)).toEqual(timeline.map(({ at: time }) => time).sort())
  expect(timeline.map(({ kind, summary }) => `${kind}: ${summary}`)).toEqual([
    'process: pid 50 ran sh -c drop',
    'network: sh connected to 127.0.0.9 port 4444 (success)',
    'file: sh created /srv/x/e',
    `detection: Test rule (high) by sh (pid 50); file /srv/x/e (SHA-256 ${'5'.repeat(64)})`,
    `blind: Blind from ${at(40)} to ${at(60)}: 312 events of class 3 are lost (the buffer was full).`,
    'status: Opened. (controller)',
    'action: Kill of pid 4242 with its descendants asked for by ada@console: test',
    'action: Kill of pid 4242 with its descendants approved by ada',
    'action: Kill of pid 4242 with its descendants done: agent says done [gone=true]',
    'status: Contained: 1 of 1 actions are done and proved. (controller)',
    'note: ada: it was a drill',
  ])
})

test('an action that waits says where it stands, and one that only reads was approved by nobody', async () => {
  using setup = createService()
  const { domain, service } = setup
  domain.formation.take(processFinding(HOST_A, [50, 40], 1))
  domain.gateway.connect(HOST_A)
  sentKill(domain, { incidentId: 'INC-1' })
  const timeline = await service.timeline('INC-1')
  expect(timeline.filter(({ kind }) => kind === 'action').map(({ summary }) => summary)).toEqual([
    expect.stringContaining('asked for by'),
    expect.stringContaining('approved by'),
    'Kill of pid 4242 with its descendants sent to the host',
  ])
})

test('starts and sensors are told from the incident on, and before it only where they end a blind time', async () => {
  using setup = createService()
  const { domain, store, service } = setup
  domain.formation.take(processFinding(HOST_A, [50, 40], 1))
  const agentStarted = (ms: number) => ({
    '@timestamp': at(ms),
    'event.kind': 'event' as const,
    'event.category': 'host' as const,
    'event.type': 'start' as const,
    'event.action': 'agent-started' as const,
    'agent.version': '0.1.0',
    'host.boot.id': '0badb007-0000-4000-8000-000000000000',
    'cordon.sensors': [],
  })
  const told = async () =>
    (await service.timeline('INC-1'))
      .filter(({ kind }) => kind === 'agent' || kind === 'blind')
      .map(({ kind, at: time }) => [kind, time])
  store.add(agentStarted(-5_000) as never)
  store.add(agentStarted(5_000) as never)
  expect(await told()).toEqual([['agent', at(5_000)]])
  store.add({
    '@timestamp': at(-6_000),
    'event.kind': 'event',
    'event.category': 'host',
    'event.type': 'end',
    'event.action': 'agent-stopped',
    'event.reason': 'told to',
  } as never)
  expect(await told()).toEqual([
    ['blind', at(-6_000)],
    ['agent', at(-5_000)],
    ['agent', at(5_000)],
  ])
})

test('a store that answers too slowly takes nothing away from what the incident itself knows', async () => {
  using setup = createService()
  const { domain } = setup
  domain.formation.take(processFinding(HOST_A, [50, 40], 1))
  const service = createIncidentService({
    state: domain.state,
    store: { query: () => Promise.reject(new Error('the time budget is spent')) },
    audit: domain.audit,
    announce: () => undefined,
    nowMs: () => NOW_MS,
  })
  const timeline = await service.timeline('INC-1')
  expect(timeline.some(({ kind }) => kind === 'detection')).toBe(true)
  expect(timeline.some(({ summary }) => /could not be read: the time budget is spent/.test(summary))).toBe(
    true,
  )
  expect(await service.processTree('INC-1')).toMatchObject([
    { pid: 50, parentEntityId: entity(HOST_A, 40) },
    { pid: 40 },
  ])
})

test('a process tree joins ancestors, the detected process and its descendants, from the events', async () => {
  using setup = createService()
  const { domain, store, service } = setup
  domain.formation.take(
    processFinding(HOST_A, [50, 40, 1], 1, { ruleName: 'EICAR', parentExecutable: '/usr/bin/bash' }),
  )
  const parent = (pid: number) => ({ 'process.parent.entity_id': entity(HOST_A, pid) })
  store.add(execEvent(50, { ...parent(40), 'process.executable': '/bin/sh', 'user.name': 'ada' }))
  store.add(
    execEvent(50, {
      ...parent(40),
      'process.executable': '/usr/bin/curl',
      'process.hash.sha256': '5'.repeat(64),
    }),
  )
  store.add(execEvent(60, parent(50)))
  store.add(execEvent(61, parent(60)))
  store.add(execEvent(62, parent(40)))
  store.add({
    '@timestamp': at(500),
    'event.kind': 'event',
    'event.category': 'process',
    'event.type': 'end',
    'event.action': 'exit',
    'process.entity_id': entity(HOST_A, 60),
    'process.pid': 60,
    'process.exit_code': 0,
  })
  const nodes = await service.processTree('INC-1')
  for (const node of nodes) expect(nodeCheck.Check(node)).toBe(true)
  const byPid = new Map(nodes.map((node) => [node.pid, node]))
  expect([...byPid.keys()].sort((a, b) => a - b)).toEqual([1, 40, 50, 60, 61])
  expect(byPid.get(50)).toMatchObject({
    parentEntityId: entity(HOST_A, 40),
    executable: '/usr/bin/curl',
    user: 'ada',
    sha256: '5'.repeat(64),
    detections: ['EICAR'],
  })
  expect(byPid.get(40)).toMatchObject({ executable: '/usr/bin/bash', parentEntityId: entity(HOST_A, 1) })
  expect(byPid.get(60)).toMatchObject({ endedAt: at(500), parentEntityId: entity(HOST_A, 50) })
  const path = await service.processTree('INC-1', 'path')
  expect(path.map(({ pid }) => pid).sort((a, b) => a - b)).toEqual([1, 40, 50])
  const children = await service.childrenOf(HOST_A, entity(HOST_A, 50))
  expect(children).toEqual([byPid.get(60)])
  expect(await service.childrenOf(HOST_A, entity(HOST_A, 61))).toEqual([])
})

test('a tree that claims to descend from itself, and one with thousands of children, are bounded', async () => {
  using setup = createService()
  const { domain, store, service } = setup
  domain.formation.take(processFinding(HOST_A, [50, 40], 1))
  store.add(execEvent(50, { 'process.parent.entity_id': entity(HOST_A, 51) }))
  store.add(execEvent(51, { 'process.parent.entity_id': entity(HOST_A, 50) }))
  for (let pid = 1_000; pid < 3_000; pid += 1) {
    store.add(execEvent(pid, { 'process.parent.entity_id': entity(HOST_A, pid % 2 === 0 ? 50 : pid - 1) }))
  }
  expect((await service.processTree('INC-1')).length).toBeLessThanOrEqual(600)
})
