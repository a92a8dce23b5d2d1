/** Codes that end the isolation of a host on the host itself. Worth something only to who is root there. */
import type { Sqlite } from '../../shared/node/sqlite.ts'

export interface BreakGlassRow {
  readonly commandId: string
  readonly agentId: string
  readonly code: string
  readonly createdMs: number
}

export interface BreakGlassTable {
  insert(row: BreakGlassRow): void
  of(commandId: string): BreakGlassRow | undefined
  /** Of commands that reached the host, the newest. */
  latest(agentId: string): BreakGlassRow | undefined
}

const COLUMNS = 'b.command_id AS commandId, b.agent_id AS agentId, b.code, b.created_ms AS createdMs'

export function createBreakGlassTable(db: Sqlite): BreakGlassTable {
  const insert = db.prepare<BreakGlassRow>(
    'INSERT INTO break_glass (command_id, agent_id, code, created_ms) VALUES (@commandId, @agentId, @code, @createdMs)',
  )
  const of = db.prepare<[string], BreakGlassRow>(
    `SELECT ${COLUMNS} FROM break_glass b WHERE b.command_id = ?`,
  )
  const latest = db.prepare<[string], BreakGlassRow>(
    `SELECT ${COLUMNS} FROM break_glass b JOIN action a USING (command_id)
     WHERE b.agent_id = ? AND a.deliveries > 0 ORDER BY b.created_ms DESC, b.command_id LIMIT 1`,
  )
  return {
    insert: (row) => {
      insert.run(row)
    },
    of: (commandId) => of.get(commandId),
    latest: (agentId) => latest.get(agentId),
  }
}
