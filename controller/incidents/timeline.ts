/**
 * An incident's timeline: what was detected, what the suspects did around it, what was done about it, what
 * people wrote, and the times in which a host could not see. Bounded whatever the events hold.
 */
import type { CordonEvent, EventOf } from '../../shared/events/event.ts'
import { pidOf } from '../correlate/finding.ts'
import { clipped, severityOfRank } from '../correlate/words.ts'
import type { DetectionRow } from '../state/detections-table.ts'
import type { IncidentRow } from '../state/incidents-table.ts'
import type { State } from '../state/state.ts'
import { timestamp } from '../state/timestamp.ts'
import type { EventQuery, EventStore, StoredEvent } from '../store/event-store.ts'
import { actionEntries } from './action-entries.ts'
import { activityInWords, TOLD_ACTIONS } from './activity-words.ts'
import type { TimelineEntry } from './incident.ts'

const ENTRIES_MAX = 2_000
const SUSPECTS_MAX = 32
const EVENTS_PER_SUSPECT_MAX = 200
const HOSTS_MAX = 32
const AGENT_EVENTS_PER_HOST_MAX = 500
const ACTIONS_MAX = 500
const QUERY_LIMIT_MAX = 10_000
const SUMMARY_CHARACTERS_MAX = 2_048
/** A host that was blind shortly before tells as much as one that was blind during it. */
const BLIND_BEFORE_MS = 3_600_000
const AGENT_ACTIONS = ['gap', 'tamper', 'agent-stopped', 'agent-started', 'sensor-changed'] as const

export interface TimelineSources {
  readonly state: Pick<State, 'detections' | 'actions' | 'incidentEntries' | 'incidents' | 'retention'>
  readonly store: Pick<EventStore, 'query'>
}

export async function buildTimeline(
  { state, store }: TimelineSources,
  incident: IncidentRow,
): Promise<readonly TimelineEntry[]> {
  const detections = state.detections.ofIncident(incident.number)
  const actions = state.actions.list({ incident: incident.number }, ACTIONS_MAX)
  const own = [
    ...detections.map(detectionEntry),
    ...actions.flatMap((action) => actionEntries(action, state.actions.steps(action.command_id))),
    ...state.incidentEntries.list(incident.number).map(({ atMs, kind, by, text }) => ({
      at: timestamp(atMs),
      kind,
      hostName: null,
      summary: clipped(kind === 'note' ? `${by}: ${text}` : `${text} (${by})`, SUMMARY_CHARACTERS_MAX),
      reference: null,
      until: null,
    })),
  ]
  const seen = [
    ...droppedEntry(state.retention.fromMs(), incident.started_ms),
    ...(await suspectEntries(store, detections)),
    ...(await agentEntries(store, state.incidents.hosts(incident.number), incident.started_ms)),
  ]
  // What the incident itself holds is never crowded out by a busy suspect.
  const kept = own.slice(0, ENTRIES_MAX)
  kept.push(...seen.slice(0, Math.max(0, ENTRIES_MAX - kept.length)))
  return kept.sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0))
}

/** Events of the incident that retention has dropped: what the timeline cannot show is told in it. */
function droppedEntry(fromMs: number | null, startedMs: number): readonly TimelineEntry[] {
  if (fromMs === null || fromMs <= startedMs) return []
  const summary =
    'Events that arrived before then are not kept any more: only what became part of the incident is shown'
  const [at, until] = [timestamp(startedMs), timestamp(fromMs)]
  return [{ at, kind: 'blind', hostName: null, summary, reference: null, until }]
}

function detectionEntry(row: DetectionRow): TimelineEntry {
  const process =
    row.entity_id === null ? '' : ` by ${row.process_name ?? 'a process'} (pid ${pidOf(row.entity_id)})`
  const command = row.command_line === null ? '' : `: ${clipped(row.command_line, 512)}`
  const file =
    row.file_path === null
      ? ''
      : `; file ${clipped(row.file_path, 512)}${row.file_sha256 === null ? '' : ` (SHA-256 ${row.file_sha256})`}`
  return {
    at: timestamp(row.detected_ms),
    kind: 'detection',
    hostName: row.host_name,
    summary: clipped(
      `${row.rule_name} (${severityOfRank(row.severity)})${process}${command}${file}`,
      SUMMARY_CHARACTERS_MAX,
    ),
    reference: row.id,
    until: null,
  }
}

