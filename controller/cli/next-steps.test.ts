import { expect, test } from 'vitest'
import {
  AGENT_ID,
  BOOT_ID,
  DETECTION,
  ENTITY_ID,
  FILE_PATH,
  host,
  INCIDENT,
  OTHER_AGENT_ID,
  PROCESSES,
  SHA256,
} from '../api/testing/fixtures.ts'
import type { Action } from '../dispatch/action.ts'
import { type IncidentStory, nextSteps, quoted } from './next-steps.ts'

function story(overrides: Partial<IncidentStory> = {}): IncidentStory {
  return {
    incident: INCIDENT,
    detections: [DETECTION],
    processes: PROCESSES,
    actions: [],
    hosts: [host(AGENT_ID, 'web-1'), host(OTHER_AGENT_ID, 'db-1')],
    ...overrides,
  }
}

function action(state: Action['state'], of: Partial<Action> = {}): Action {
  return {
    id: 'ab'.repeat(16),
    intentId: 'cd'.repeat(16),
    action: 'killProcess',
    class: 'C',
    agentId: AGENT_ID,
    hostName: 'web-1',
    target: {
      kind: 'process',
      pid: 4242,
      startTicks: 987_654,
      bootId: BOOT_ID,
      executableSha256: null,
    },
    args: { tree: true },
    reason: 'test',
    incidentId: 'INC-1',
    requestedBy: 'ada',
    state,
    createdAt: DETECTION.detectedAt,
    expiresAt: DETECTION.detectedAt,
    steps: [],
    ...of,
  }
}

const quarantine = (state: Action['state']) =>
  action(state, {
    action: 'quarantineFile',
    target: { kind: 'file', path: FILE_PATH, pathBytes: null, device: null, inode: null, sha256: SHA256 },
    args: {},
  })

const commands = (of: IncidentStory) => nextSteps(of).map(({ command }) => command)

test('a detected process that runs and its file come with the commands that end and take them away', () => {
  expect(commands(story())).toEqual([
    `cordon proc kill ${ENTITY_ID} --tree --incident INC-1 --reason "contain INC-1" --wait`,
    `cordon file quarantine --host web-1 --path ${FILE_PATH} --incident INC-1 --reason "contain INC-1" --wait`,
  ])
})

test('what was done is not suggested again, and then closing is', () => {
  const contained = { ...INCIDENT, status: 'contained' as const }
  const done = story({ incident: contained, actions: [action('done'), quarantine('done')] })
  expect(commands(done)).toEqual(['cordon incident close INC-1 --reason "what it was"'])
  expect(commands({ ...done, incident: { ...INCIDENT, status: 'closed' } })).toEqual([])
})

test('a kill of an ancestor with its descendants covers the process, one without does not', () => {
  const ofInit = { kind: 'process' as const, pid: 1, startTicks: 1, bootId: BOOT_ID, executableSha256: null }
  const withTree = story({ actions: [action('done', { target: ofInit }), quarantine('done')] })
  expect(commands(withTree)).not.toContainEqual(expect.stringContaining('proc kill'))
  const alone = story({ actions: [action('done', { target: ofInit, args: { tree: false } })] })
  expect(commands(alone)).toContainEqual(expect.stringContaining(`proc kill ${ENTITY_ID}`))
})

test('a refusal is told with its reason and not tried again; what failed may be', () => {
  const step = { state: 'refused' as const, at: DETECTION.detectedAt, by: 'agent', proof: {} }
  const refused = story({
    detections: [],
    actions: [action('refused', { steps: [{ ...step, reason: 'outside the test root' }] })],
  })
  expect(nextSteps(refused)).toEqual([
    {
      why: 'Kill of pid 4242 with its descendants is refused: outside the test root',
      command: 'cordon action get abababababab',
    },
  ])
  expect(commands(story({ actions: [action('failed')] }))).toContainEqual(
    expect.stringContaining('cordon proc kill'),
  )
})

test('what waits for a signature or for a silent host says so', () => {
  const [approve] = nextSteps(story({ actions: [action('awaitingApproval')] }))
  expect(approve?.command).toBe('cordon action approve abababababab --wait')
  const silent = { ...host(AGENT_ID, 'web-1'), state: 'silent' as const }
  const [watch] = nextSteps(story({ actions: [action('queued')], hosts: [silent] }))
  expect(watch?.why).toContain('web-1 is not connected')
})

test('a process that ended, or that ran before the host started anew, is left alone', () => {
  const ended = PROCESSES.map((node) => ({ ...node, endedAt: DETECTION.detectedAt }))
  expect(commands(story({ processes: ended, detections: [] }))).toEqual([
    'cordon incident close INC-1 --reason "what it was"',
  ])
  const rebooted = { ...host(AGENT_ID, 'web-1'), bootId: '11111111-1111-4222-8333-444455556666' }
  expect(commands(story({ hosts: [rebooted], detections: [] }))).toEqual([
    'cordon incident close INC-1 --reason "what it was"',
  ])
})

test('names from hosts cannot break out of the command that is suggested', () => {
  expect(quoted("/tmp/it's; rm -rf $HOME")).toBe("'/tmp/it'\\''s; rm -rf $HOME'")
  const [first] = commands(story({ processes: [], detections: [{ ...DETECTION, filePath: '/tmp/a b' }] }))
  expect(first).toContain("--path '/tmp/a b' ")
  const hostile = story({
    processes: [],
    detections: [{ ...DETECTION, filePath: '/tmp/\u001b[2J' }],
    hosts: [host(AGENT_ID, 'x; reboot')],
  })
  expect(commands(hostile)).toEqual([null])
  const named = story({ processes: [], hosts: [host(AGENT_ID, 'x; reboot')] })
  expect(commands(named)[0]).toContain(`--host ${AGENT_ID} `)
})
