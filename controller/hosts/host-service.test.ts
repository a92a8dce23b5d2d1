import { expect, test } from 'vitest'
import type { AgentMessage } from '../../shared/protocol/messages.ts'
import { ISOLATION_OFF } from '../../shared/protocol/testing/isolation-off.ts'
import type { Change } from '../api/services.ts'
import { createAuditLog } from '../audit/audit-log.ts'
import { HOST_A, HOST_B, NOW_MS } from '../correlate/testing/findings.ts'
import { openState } from '../state/state.ts'
import { openTemporaryState } from '../state/testing/temporary-state.ts'
import { createHosts } from './host-service.ts'

const inventory = (hostName: string) => ({
  hostName,
  operatingSystem: 'Linux',
  operatingSystemVersion: '12',
  kernel: '6.1',
  architecture: 'x64',
  cpuModel: 'test',
  cpuCount: 2,
  memoryBytes: 1_024,
  addresses: ['127.0.0.1'],
})

const hello = (hostName: string): Extract<AgentMessage, { kind: 'hello' }> => ({
  kind: 'hello',
  protocolVersion: 1,
  agentVersion: '0.1.0',
  bootId: 'boot-1',
  sessionNonce: '0'.repeat(32),
  keysetVersion: 1,
  streamId: '0'.repeat(32),
  watermarks: [],
  inventory: inventory(hostName),
})

const status: Extract<AgentMessage, { kind: 'status' }> = {
  kind: 'status',
  sensors: [{ name: 'ebpf', inForce: true, reason: '', seen: 5, lost: 0 }],
  bufferedRows: 3,
  bufferedBytes: 100,
  droppedRows: 1,
  scanner: { scanned: 0, skipped: 0, restarts: 0, queued: 0 },
  residentBytes: 1,
  certificateExpires: '',
  isolation: ISOLATION_OFF,
}

function createSetup() {
  const temporary = openTemporaryState()
  const clock = { nowMs: NOW_MS }
  const nowMs = () => clock.nowMs
  const changes: Change[] = []
  const audit = createAuditLog(temporary.state, nowMs)
  const revoked = new Set<string>()
  const held = new Map<string, string>()
  const dependencies = {
    state: temporary.state,
    certificateOf: (agentId: string) => ({
      expiresAt: '2026-12-24T10:00:00.000Z',
      keyFingerprint: agentId.repeat(2),
      revoked: revoked.has(agentId),
      heldReason: held.get(agentId) ?? null,
    }),
    revokeCertificate: (agentId: string) =>
      agentId === HOST_A && !revoked.has(agentId) && !!revoked.add(agentId),
    audit,
    announce: (change: Change) => changes.push(change),
    nowMs,
  }
  return {
    ...temporary,
    clock,
    changes,
    audit,
    dependencies,
    hosts: createHosts(dependencies),
    [Symbol.dispose]: () => temporary[Symbol.dispose](),
  }
}

test('a host is silent from enrolment until its hello, and again when its session ends', () => {
  using setup = createSetup()
  const { hosts, clock } = setup
  hosts.enrolled(HOST_A, inventory('web-1'), 'token 1')
  expect(hosts.get(HOST_A)).toMatchObject({ state: 'silent', lastSeenAt: null, hostName: 'web-1' })
  clock.nowMs += 1_000
  hosts.connected(HOST_A, hello('web-1'))
  expect(hosts.get(HOST_A)).toMatchObject({
    state: 'connected',
    agentVersion: '0.1.0',
    bootId: 'boot-1',
    lastSeenAt: new Date(NOW_MS + 1_000).toISOString(),
    enrolledAt: new Date(NOW_MS).toISOString(),
    keyFingerprint: HOST_A.repeat(2),
  })
  clock.nowMs += 1_000
  hosts.disconnected(HOST_A)
  expect(hosts.get(HOST_A)).toMatchObject({
    state: 'silent',
    lastSeenAt: new Date(NOW_MS + 2_000).toISOString(),
  })
  expect(setup.changes).toEqual(Array.from({ length: 3 }, () => ({ kind: 'host', id: HOST_A })))
})

test('an agent that reconnects before its old session is found dead stays connected when that one ends', () => {
  using setup = createSetup()
  const { hosts } = setup
  hosts.connected(HOST_A, hello('web-1'))
  hosts.connected(HOST_A, hello('web-1'))
  hosts.disconnected(HOST_A)
  expect(hosts.get(HOST_A)?.state).toBe('connected')
  hosts.disconnected(HOST_A)
  hosts.disconnected(HOST_A)
  expect(hosts.get(HOST_A)?.state).toBe('silent')
})

test('what an agent told of itself outlives a restart of the controller; being connected does not', () => {
  using setup = createSetup()
  setup.hosts.connected(HOST_A, hello('web-1'))
  setup.hosts.status(HOST_A, status)
  const again = openState(setup.path)
  const host = createHosts({ ...setup.dependencies, state: again }).get(HOST_A)
  expect(host).toMatchObject({ state: 'silent', sensors: status.sensors, bufferedRows: 3, droppedRows: 1 })
  again.close()
})

test('a host that takes another’s name stays a host of its own', () => {
  using setup = createSetup()
  const { hosts } = setup
  hosts.connected(HOST_A, hello('web-1'))
  hosts.connected(HOST_B, hello('web-1'))
  expect(hosts.list().map(({ agentId }) => agentId)).toEqual([HOST_A, HOST_B])
  expect(hosts.get('web-1')).toBeUndefined()
  hosts.connected(HOST_B, hello('renamed'))
  expect(hosts.nameOf(HOST_B)).toBe('renamed')
  expect(hosts.nameOf(HOST_A)).toBe('web-1')
  expect(hosts.nameOf('unheard')).toBe('unheard')
})

test('a revoked host is shown as such even while a session lingers, and revoking is on the record', () => {
  using setup = createSetup()
  const { hosts, audit } = setup
  hosts.connected(HOST_A, hello('web-1'))
  expect(hosts.revoke(HOST_A, 'ada', 'stolen')).toBe(true)
  expect(hosts.get(HOST_A)?.state).toBe('revoked')
  expect(hosts.revoke(HOST_B, 'ada', 'unknown')).toBe(false)
  expect(audit.list(10)).toMatchObject([
    { action: 'host.revoke', subject: HOST_A, detail: 'stolen', by: 'ada' },
  ])
})

test('a restarted agent’s version and boot are known from the event stream too', () => {
  using setup = createSetup()
  setup.hosts.connected(HOST_A, hello('web-1'))
  setup.hosts.agentStarted(HOST_A, {
    '@timestamp': '2026-11-24T10:00:00.000Z',
    'event.kind': 'event',
    'event.category': 'host',
    'event.type': 'start',
    'event.action': 'agent-started',
    'agent.version': '0.2.0',
    'host.boot.id': 'boot-2',
    'cordon.sensors': [],
  })
  expect(setup.hosts.get(HOST_A)).toMatchObject({ agentVersion: '0.2.0', bootId: 'boot-2' })
})