async function suspectEntries(
  store: Pick<EventStore, 'query'>,
  detections: readonly DetectionRow[],
): Promise<readonly TimelineEntry[]> {
  const hosts = new Map<string, { hostName: string; entityIds: Set<string> }>()
  let suspects = 0
  for (const { agent_id: agentId, entity_id: entityId, host_name: hostName } of detections) {
    if (entityId === null || suspects >= SUSPECTS_MAX) continue
    const host = hosts.get(agentId) ?? { hostName, entityIds: new Set() }
    hosts.set(agentId, host)
    if (!host.entityIds.has(entityId)) suspects += 1
    host.entityIds.add(entityId)
  }
  const entries: TimelineEntry[] = []
  for (const [agentId, { hostName, entityIds }] of hosts) {
    // Several for each: a busy suspect leaves room for the others.
    const limit = Math.min(QUERY_LIMIT_MAX, entityIds.size * EVENTS_PER_SUSPECT_MAX * 4)
    const { found, problems } = await read(
      store,
      { agentId, entityIds: [...entityIds], actions: TOLD_ACTIONS, limit },
      hostName,
    )
    entries.push(...problems)
    const counts = new Map<string, number>()
    for (const { event, cursor } of found) {
      const entityId = 'process.entity_id' in event ? (event['process.entity_id'] ?? '') : ''
      const count = counts.get(entityId) ?? 0
      const told = activityInWords(event)
      if (told === undefined || count >= EVENTS_PER_SUSPECT_MAX) continue
      counts.set(entityId, count + 1)
      const summary = clipped(told.summary, SUMMARY_CHARACTERS_MAX)
      entries.push({
        at: event['@timestamp'],
        kind: told.kind,
        hostName,
        summary,
        reference: cursor.slice(0, 128),
        until: null,
      })
    }
  }
  return entries
}

/** What became of the agents: blind times, and starts and sensors where they explain something. */
async function agentEntries(
  store: Pick<EventStore, 'query'>,
  hosts: readonly { readonly agentId: string; readonly hostName: string }[],
  startedMs: number,
): Promise<readonly TimelineEntry[]> {
  const entries: TimelineEntry[] = []
  const startedAt = timestamp(startedMs)
  for (const { agentId, hostName } of hosts.slice(0, HOSTS_MAX)) {
    const ofHost: TimelineEntry[] = []
    const fromMs = startedMs - BLIND_BEFORE_MS
    const query = { agentId, actions: AGENT_ACTIONS, fromMs, limit: AGENT_EVENTS_PER_HOST_MAX }
    const { found, problems } = await read(store, query, hostName)
    entries.push(...problems)
    for (const { event, cursor } of found) {
      const told = agentNews(event)
      if (told !== undefined) ofHost.push({ ...told, hostName, reference: cursor.slice(0, 128) })
    }
    // An ordinary start before the incident tells nothing; one that ended a blind time does.
    const blindSince = ofHost.reduce<string | null>(
      (first, { kind, at }) => (kind === 'blind' && (first === null || at < first) ? at : first),
      null,
    )
    entries.push(
      ...ofHost.filter(
        ({ kind, at }) => kind === 'blind' || at >= startedAt || (blindSince !== null && at >= blindSince),
      ),
    )
  }
  return entries
}

/** A query that takes too long is told in the timeline, instead of taking the rest of it away. */
async function read(
  store: Pick<EventStore, 'query'>,
  query: EventQuery & { readonly agentId: string },
  hostName: string,
): Promise<{ readonly found: readonly StoredEvent[]; readonly problems: readonly TimelineEntry[] }> {
  try {
    return { found: await store.query(query), problems: [] }
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    const summary = clipped(`Some events could not be read: ${reason}`, SUMMARY_CHARACTERS_MAX)
    const at = timestamp(query.fromMs ?? 0)
    return { found: [], problems: [{ at, kind: 'status', hostName, summary, reference: null, until: null }] }
  }
}

function agentNews(
  event: CordonEvent,
): (Pick<TimelineEntry, 'at' | 'summary' | 'until'> & { readonly kind: 'blind' | 'agent' }) | undefined {
  const at = event['@timestamp']
  const until = null
  switch (event['event.action']) {
    case 'gap':
      return {
        at: event['cordon.gap.started'],
        kind: 'blind',
        summary: gapInWords(event),
        until: event['cordon.gap.ended'],
      }
    case 'tamper':
      return { at, kind: 'agent', summary: clipped(`Tampering: ${event['event.reason']}`, 1_024), until }
    case 'agent-started':
      return { at, kind: 'agent', summary: `The agent started (version ${event['agent.version']}).`, until }
    case 'agent-stopped': {
      const summary = `The agent stopped, and nothing is seen until it starts: ${event['event.reason']}`
      return { at, kind: 'blind', summary: clipped(summary, SUMMARY_CHARACTERS_MAX), until }
    }
    case 'sensor-changed': {
      const state = event['cordon.sensor.in_force'] ? 'is in force' : 'is not in force'
      const summary = `Sensor ${event['cordon.sensor.name']} ${state}: ${event['event.reason']}`
      return { at, kind: 'agent', summary: clipped(summary, SUMMARY_CHARACTERS_MAX), until }
    }
    default:
      return undefined
  }
}

function gapInWords(event: EventOf<'gap'>): string {
  const count = event['cordon.gap.count']
  const who = event['process.pid']
  if (count !== null && who !== undefined) {
    const whose = `${count} events of ${event['process.name'] ?? 'a process'} (pid ${who}) are left out`
    return clipped(`${whose}: ${event['event.reason']}.`, SUMMARY_CHARACTERS_MAX)
  }
  const lost =
    count === null
      ? 'events that nobody could count'
      : `${count} events of class ${event['cordon.gap.class']}`
  return clipped(
    `Blind from ${event['cordon.gap.started']} to ${event['cordon.gap.ended']}: ${lost} are lost (${event['event.reason']}).`,
    SUMMARY_CHARACTERS_MAX,
  )
}
