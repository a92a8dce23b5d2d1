/**
 * The process tree of an incident: the detected processes, their ancestors, and what descends from them.
 * Built from the stored events; where those are missing, from what the detections themselves carried.
 */
import type { CordonEvent } from '../../shared/events/event.ts'
import { pidOf } from '../correlate/finding.ts'
import type { DetectionRow } from '../state/detections-table.ts'
import type { EventQuery, EventStore } from '../store/event-store.ts'
import type { ProcessNode } from './incident.ts'

const NODES_MAX = 300
const DESCENDANT_DEPTH_MAX = 8
const CHILDREN_MAX = 100
const RULES_PER_NODE_MAX = 64
/** A process may exec several times; the last image is the one to show. */
const EVENTS_PER_PROCESS_MAX = 16

type Draft = { -readonly [Field in keyof ProcessNode]: ProcessNode[Field] } & { agentId: string }
type Store = Pick<EventStore, 'query'>

export async function buildProcessTree(
  store: Store,
  detections: readonly DetectionRow[],
): Promise<readonly ProcessNode[]> {
  const nodes = new Map<string, Draft>()
  const add = (agentId: string, entityId: string): Draft | undefined => {
    const key = `${agentId} ${entityId}`
    const known = nodes.get(key)
    if (known !== undefined || nodes.size >= NODES_MAX) return known
    const draft = emptyNode(agentId, entityId)
    nodes.set(key, draft)
    return draft
  }
  // Detected processes first, so that a long ancestry never leaves one out.
  for (const row of detections) addDetected(row, add)
  for (const row of detections) addAncestors(row, add)
  const suspects = [...nodes.values()].filter(({ detections: rules }) => rules.length > 0)
  for (const draft of [...nodes.values()]) await fill(store, draft)
  await addDescendants(store, suspects, add)
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

async function addDescendants(store: Store, suspects: readonly Draft[], add: Add): Promise<void> {
  let generation = suspects
  const visited = new Set(suspects.map(({ agentId, entityId }) => `${agentId} ${entityId}`))
  for (let depth = 0; depth < DESCENDANT_DEPTH_MAX && generation.length > 0; depth += 1) {
    const next: Draft[] = []
    for (const { agentId, entityId } of generation) {
      const query = { agentId, parentEntityId: entityId, limit: CHILDREN_MAX }
      const events = [
        ...(await read(store, { ...query, action: 'exec' })),
        ...(await read(store, { ...query, action: 'process-info' })),
      ]
      for (const event of events) {
        const childId = 'process.entity_id' in event ? event['process.entity_id'] : undefined
        if (childId === undefined || visited.has(`${agentId} ${childId}`)) continue
        visited.add(`${agentId} ${childId}`)
        const child = add(agentId, childId)
        // The tree is full.
        if (child === undefined) return
        await fill(store, child)
        next.push(child)
      }
    }
    generation = next
  }
}

async function fill(store: Store, draft: Draft): Promise<void> {
  const { agentId, entityId } = draft
  const query = { agentId, entityId, limit: EVENTS_PER_PROCESS_MAX }
  for (const action of ['process-info', 'exec'] as const) {
    for (const event of await read(store, { ...query, action })) takeImage(draft, event)
  }
  for (const event of await read(store, { ...query, action: 'exit', limit: 1 })) {
    draft.endedAt = event['@timestamp']
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
