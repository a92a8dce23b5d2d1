/**
 * `npm start -- --demo`: a harmless attack on this host, the incident as it forms, containment that a person
 * would approve, and the proof. Containment is kill and quarantine of what the demo itself made, never isolation.
 */
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import Type from 'typebox'
import { readStat } from '../../agent/platform/linux/processes.ts'
import {
  Closed,
  Detections,
  Hosts,
  Incidents,
  Processes,
  StoredEventAnswer,
  Timeline,
} from '../../controller/api/schemas.ts'
import { type Action, FINAL_STATES } from '../../controller/dispatch/action.ts'
import type { DetectionRecord, Incident, ProcessNode } from '../../controller/incidents/incident.ts'
import type { Operator } from '../setup/operator.ts'
import { TEST_INDICATOR_ADDRESS } from './harmless.ts'

export interface DemoOptions {
  readonly operator: Operator
  /** The test root of the agent's interlock: everything happens below it. */
  readonly testRoot: string
  readonly say: (line: string) => void
}

export interface DemoResult {
  readonly demo: 'contained' | 'notContained'
  readonly incident: {
    readonly id: string
    readonly title: string
    readonly severity: string
    readonly status: string
  } | null
  readonly detections: readonly { readonly rule: string; readonly severity: string; readonly why: string }[]
  readonly actions: readonly { readonly id: string; readonly action: string; readonly state: string }[]
  readonly proofs: Readonly<Record<string, unknown>>
  /** Milliseconds from the first malicious act. */
  readonly times: Readonly<Record<string, number | null>>
  readonly problem: string | null
}

const DETECTION_WAIT_MS = 60_000
/** After the first detection, how long further ones are waited for. */
const SETTLE_MS = 15_000
const CONTAINMENT_WAIT_MS = 30_000
const POLL_MS = 50
const REASON = 'Cordon demo: end the test attack and take its file away'

interface Attack {
  readonly pid: number
  readonly startedMs: number
  readonly file: string
  readonly server: Server
}

export async function runDemo(options: DemoOptions): Promise<DemoResult> {
  const { say } = options
  say('')
  say('demo: a shell starts a program that connects to a listed address and drops the EICAR test file ...')
  const attack = await startAttack(options.testRoot)
  const since = (ms: number) => Math.round(ms - attack.startedMs)
  try {
    const found = await awaitIncident(options, attack)
    if (found === null) {
      return failed(
        `no incident within ${DETECTION_WAIT_MS / 1_000} s; see cordon-agent status and .cordon/logs`,
      )
    }
    const { incident, detections } = found
    const actions = await contain(options, attack, incident, detections)
    const gone = !isAlive(attack)
    const taken = !existsSync(attack.file)
    const done = actions.length === 2 && actions.every((action) => action.state === 'done')
    const after = await incidentById(options.operator, incident.id)
    say('')
    say(
      `own check: the process is ${gone ? 'gone' : 'STILL THERE'}, the file is ${taken ? 'gone' : 'STILL THERE'}`,
    )
    await printTimeline(options, incident.id)
    const doneMs = Math.max(...actions.map((action) => Date.parse(action.steps.at(-1)?.at ?? '')))
    const times = {
      detectedMs: since(Math.min(...detections.map((one) => Date.parse(one.detectedAt)))),
      incidentMs: since(Date.parse(incident.openedAt)),
      appliedMs: sinceState(actions, 'applied', since),
      containedMs: Number.isFinite(doneMs) ? since(doneMs) : null,
    }
    say('')
    say(
      `from first act to detection ${times.detectedMs} ms, to incident ${times.incidentMs} ms, to containment proved ${times.containedMs} ms`,
    )
    return {
      demo: done && gone && taken ? 'contained' : 'notContained',
      incident: { id: after.id, title: after.title, severity: after.severity, status: after.status },
      detections: detections.map((one) => ({
        rule: one.ruleName,
        severity: one.severity,
        why: one.groupedBecause,
      })),
      actions: actions.map(({ id, action, state }) => ({ id, action, state })),
      proofs: Object.fromEntries(actions.map((action) => [action.action, proofOf(action)])),
      times,
      problem: done && gone && taken ? null : 'not all of it is proved',
    }
  } finally {
    attack.server.close()
    if (isAlive(attack)) process.kill(-attack.pid, 'SIGKILL')
  }
}

