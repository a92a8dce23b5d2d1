/** Records for tests: one host, one incident with its detection, one event of each kind that the CLI reads. */

import { ISOLATION_OFF } from '../../../shared/protocol/testing/isolation-off.ts'
import type { DetectionRecord, Incident, ProcessNode, TimelineEntry } from '../../incidents/incident.ts'
import type { StoredEvent } from '../../store/event-store.ts'
import type { Host } from '../services.ts'

export const AGENT_ID = 'a1b2c3d4e5f60718293a4b5c6d7e8f90'
export const OTHER_AGENT_ID = 'ffeeddccbbaa99887766554433221100'
export const BOOT_ID = '0badcafe-1111-4222-8333-444455556666'
export const ENTITY_ID = 'a1b2c3d4.0badcafe.4242.987654'
export const SHA256 = 'ab'.repeat(32)
export const FILE_PATH = '/tmp/payload.bin'
export const AT = '2026-01-02T03:04:05.678Z'

export function host(agentId: string, hostName: string): Host {
  return {
    agentId,
    hostName,
    inventory: {
      hostName,
      operatingSystem: 'Debian',
      operatingSystemVersion: '13',
      kernel: '6.12.0',
      architecture: 'x64',
      cpuModel: 'model',
      cpuCount: 2,
      memoryBytes: 1024 ** 3,
      addresses: ['192.0.2.7'],
    },
    agentVersion: '0.1.0',
    state: 'connected',
    notice: null,
    enrolledAt: AT,
    lastSeenAt: AT,
    certificateExpiresAt: '2026-02-01T03:04:05.678Z',
    keyFingerprint: agentId.repeat(2),
    bootId: BOOT_ID,
    sensors: [{ name: 'process', inForce: true, reason: 'kernel events', seen: 10, lost: 0 }],
    bufferedRows: 0,
    droppedRows: 0,
    isolation: ISOLATION_OFF,
  }
}

export const INCIDENT: Incident = record<Incident>({
  id: 'INC-1',
  title: 'Test file dropped by sh',
  status: 'open',
  severity: 'high',
  startedAt: AT,
  detectedAt: AT,
  openedAt: AT,
  updatedAt: AT,
  containedAt: null,
  hosts: [{ agentId: AGENT_ID, hostName: 'web-1' }],
  detectionCount: 1,
  actionCount: 0,
  assignee: null,
})

export const DETECTION: DetectionRecord = record<DetectionRecord>({
  id: `${'0'.repeat(31)}1`,
  incidentId: 'INC-1',
  agentId: AGENT_ID,
  hostName: 'web-1',
  detectedAt: AT,
  storedAt: AT,
  engine: 'yara',
  severity: 'high',
  ruleId: 'rule-1',
  ruleName: 'Test file',
  techniques: ['T1105'],
  indicator: null,
  entityId: ENTITY_ID,
  processName: 'sh',
  // What a hostile host may report: a formula to spreadsheets, an escape sequence to terminals.
  commandLine: '=cmd|"/c calc"!A1 \u001b[2J\u001b]0;owned\u0007',
  parentExecutable: '/usr/bin/bash',
  filePath: FILE_PATH,
  fileSha256: SHA256,
  groupedBecause: 'same process tree',
  repeats: 0,
})

export const TIMELINE: readonly TimelineEntry[] = [
  record<TimelineEntry>({
    at: AT,
    kind: 'process',
    hostName: 'web-1',
    summary: 'sh started',
    reference: null,
    until: null,
  }),
  record<TimelineEntry>({
    at: AT,
    kind: 'detection',
    hostName: 'web-1',
    summary: 'Test file',
    reference: DETECTION.id,
    until: null,
  }),
]

export const PROCESSES: readonly ProcessNode[] = [
  node('a1b2c3d4.0badcafe.1.1', null, 1, '/sbin/init'),
  node(ENTITY_ID, 'a1b2c3d4.0badcafe.1.1', 4242, '/usr/bin/sh'),
]

function node(entityId: string, parentEntityId: string | null, pid: number, executable: string): ProcessNode {
  return {
    entityId,
    parentEntityId,
    pid,
    executable,
    commandLine: executable,
    user: 'root',
    sha256: null,
    startedAt: AT,
    endedAt: null,
    detections: entityId === ENTITY_ID ? ['Test file'] : [],
  }
}

function stored(cursor: string, event: unknown): StoredEvent {
  return {
    cursor,
    agentId: AGENT_ID,
    streamId: '5'.repeat(32),
    class: 2,
    sequence: Number(cursor),
    receivedMs: Date.parse(AT),
    event: event as StoredEvent['event'],
  }
}

export const EVENTS: readonly StoredEvent[] = [
  stored('0001', {
    '@timestamp': AT,
    'event.kind': 'event',
    'event.category': 'process',
    'event.type': 'start',
    'event.action': 'exec',
    'process.entity_id': ENTITY_ID,
    'process.pid': 4242,
    'process.executable': '/usr/bin/sh',
    'process.command_line': 'sh -c payload',
    'process.hash.sha256': SHA256,
  }),
  stored('0002', {
    '@timestamp': AT,
    'event.kind': 'event',
    'event.category': 'file',
    'event.type': 'info',
    'event.action': 'file-examined',
    'file.path': FILE_PATH,
    'file.inode': '99',
    'file.device': '2049',
    'file.hash.sha256': SHA256,
    'process.entity_id': ENTITY_ID,
  }),
]

/** Words of the records are checked by the tests that hold every answer against its schema. */
function record<Value>(value: unknown): Value {
  return value as Value
}
