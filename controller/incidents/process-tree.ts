/**
 * The process tree of an incident: the detected processes, their ancestors, and what descends from them.
 * Built from the stored events; where those are missing, from what the detections themselves carried.
 */
import type { CordonEvent } from '../../shared/events/event.ts'
import { pidOf } from '../correlate/finding.ts'
import type { DetectionRow } from '../state/detections-table.ts'
import type { EventQuery, EventStore } from '../store/event-store.ts'
import type { ProcessNode } from './incident.ts'

const NODES_MAX = 600
const DESCENDANT_DEPTH_MAX = 8
const CHILDREN_MAX = 100
const RULES_PER_NODE_MAX = 64
/** A process may exec several times; the last image is the one to show. */
const EVENTS_PER_PROCESS_MAX = 16
const CHILD_EVENTS_MAX = 2_000
const QUERY_LIMIT_MAX = 10_000
/** Events of one host come by its one clock, but not to the millisecond. */
const CLOCK_SLACK_MS = 1_000

type Draft = { -readonly [Field in keyof ProcessNode]: ProcessNode[Field] } & { agentId: string }
type Store = Pick<EventStore, 'query'>

export async function buildProcessTree(
  store: Store,
  detections: readonly DetectionRow[],
  scope: 'path' | 'all' = 'all',
): Promise<readonly ProcessNode[]> {
  const { nodes, add } = createDrafts()
  // Detected processes first, so that a long ancestry never leaves one out.
  for (const row of detections) addDetected(row, add)
  for (const row of detections) addAncestors(row, add)
  const suspects = [...nodes.values()].filter(({ detections: rules }) => rules.length > 0)
  await fill(store, [...nodes.values()])
  if (scope === 'all') await addDescendants(store, suspects, add)
  return finished(nodes)
}

/** The processes that one process started, for a tree that grows as it is opened. */
export async function readChildren(
  store: Store,
  agentId: string,
  entityId: string,
): Promise<readonly ProcessNode[]> {
  const { nodes, add } = createDrafts()
  await addDescendants(store, [emptyNode(agentId, entityId)], add, 1)
  return finished(nodes)
}

function createDrafts(): { readonly nodes: ReadonlyMap<string, Draft>; readonly add: Add } {
  const nodes = new Map<string, Draft>()
  const add = (agentId: string, entityId: string): Draft | undefined => {
    const key = `${agentId} ${entityId}`
    const known = nodes.get(key)
    if (known !== undefined || nodes.size >= NODES_MAX) return known
    const draft = emptyNode(agentId, entityId)
    nodes.set(key, draft)
    return draft
  }
  return { nodes, add }
}

function finished(nodes: ReadonlyMap<string, Draft>): readonly ProcessNode[] {
  return [...nodes.values()].map(({ agentId: _agentId, ...node }) => node)
}

type Add = (agentId: string, entityId: string) => Draft | undefined

function emptyNode(agentId: string, entityId: string): Draft {
  return {
    agentId,
    entityId,
    parentEntityId: null,
    pid: pidOf(entityId),
    executable: null,
    commandLine: null,
    user: null,
    sha256: null,
    startedAt: null,
    endedAt: null,
    detections: [],
  }
}

function addDetected(row: DetectionRow, add: Add): void {
  if (row.entity_id === null) return
  const draft = add(row.agent_id, row.entity_id)
  if (draft === undefined) return
  draft.commandLine ??= row.command_line
  if (draft.detections.length < RULES_PER_NODE_MAX && !draft.detections.includes(row.rule_name)) {
    draft.detections.push(row.rule_name)
  }
}

function addAncestors(row: DetectionRow, add: Add): void {
  if (row.entity_id === null) return
  let child = add(row.agent_id, row.entity_id)
  for (const [index, entityId] of (JSON.parse(row.ancestors) as string[]).entries()) {
    if (child === undefined) return
    child.parentEntityId ??= entityId
    const parent = add(row.agent_id, entityId)
    if (index === 0 && parent !== undefined) parent.executable ??= row.parent_executable
    child = parent
  }
}

