/** Detections: each in exactly one incident, each once however often it is reported. */
import type { Sqlite } from '../../shared/node/sqlite.ts'

export interface DetectionRow {
  readonly agent_id: string
  readonly id: string
  readonly incident: number
  readonly host_name: string
  readonly detected_ms: number
  readonly last_detected_ms: number
  readonly stored_ms: number
  readonly engine: string
  readonly severity: number
  readonly rule_id: string
  readonly rule_name: string
  /** JSON list. */
  readonly techniques: string
  readonly indicator: string | null
  readonly entity_id: string | null
  readonly session_leader: string | null
  /** JSON list, nearest first. */
  readonly ancestors: string
  readonly process_name: string | null
  readonly command_line: string | null
  readonly parent_executable: string | null
  readonly file_path: string | null
  readonly file_sha256: string | null
  readonly grouped_because: string
  readonly seen_by_agent: number
  readonly seen_by_fleet: number
}

export interface DetectionsTable {
  get(agentId: string, id: string): DetectionRow | undefined
  /** In the order of the hosts' clocks. */
  ofIncident(incident: number): readonly DetectionRow[]
  /** Of all incidents, the last stored first. */
  recent(limit: number): readonly DetectionRow[]
  insert(row: DetectionRow): void
  repeat(agentId: string, id: string, source: 'agent' | 'fleet', eventMs: number): void
  /** What the end that found it second knew of the process, and the first did not. */
  enrich(
    row: Pick<
      DetectionRow,
      'agent_id' | 'id' | 'session_leader' | 'ancestors' | 'command_line' | 'parent_executable'
    >,
  ): void
}

export function createDetectionsTable(db: Sqlite): DetectionsTable {
  const get = db.prepare<[string, string], DetectionRow>(
    'SELECT * FROM detection WHERE agent_id = ? AND id = ?',
  )
  const ofIncident = db.prepare<[number], DetectionRow>(
    'SELECT * FROM detection WHERE incident = ? ORDER BY detected_ms, stored_ms, id',
  )
  const recent = db.prepare<[number], DetectionRow>('SELECT * FROM detection ORDER BY stored_ms DESC LIMIT ?')
  const insert = db.prepare<DetectionRow>(
    `INSERT INTO detection VALUES (@agent_id, @id, @incident, @host_name, @detected_ms, @last_detected_ms,
       @stored_ms, @engine, @severity, @rule_id, @rule_name, @techniques, @indicator, @entity_id,
       @session_leader, @ancestors, @process_name, @command_line, @parent_executable, @file_path,
       @file_sha256, @grouped_because, @seen_by_agent, @seen_by_fleet)`,
  )
  const repeat = (column: 'seen_by_agent' | 'seen_by_fleet') =>
    db.prepare<[number, string, string]>(
      `UPDATE detection SET ${column} = ${column} + 1, last_detected_ms = max(last_detected_ms, ?)
       WHERE agent_id = ? AND id = ?`,
    )
  const enrich = db.prepare(
    `UPDATE detection SET ancestors = @ancestors, session_leader = coalesce(session_leader, @session_leader),
       command_line = coalesce(command_line, @command_line),
       parent_executable = coalesce(parent_executable, @parent_executable)
     WHERE agent_id = @agent_id AND id = @id`,
  )
  const repeatOf = { agent: repeat('seen_by_agent'), fleet: repeat('seen_by_fleet') }
  return {
    get: (agentId, id) => get.get(agentId, id),
    ofIncident: (incident) => ofIncident.all(incident),
    recent: (limit) => recent.all(limit),
    insert: (row) => {
      insert.run(row)
    },
    repeat: (agentId, id, source, eventMs) => {
      repeatOf[source].run(eventMs, agentId, id)
    },
    enrich: (row) => {
      enrich.run(row)
    },
  }
}
