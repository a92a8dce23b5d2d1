/**
 * What an operator would do next about an incident, as commands to copy. Pure: from what is stored to
 * suggestions. Names from hosts are quoted for a shell, and left out when they could not be typed.
 */
import type { Host } from '../api/services.ts'
import { type Action, type ActionState, FINAL_STATES } from '../dispatch/action.ts'
import { actionInWords } from '../dispatch/action-words.ts'
import type { DetectionRecord, Incident, ProcessNode } from '../incidents/incident.ts'
import { printable } from './printable.ts'

const STEPS_MAX = 10

export interface IncidentStory {
  readonly incident: Incident
  readonly detections: readonly DetectionRecord[]
  readonly processes: readonly ProcessNode[]
  /** Newest first. */
  readonly actions: readonly Action[]
  readonly hosts: readonly Host[]
}

export interface NextStep {
  readonly why: string
  /** Null: nothing to type; `why` says what to do. */
  readonly command: string | null
}

export function nextSteps(story: IncidentStory): readonly NextStep[] {
  const { incident } = story
  if (incident.status === 'closed') return []
  const steps = [...actionSteps(story), ...processSteps(story), ...fileSteps(story)]
  if (steps.length === 0) {
    const why =
      incident.status === 'contained'
        ? 'It is contained. When the way in is closed, too:'
        : 'No process of it is known to run, and no file is left to take away. When it is understood:'
    steps.push({ why, command: `cordon incident close ${incident.id} --reason "what it was"` })
  }
  return steps.slice(0, STEPS_MAX)
}

/** The last word on each target: what an action was about, and where it stands. */
function latestActions(actions: readonly Action[]): readonly Action[] {
  const latest = new Map<string, Action>()
  for (const action of actions) {
    if (action.state === 'cancelled') continue
    const key = `${action.agentId} ${action.action} ${JSON.stringify(action.target)}`
    if (!latest.has(key)) latest.set(key, action)
  }
  return [...latest.values()]
}

const WENT_WRONG: ReadonlySet<ActionState> = new Set<ActionState>(['failed', 'refused', 'expired', 'unknown'])

function actionSteps({ actions, hosts }: IncidentStory): readonly NextStep[] {
  return latestActions(actions).flatMap((action): NextStep[] => {
    const what = actionInWords(action)
    const id = action.id.slice(0, 12)
    if (action.state === 'awaitingApproval') {
      return [{ why: `${what} waits for a signature:`, command: `cordon action approve ${id} --wait` }]
    }
    if (WENT_WRONG.has(action.state)) {
      const reason = action.steps.at(-1)?.reason ?? ''
      return [
        {
          why: `${what} is ${action.state}${reason === '' ? '' : `: ${reason}`}`,
          command: `cordon action get ${id}`,
        },
      ]
    }
    if (FINAL_STATES.has(action.state)) return []
    const silent = hosts.find(({ agentId }) => agentId === action.agentId)?.state !== 'connected'
    const wait = silent ? `; ${action.hostName} is not connected, and gets it when it is` : ''
    return [{ why: `${what} is under way (${action.state}${wait}):`, command: `cordon action watch ${id}` }]
  })
}

function processSteps(story: IncidentStory): readonly NextStep[] {
  const { incident, processes, hosts } = story
  const nodes = new Map(processes.map((node) => [node.entityId, node]))
  const asked = latestActions(story.actions)
    .filter(({ action }) => action === 'killProcess')
    // One that expired or failed may be tried again; one that was refused would be refused again.
    .filter(({ state }) => state !== 'expired' && state !== 'failed')
  const isAskedFor = (entityId: string, treeOnly: boolean) =>
    asked.some(
      ({ agentId, target, args }) =>
        target.kind === 'process' &&
        (!treeOnly || args['tree'] === true) &&
        entityId === `${bootPrefix(agentId, target.bootId)}${target.pid}.${target.startTicks}`,
    )
  const running = processes.filter((node) => {
    if (node.detections.length === 0 || node.endedAt !== null) return false
    const host = hostOf(hosts, node.entityId)
    // What ran before the host started anew is gone.
    if (!host?.bootId || !node.entityId.startsWith(bootPrefix(host.agentId, host.bootId))) return false
    return (
      !isAskedFor(node.entityId, false) &&
      !ancestorsOf(node, nodes).some((ancestor) => isAskedFor(ancestor.entityId, true))
    )
  })
  const suggested = new Set(running.map(({ entityId }) => entityId))
  return running
    .filter((node) => !ancestorsOf(node, nodes).some(({ entityId }) => suggested.has(entityId)))
    .map((node) => ({
      why: `${nameOf(node)} (pid ${node.pid}) is not known to have ended:`,
      command: `cordon proc kill ${node.entityId} --tree --incident ${incident.id} --reason "contain ${incident.id}" --wait`,
    }))
}

function fileSteps({ incident, detections, actions, hosts }: IncidentStory): readonly NextStep[] {
  const asked = new Set(
    latestActions(actions)
      .filter(({ action, state }) => action === 'quarantineFile' && state !== 'expired' && state !== 'failed')
      .map(({ agentId, target }) => (target.kind === 'file' ? `${agentId} ${target.path}` : '')),
  )
  const steps: NextStep[] = []
  for (const { agentId, hostName, filePath } of detections) {
    if (filePath === null || asked.has(`${agentId} ${filePath}`)) continue
    asked.add(`${agentId} ${filePath}`)
    if (printable(filePath) !== filePath) {
      steps.push({ why: `${filePath} on ${hostName} has a name that cannot be typed.`, command: null })
      continue
    }
    const host = hostWord(hosts, agentId)
    steps.push({
      why: `${filePath} was found on ${hostName}:`,
      command: `cordon file quarantine --host ${host} --path ${quoted(filePath)} --incident ${incident.id} --reason "contain ${incident.id}" --wait`,
    })
  }
  return steps
}

function ancestorsOf(node: ProcessNode, nodes: ReadonlyMap<string, ProcessNode>): readonly ProcessNode[] {
  const ancestors: ProcessNode[] = []
  // Bounded: a lying host may report a ring.
  for (let at = node; at.parentEntityId !== null && ancestors.length < nodes.size; ) {
    const parent = nodes.get(at.parentEntityId)
    if (!parent) break
    ancestors.push(parent)
    at = parent
  }
  return ancestors
}

/** What the entity ids of all processes of that boot begin with. */
function bootPrefix(agentId: string, bootId: string): string {
  return `${agentId.slice(0, 8)}.${bootId.replaceAll('-', '').slice(0, 8)}.`
}

function hostOf(hosts: readonly Host[], entityId: string): Host | undefined {
  return hosts.find(({ agentId }) => entityId.startsWith(`${agentId.slice(0, 8)}.`))
}

function nameOf(node: ProcessNode): string {
  return node.executable?.split('/').at(-1) ?? node.commandLine?.split(' ')[0] ?? 'a process'
}

/** The name when it is plain and one host's alone, else the id. */
function hostWord(hosts: readonly Host[], agentId: string): string {
  const name = hosts.find((host) => host.agentId === agentId)?.hostName ?? ''
  const alone = hosts.filter((host) => host.hostName === name).length === 1
  return alone && /^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name) ? name : agentId
}

/** A word for a POSIX shell. */
export function quoted(text: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`
}