function failed(problem: string): DemoResult {
  return { demo: 'notContained', incident: null, detections: [], actions: [], proofs: {}, times: {}, problem }
}

/** A session of its own: a shell whose child connects and writes. Both work below the test root. */
async function startAttack(testRoot: string): Promise<Attack> {
  const folder = mkdtempSync(join(testRoot, 'attack-'))
  const server = createServer((socket) => socket.on('error', () => undefined))
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, TEST_INDICATOR_ADDRESS, resolve)
  })
  const address = server.address()
  const port = typeof address === 'object' && address ? address.port : 0
  const file = join(folder, 'invoice.txt')
  const dropper = join(import.meta.dirname, 'dropper.ts')
  const startedMs = Date.now()
  const shell = spawn(
    '/bin/sh',
    ['-c', '"$0" "$1" "$2" "$3"; sleep 120', process.execPath, dropper, String(port), file],
    { cwd: folder, detached: true, stdio: 'ignore' },
  )
  if (shell.pid === undefined) throw new Error('the demo could not start /bin/sh')
  shell.unref()
  return { pid: shell.pid, startedMs, file, server }
}

function isAlive(attack: Attack): boolean {
  const stat = readStat(attack.pid)
  return stat !== null && stat.sessionId === attack.pid
}

/** Prints detections as they come. Null when none came. */
async function awaitIncident(
  { operator, say }: DemoOptions,
  attack: Attack,
): Promise<{ incident: Incident; detections: readonly DetectionRecord[] } | null> {
  const told = new Set<string>()
  let found: { incident: Incident; detections: readonly DetectionRecord[] } | null = null
  let settledMs = Number.POSITIVE_INFINITY
  for (
    const untilMs = Date.now() + DETECTION_WAIT_MS;
    Date.now() < Math.min(untilMs, settledMs);
    await sleep(POLL_MS)
  ) {
    const { incidents } = await operator.get('/incidents', Incidents, { limit: 20 })
    for (const incident of incidents) {
      const { detections } = await operator.get(`/incidents/${incident.id}/detections`, Detections)
      const ours = detections.filter(
        (one) => Date.parse(one.detectedAt) >= attack.startedMs && isOurs(one, attack),
      )
      if (ours.length === 0) continue
      if (found === null) {
        say(
          `+${String(Date.parse(incident.openedAt) - attack.startedMs).padStart(5)} ms  incident ${incident.id} opened: ${incident.title} [${incident.severity}]`,
        )
        settledMs = Date.now() + SETTLE_MS
      }
      found = { incident, detections: ours }
      for (const one of ours.filter((each) => !told.has(each.id))) {
        told.add(one.id)
        say(
          `+${String(Date.parse(one.detectedAt) - attack.startedMs).padStart(5)} ms  ${one.severity}  ${one.ruleName}: ${one.filePath ?? one.indicator ?? ''}`,
        )
        say(`            ${one.processName ?? 'unknown process'}: ${one.commandLine ?? ''}`)
        say(`            in ${incident.id} because: ${one.groupedBecause}`)
      }
    }
    const kinds = new Set(found?.detections.map((one) => (one.filePath === null ? 'network' : 'file')))
    if (kinds.size === 2) break
  }
  return found
}

function isOurs(detection: DetectionRecord, attack: Attack): boolean {
  return detection.filePath === attack.file || (detection.commandLine?.includes(attack.file) ?? false)
}

/** Kill of the shell with its tree, and quarantine of the file: asked for, signed, followed to their end. */
async function contain(
  options: DemoOptions,
  attack: Attack,
  incident: Incident,
  detections: readonly DetectionRecord[],
): Promise<readonly Action[]> {
  const { operator, say } = options
  const { hosts } = await operator.get('/hosts', Hosts)
  const agentId = detections[0]?.agentId ?? ''
  const host = hosts.find((one) => one.agentId === agentId)
  const { processes } = await operator.get(`/incidents/${incident.id}/processes`, Processes)
  const top = processes.find((node) => node.pid === attack.pid) ?? withEntity(processes, detections)
  const file = await fileTarget(operator, agentId, attack.file)
  say('')
  if (host?.bootId == null || top === undefined || file === null) {
    say(
      `containment cannot be asked for: ${top === undefined ? 'no process' : file === null ? 'no examined file' : 'no boot id'} is known`,
    )
    return []
  }
  const common = { reason: REASON, incidentId: incident.id }
  const asked = await Promise.all([
    operator.act({
      action: 'killProcess',
      args: { tree: true },
      targets: [
        {
          agentId,
          target: {
            kind: 'process',
            pid: top.pid,
            startTicks: Number(top.entityId.split('.')[3]),
            bootId: host.bootId,
            executableSha256: top.sha256,
          },
        },
      ],
      ...common,
    }),
    operator.act({ action: 'quarantineFile', args: {}, targets: [{ agentId, target: file }], ...common }),
  ])
  const ids = new Set(asked.flat().map((action) => action.id))
  return followActions(options, incident.id, ids, attack)
}

