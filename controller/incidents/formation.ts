/**
 * Forms incidents: takes each finding once, asks correlation where it belongs, writes it down with the
 * reason, and reopens what was thought contained when something new happens in it.
 */
import { runEvery } from '../../shared/node/loop.ts'
import type { Change } from '../api/services.ts'
import {
  correlate,
  type Decision,
  GROUPING_WINDOW_MS,
  type IncidentView,
  keysLeftBy,
} from '../correlate/correlate.ts'
import type { Finding } from '../correlate/finding.ts'
import { clipped, severityRank, titleOf } from '../correlate/words.ts'
import { whenItCan } from '../state/database-failure.ts'
import type { DetectionRow } from '../state/detections-table.ts'
import type { State } from '../state/state.ts'
import { wasCovered } from './containment.ts'
import { incidentId } from './incident-id.ts'

/** What one end finds again this much later happened again; sooner, it is the same burst. */
const SAME_FINDING_MS = 2_000
const PURGE_INTERVAL_MS = 3_600_000
const REASON_CHARACTERS_MAX = 1_024

export interface FormationDependencies {
  readonly state: State
  readonly announce: (change: Change) => void
}

export interface Formation {
  /** In a transaction of the caller or one of its own. The number of the incident the finding is in. */
  take(finding: Finding): number
}

export function createFormation({ state, announce }: FormationDependencies): Formation {
  const view: IncidentView = {
    holders: state.groupingKeys.holders,
    activeOnHost: state.incidents.activeOnHost,
  }

  const reopen = (number: number, finding: Finding, why: string) => {
    state.incidents.reopen(number, finding.receivedMs, finding.receivedMs)
    state.incidentEntries.add(number, {
      atMs: finding.receivedMs,
      kind: 'status',
      by: 'controller',
      text: clipped(`Opened again: ${why}`, REASON_CHARACTERS_MAX),
    })
  }

  const repeat = (known: DetectionRow, finding: Finding) => {
    state.detections.repeat(finding.agentId, finding.id, finding.source, finding.eventMs)
    state.incidents.repeated(known.incident, finding.receivedMs)
    if (finding.ancestors.length > (JSON.parse(known.ancestors) as string[]).length) {
      state.detections.enrich(rowOf(finding, known.incident, known.grouped_because))
      state.groupingKeys.leave(known.incident, finding.agentId, finding.eventMs, keysLeftBy(finding))
    }
    const incident = state.incidents.get(known.incident)
    if (incident === undefined || incident.status === 'open') return
    const toldBefore = finding.source === 'agent' ? known.seen_by_agent > 0 : known.seen_by_fleet > 0
    const happenedAgain = toldBefore && finding.eventMs > known.last_detected_ms + SAME_FINDING_MS
    if (!happenedAgain || wasCovered(state, incident.number, finding)) return
    reopen(incident.number, finding, `${finding.ruleName} was found again on ${finding.hostName}.`)
    // An incident that was quiet for long has lost its keys.
    state.groupingKeys.leave(incident.number, finding.agentId, finding.eventMs, keysLeftBy(finding))
  }

  const join = (decision: Extract<Decision, { kind: 'join' }>, finding: Finding) => {
    const before = state.incidents.get(decision.incident)
    if (before?.status === 'contained' && !wasCovered(state, decision.incident, finding)) {
      reopen(decision.incident, finding, `${finding.ruleName} was found on ${finding.hostName}.`)
    }
    state.incidents.addDetection(effectOf(decision.incident, finding))
    for (const related of decision.related) {
      // Told in both, once per pair.
      for (const [one, other] of [
        [decision.incident, related.incident],
        [related.incident, decision.incident],
      ] as const) {
        if (!state.incidents.relate(one, other, related.because)) continue
        state.incidentEntries.add(one, {
          atMs: finding.receivedMs,
          kind: 'status',
          by: 'controller',
          text: clipped(`Related to ${incidentId(other)}: ${related.because}`, REASON_CHARACTERS_MAX),
        })
      }
    }
    return decision.incident
  }

  const open = (finding: Finding) => {
    const number = state.counters.nextIncidentNumber()
    state.incidents.open(effectOf(number, finding))
    state.incidentEntries.add(number, {
      atMs: finding.receivedMs,
      kind: 'status',
      by: 'controller',
      text: 'Opened.',
    })
    return number
  }

  return {
    take(finding) {
      return state.run(() => {
        const known = state.detections.get(finding.agentId, finding.id)
        if (known !== undefined) {
          repeat(known, finding)
          state.afterCommit(() => announce({ kind: 'incident', id: incidentId(known.incident) }))
          return known.incident
        }
        const decision = correlate(finding, view)
        const number = decision.kind === 'join' ? join(decision, finding) : open(finding)
        state.incidents.addHost(number, finding)
        state.detections.insert(rowOf(finding, number, decision.because))
        state.groupingKeys.leave(number, finding.agentId, finding.eventMs, keysLeftBy(finding))
        state.afterCommit(() => announce({ kind: 'incident', id: incidentId(number) }))
        return number
      })
    },
  }
}

/** Forgets what ended incidents were recognised by, now and each hour until `signal` aborts. */
export async function forgetEndedIncidents(
  state: Pick<State, 'groupingKeys'>,
  nowMs: () => number,
  signal: AbortSignal,
): Promise<void> {
  await runEvery(PURGE_INTERVAL_MS, signal, () => {
    // On a full disk nothing can be forgotten; the next time it may.
    whenItCan(() => state.groupingKeys.purge(nowMs() - GROUPING_WINDOW_MS))
  })
}

function effectOf(number: number, finding: Finding) {
  const { startedMs, eventMs, receivedMs } = finding
  const severity = severityRank(finding.severity)
  return { number, severity, startedMs, eventMs, receivedMs, title: titleOf(finding) }
}

function rowOf(finding: Finding, incident: number, because: string): DetectionRow {
  return {
    agent_id: finding.agentId,
    id: finding.id,
    incident,
    host_name: finding.hostName,
    detected_ms: finding.eventMs,
    last_detected_ms: finding.eventMs,
    stored_ms: finding.receivedMs,
    engine: finding.engine,
    severity: severityRank(finding.severity),
    rule_id: finding.ruleId,
    rule_name: finding.ruleName,
    techniques: JSON.stringify(finding.techniques),
    indicator: finding.indicator?.name ?? null,
    entity_id: finding.entityId,
    session_leader: finding.sessionLeader,
    ancestors: JSON.stringify(finding.ancestors),
    process_name: finding.processName,
    command_line: finding.commandLine,
    parent_executable: finding.parentExecutable,
    file_path: finding.filePath,
    file_sha256: finding.fileSha256,
    grouped_because: clipped(because, REASON_CHARACTERS_MAX),
    seen_by_agent: finding.source === 'agent' ? 1 : 0,
    seen_by_fleet: finding.source === 'fleet' ? 1 : 0,
  }
}
