/** The view of active incidents as plain lists, and a grouper that forms incidents over it. */
import {
  correlate,
  type Decision,
  type GroupingKey,
  type Holder,
  type IncidentView,
  type KeyQuery,
  keysLeftBy,
} from '../correlate.ts'
import type { Finding } from '../finding.ts'

interface MemoryIncident {
  readonly number: number
  lastDetectionMs: number
  readonly members: Finding[]
  readonly keys: { readonly key: GroupingKey; readonly finding: Finding }[]
}

export interface MemoryGrouper {
  readonly incidents: readonly MemoryIncident[]
  take(finding: Finding): { readonly incident: number; readonly decision: Decision }
}

export function createMemoryGrouper(): MemoryGrouper {
  const incidents: MemoryIncident[] = []

  const holders = (query: KeyQuery): readonly Holder[] =>
    incidents
      .filter(
        ({ lastDetectionMs, members }) =>
          lastDetectionMs >= query.activeSinceMs && members.length < query.detectionsBelow,
      )
      .flatMap(({ number, keys }) => {
        const left = keys.filter(
          ({ key, finding }) =>
            key.kind === query.kind &&
            key.value === query.value &&
            (finding.agentId === query.agentId) === (query.where === 'thisHost'),
        )
        const [first] = left
        if (first === undefined) return []
        const eventMs = Math.max(...left.map(({ finding }) => finding.eventMs))
        return [{ incident: number, eventMs, hostName: first.finding.hostName }]
      })

  const view: IncidentView = {
    holders,
    activeOnHost(agentId) {
      const here = incidents.filter(({ members }) => members.some((member) => member.agentId === agentId))
      return { count: here.length, newest: here.at(-1)?.number ?? null }
    },
  }

  return {
    incidents,
    take(finding) {
      const decision = correlate(finding, view)
      let incident = incidents.find(({ number }) => decision.kind === 'join' && number === decision.incident)
      if (incident === undefined) {
        incident = { number: incidents.length + 1, lastDetectionMs: 0, members: [], keys: [] }
        incidents.push(incident)
      }
      incident.members.push(finding)
      incident.lastDetectionMs = Math.max(incident.lastDetectionMs, finding.receivedMs)
      incident.keys.push(...keysLeftBy(finding).map((key) => ({ key, finding })))
      return { incident: incident.number, decision }
    },
  }
}