async function addDescendants(
  store: Store,
  suspects: readonly Draft[],
  add: Add,
  depthMax = DESCENDANT_DEPTH_MAX,
): Promise<void> {
  let generation = suspects
  const visited = new Set(suspects.map(({ agentId, entityId }) => `${agentId} ${entityId}`))
  for (let depth = 0; depth < depthMax && generation.length > 0; depth += 1) {
    const next: Draft[] = []
    for (const [agentId, parents] of byAgent(generation)) {
      const counts = new Map<string, number>()
      const events = await read(store, {
        agentId,
        parentEntityIds: parents.map(({ entityId }) => entityId),
        actions: ['exec', 'process-info'],
        limit: CHILD_EVENTS_MAX,
        ...sinceFirst(parents),
      })
      for (const event of events) {
        if (event['event.action'] !== 'exec' && event['event.action'] !== 'process-info') continue
        const childId = event['process.entity_id'] ?? ''
        const parentId = event['process.parent.entity_id'] ?? ''
        const count = counts.get(parentId) ?? 0
        if (childId === '' || count >= CHILDREN_MAX || visited.has(`${agentId} ${childId}`)) continue
        visited.add(`${agentId} ${childId}`)
        counts.set(parentId, count + 1)
        const child = add(agentId, childId)
        if (child === undefined) break
        next.push(child)
      }
    }
    await fill(store, next)
    generation = next
  }
}

/** A child is never older than its parent: the store need not look at what came before. */
function sinceFirst(parents: readonly Draft[]): { readonly fromMs?: number } {
  const starts = parents.map(({ startedAt }) => (startedAt === null ? Number.NaN : Date.parse(startedAt)))
  const first = Math.min(...starts)
  return Number.isFinite(first) ? { fromMs: first - CLOCK_SLACK_MS } : {}
}

function byAgent(drafts: readonly Draft[]): ReadonlyMap<string, Draft[]> {
  const groups = new Map<string, Draft[]>()
  for (const draft of drafts) {
    const group = groups.get(draft.agentId)
    if (group) group.push(draft)
    else groups.set(draft.agentId, [draft])
  }
  return groups
}

/** What events tell of the processes, with one query per host. */
async function fill(store: Store, drafts: readonly Draft[]): Promise<void> {
  for (const [agentId, group] of byAgent(drafts)) {
    const ofEntity = new Map(group.map((draft) => [draft.entityId, draft]))
    const events = await read(store, {
      agentId,
      entityIds: [...ofEntity.keys()],
      actions: ['process-info', 'exec', 'exit'],
      limit: Math.min(QUERY_LIMIT_MAX, group.length * EVENTS_PER_PROCESS_MAX),
    })
    // A process that was there before the agent is told of first and may exec later: the last image counts.
    for (const action of ['process-info', 'exec', 'exit'] as const) {
      for (const event of events) {
        if (event['event.action'] !== action) continue
        const draft = ofEntity.get(event['process.entity_id'] ?? '')
        if (draft === undefined) continue
        if (event['event.action'] === 'exit') draft.endedAt = event['@timestamp']
        else takeImage(draft, event)
      }
    }
  }
}

function takeImage(draft: Draft, event: CordonEvent): void {
  if (event['event.action'] !== 'exec' && event['event.action'] !== 'process-info') return
  draft.startedAt ??= event['@timestamp']
  draft.parentEntityId = event['process.parent.entity_id'] ?? draft.parentEntityId
  draft.executable = event['process.executable'] ?? draft.executable
  draft.commandLine = event['process.command_line'] ?? draft.commandLine
  draft.user = event['user.name'] ?? event['user.id'] ?? draft.user
  draft.sha256 = event['process.hash.sha256'] ?? draft.sha256
}

/** What cannot be read leaves its node as it is: a partial tree is better than none. */
async function read(store: Store, query: EventQuery): Promise<readonly CordonEvent[]> {
  try {
    return (await store.query(query)).map(({ event }) => event)
  } catch {
    return []
  }
}
