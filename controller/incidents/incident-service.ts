/** Incidents for people: lists, one with its detections, timeline and process tree; notes and closing. */
import type { AuditLog, Change, IncidentService } from '../api/services.ts'
import { clipped, severityOfRank } from '../correlate/words.ts'
import type { DetectionRow } from '../state/detections-table.ts'
import type { IncidentRow } from '../state/incidents-table.ts'
import type { State } from '../state/state.ts'
import { timestamp } from '../state/timestamp.ts'
import type { EventStore } from '../store/event-store.ts'
import type { DetectionRecord, Incident } from './incident.ts'
import { incidentId, incidentNumber } from './incident-id.ts'
import { buildProcessTree, readChildren } from './process-tree.ts'
import { buildTimeline } from './timeline.ts'

const LIST_MAX = 1_000
const NOTE_CHARACTERS_MAX = 4_000

export interface IncidentDependencies {
  readonly state: State
  readonly store: Pick<EventStore, 'query'>
  readonly audit: AuditLog
  readonly announce: (change: Change) => void
  readonly nowMs: () => number
}

export function createIncidentService(dependencies: IncidentDependencies): IncidentService {
  const { state, store, audit, announce, nowMs } = dependencies

  const rowOf = (id: string): IncidentRow | undefined => {
    const number = incidentNumber(id)
    return number === undefined ? undefined : state.incidents.get(number)
  }
  const view = (row: IncidentRow): Incident => ({
    id: incidentId(row.number),
    title: row.title,
    status: row.status,
    severity: severityOfRank(row.severity),
    startedAt: timestamp(row.started_ms),
    detectedAt: timestamp(row.detected_ms),
    openedAt: timestamp(row.opened_ms),
    updatedAt: timestamp(row.updated_ms),
    containedAt: row.contained_ms === null ? null : timestamp(row.contained_ms),
    hosts: [...state.incidents.hosts(row.number)],
    detectionCount: row.detection_count,
    actionCount: state.actions.countOfIncident(row.number),
    assignee: row.assignee,
  })
  const changed = (number: number) =>
    state.afterCommit(() => announce({ kind: 'incident', id: incidentId(number) }))

  return {
    list: ({ status, limit }) => state.incidents.list(status ?? null, Math.min(limit, LIST_MAX)).map(view),
    get(id) {
      const row = rowOf(id)
      return row && view(row)
    },
    detections(id) {
      const row = rowOf(id)
      return row === undefined ? [] : state.detections.ofIncident(row.number).map(detectionRecord)
    },
    recentDetections: (limit) => state.detections.recent(limit).map(detectionRecord),
    async timeline(id) {
      const row = rowOf(id)
      return row === undefined ? [] : buildTimeline({ state, store }, row)
    },
    async processTree(id, scope = 'all') {
      const row = rowOf(id)
      return row === undefined ? [] : buildProcessTree(store, state.detections.ofIncident(row.number), scope)
    },
    childrenOf: (agentId, entityId) => readChildren(store, agentId, entityId),
    note(id, by, text) {
      const row = rowOf(id)
      if (row === undefined) return false
      return state.run(() => {
        const entry = { atMs: nowMs(), kind: 'note', by, text: clipped(text, NOTE_CHARACTERS_MAX) } as const
        if (!state.incidentEntries.add(row.number, entry)) return false
        state.incidents.touch(row.number, entry.atMs)
        audit.record(by, 'incident.note', id, text)
        changed(row.number)
        return true
      })
    },
    close(id, by, reason) {
      const row = rowOf(id)
      if (row === undefined) return false
      return state.run(() => {
        if (state.incidents.get(row.number)?.status === 'closed') return true
        state.incidents.close(row.number, nowMs())
        const text = `Closed: ${clipped(reason, NOTE_CHARACTERS_MAX)}`
        state.incidentEntries.add(row.number, { atMs: nowMs(), kind: 'status', by, text })
        audit.record(by, 'incident.close', id, reason)
        changed(row.number)
        return true
      })
    },
  }
}

function detectionRecord(row: DetectionRow): DetectionRecord {
  return {
    id: row.id,
    incidentId: incidentId(row.incident),
    agentId: row.agent_id,
    hostName: row.host_name,
    detectedAt: timestamp(row.detected_ms),
    storedAt: timestamp(row.stored_ms),
    engine: row.engine,
    severity: severityOfRank(row.severity),
    ruleId: row.rule_id,
    ruleName: row.rule_name,
    techniques: JSON.parse(row.techniques) as string[],
    indicator: row.indicator,
    entityId: row.entity_id,
    processName: row.process_name,
    commandLine: row.command_line,
    parentExecutable: row.parent_executable,
    filePath: row.file_path,
    fileSha256: row.file_sha256,
    groupedBecause: row.grouped_because,
    // Both ends report what both find: that is one finding, not a repeat of it.
    repeats: Math.max(row.seen_by_agent, row.seen_by_fleet) - 1,
  }
}