function withEntity(
  processes: readonly ProcessNode[],
  detections: readonly DetectionRecord[],
): ProcessNode | undefined {
  const entities = new Set(detections.map((one) => one.entityId))
  return processes.find((node) => entities.has(node.entityId))
}

const ExaminedEvents = Closed({ events: Type.Array(StoredEventAnswer) })

/** The file as the agent examined it: identity and content, which the agent checks again before it acts. */
async function fileTarget(operator: Operator, agentId: string, path: string) {
  const query = { agentId, path, order: 'descending', limit: 50 }
  for (const action of ['detection', 'file-examined']) {
    const { events } = await operator.get('/events', ExaminedEvents, { ...query, action })
    for (const { event } of events) {
      const fields: Readonly<Record<string, unknown>> = { ...event }
      const sha256 = fields['file.hash.sha256']
      if (typeof sha256 !== 'string') continue
      return {
        kind: 'file' as const,
        path,
        pathBytes: null,
        device: typeof fields['file.device'] === 'string' ? fields['file.device'] : null,
        inode: typeof fields['file.inode'] === 'string' ? fields['file.inode'] : null,
        sha256,
      }
    }
  }
  return null
}

async function followActions(
  { operator, say }: DemoOptions,
  incidentId: string,
  ids: ReadonlySet<string>,
  attack: Attack,
): Promise<readonly Action[]> {
  const told = new Map<string, number>()
  for (const untilMs = Date.now() + CONTAINMENT_WAIT_MS; ; await sleep(POLL_MS)) {
    const actions = (await operator.actions(incidentId)).filter((action) => ids.has(action.id))
    const news = actions.flatMap((action) =>
      action.steps.slice(told.get(action.id) ?? 0).map((step) => ({ step, action: action.action })),
    )
    for (const { step, action } of news.sort((a, b) => a.step.at.localeCompare(b.step.at))) {
      const afterMs = String(Date.parse(step.at) - attack.startedMs).padStart(5)
      say(`+${afterMs} ms  ${action} ${step.state}: ${step.reason} (${step.by})`)
    }
    for (const action of actions) told.set(action.id, action.steps.length)
    const ended = actions.every((action) => FINAL_STATES.has(action.state))
    if ((ended && actions.length === ids.size) || Date.now() > untilMs) return actions
  }
}

async function incidentById(operator: Operator, id: string): Promise<Incident> {
  const { incidents } = await operator.get('/incidents', Incidents, { limit: 1_000 })
  const incident = incidents.find((one) => one.id === id)
  if (!incident) throw new Error(`${id} is no longer listed`)
  return incident
}

async function printTimeline({ operator, say }: DemoOptions, id: string): Promise<void> {
  const { entries } = await operator.get(`/incidents/${id}/timeline`, Timeline)
  say('')
  say(`timeline of ${id} (cordon incident timeline ${id}):`)
  for (const entry of entries.slice(-40))
    say(`  ${entry.at.slice(11, 23)}  ${entry.kind.padEnd(9)} ${entry.summary}`)
}

function sinceState(
  actions: readonly Action[],
  state: Action['state'],
  since: (ms: number) => number,
): number | null {
  const times = actions.flatMap((action) =>
    action.steps.filter((step) => step.state === state).map((step) => Date.parse(step.at)),
  )
  return times.length === 0 ? null : since(Math.max(...times))
}

function proofOf(action: Action): Readonly<Record<string, unknown>> {
  return Object.assign({}, ...action.steps.map((step) => step.proof))
}
