/** Incidents, the hosts in them, and how they relate. */
import type { Sqlite } from '../../shared/node/sqlite.ts'

/** As many hosts as an incident lists; detections of further hosts still count. */
const HOSTS_MAX = 1_000

type IncidentStatus = 'open' | 'contained' | 'closed'

export interface IncidentRow {
  readonly number: number
  readonly title: string
  readonly status: IncidentStatus
  readonly severity: number
  readonly started_ms: number
  readonly detected_ms: number
  readonly opened_ms: number
  readonly updated_ms: number
  readonly last_detection_ms: number
  readonly contained_ms: number | null
  readonly reopened_ms: number | null
  readonly closed_ms: number | null
  readonly assignee: string | null
  readonly detection_count: number
  readonly leading_severity: number
  readonly leading_ms: number
}

interface IncidentHost {
  readonly agentId: string
  readonly hostName: string
}

/** What one more detection makes of an incident. */
interface DetectionEffect {
  readonly number: number
  readonly severity: number
  /** When what was found happened, and when it was found. */
  readonly startedMs: number
  readonly eventMs: number
  readonly receivedMs: number
  /** Takes effect when this detection leads: it is more severe, or as severe and earlier. */
  readonly title: string
}

export interface IncidentsTable {
  get(number: number): IncidentRow | undefined
  /** Newest first; `active` ones are those that are not closed. */
  list(status: IncidentStatus | 'active' | null, limit: number): readonly IncidentRow[]
  open(row: DetectionEffect): void
  addDetection(effect: DetectionEffect): void
  touch(number: number, atMs: number): void
  /** A known detection was reported again: the incident is alive. */
  repeated(number: number, receivedMs: number): void
  contain(number: number, atMs: number): void
  /** `newMs`: what was found then is new, so what was done before does not contain it; null when nothing is. */
  reopen(number: number, atMs: number, newMs: number | null): void
  close(number: number, atMs: number): void
  hosts(number: number): readonly IncidentHost[]
  addHost(number: number, host: IncidentHost): void
  activeOnHost(agentId: string): { readonly count: number; readonly newest: number | null }
  /** False when the two were already known to be related. */
  relate(number: number, related: number, because: string): boolean
}

export function createIncidentsTable(db: Sqlite): IncidentsTable {
  const get = db.prepare<[number], IncidentRow>('SELECT * FROM incident WHERE number = ?')
  const listAll = db.prepare<[number], IncidentRow>('SELECT * FROM incident ORDER BY number DESC LIMIT ?')
  const listByStatus = db.prepare<[string, number], IncidentRow>(
    'SELECT * FROM incident WHERE status = ? ORDER BY number DESC LIMIT ?',
  )
  const listActive = db.prepare<[number], IncidentRow>(
    "SELECT * FROM incident WHERE status <> 'closed' ORDER BY number DESC LIMIT ?",
  )
  const open = db.prepare<DetectionEffect>(
    `INSERT INTO incident (number, title, status, severity, started_ms, detected_ms, opened_ms, updated_ms,
       last_detection_ms, detection_count, leading_severity, leading_ms)
     VALUES (@number, @title, 'open', @severity, @startedMs, @eventMs, @receivedMs, @receivedMs,
       @receivedMs, 1, @severity, @eventMs)`,
  )
  const leads = '(@severity > leading_severity OR (@severity = leading_severity AND @eventMs < leading_ms))'
  const addDetection = db.prepare<DetectionEffect>(
    `UPDATE incident SET
       title = CASE WHEN ${leads} THEN @title ELSE title END,
       leading_severity = CASE WHEN ${leads} THEN @severity ELSE leading_severity END,
       leading_ms = CASE WHEN ${leads} THEN @eventMs ELSE leading_ms END,
       severity = max(severity, @severity),
       started_ms = min(started_ms, @startedMs),
       detected_ms = min(detected_ms, @eventMs),
       updated_ms = max(updated_ms, @receivedMs),
       last_detection_ms = max(last_detection_ms, @receivedMs),
       detection_count = detection_count + 1
     WHERE number = @number`,
  )
  const touch = db.prepare<[number, number]>(
    'UPDATE incident SET updated_ms = max(updated_ms, ?) WHERE number = ?',
  )
  const repeated = db.prepare<[number, number, number]>(
    `UPDATE incident SET updated_ms = max(updated_ms, ?), last_detection_ms = max(last_detection_ms, ?)
     WHERE number = ?`,
  )
  const contain = db.prepare<[number, number, number]>(
    "UPDATE incident SET status = 'contained', contained_ms = ?, updated_ms = ? WHERE number = ?",
  )
  const reopen = db.prepare<[number | null, number, number]>(
    `UPDATE incident SET status = 'open', contained_ms = NULL, closed_ms = NULL,
       reopened_ms = coalesce(?, reopened_ms), updated_ms = ?
     WHERE number = ?`,
  )
  const close = db.prepare<[number, number, number]>(
    "UPDATE incident SET status = 'closed', closed_ms = ?, updated_ms = ? WHERE number = ?",
  )
  const hosts = db.prepare<[number], IncidentHost>(
    `SELECT agent_id AS agentId, host_name AS hostName FROM incident_host
     WHERE incident = ? ORDER BY host_name, agent_id LIMIT ${HOSTS_MAX}`,
  )
  const addHost = db.prepare<[number, string, string, number]>(
    `INSERT INTO incident_host (incident, agent_id, host_name)
     SELECT ?, ?, ? WHERE (SELECT count(*) FROM incident_host WHERE incident = ?) < ${HOSTS_MAX}
     ON CONFLICT DO NOTHING`,
  )
  const activeOnHost = db.prepare<[string], { count: number; newest: number | null }>(
    `SELECT count(*) AS count, max(i.number) AS newest
     FROM incident_host h JOIN incident i ON i.number = h.incident
     WHERE h.agent_id = ? AND i.status <> 'closed'`,
  )
  const relate = db.prepare<[number, number, string]>(
    'INSERT INTO incident_relation (incident, related, because) VALUES (?, ?, ?) ON CONFLICT DO NOTHING',
  )
  return {
    get: (number) => get.get(number),
    list(status, limit) {
      if (status === null) return listAll.all(limit)
      return status === 'active' ? listActive.all(limit) : listByStatus.all(status, limit)
    },
    open: (effect) => {
      open.run(effect)
    },
    addDetection: (effect) => {
      addDetection.run(effect)
    },
    touch: (number, atMs) => {
      touch.run(atMs, number)
    },
    contain: (number, atMs) => {
      contain.run(atMs, atMs, number)
    },
    repeated: (number, receivedMs) => {
      repeated.run(receivedMs, receivedMs, number)
    },
    reopen: (number, atMs, newMs) => {
      reopen.run(newMs, atMs, number)
    },
    close: (number, atMs) => {
      close.run(atMs, atMs, number)
    },
    hosts: (number) => hosts.all(number),
    addHost: (number, { agentId, hostName }) => {
      addHost.run(number, agentId, hostName, number)
    },
    activeOnHost: (agentId) => activeOnHost.get(agentId) ?? { count: 0, newest: null },
    relate: (number, related, because) => relate.run(number, related, because).changes === 1,
  }
}
