/** Hosts that should be connected and are not, and when this controller was last alive to hear them. */
import type { Sqlite } from '../../shared/node/sqlite.ts'

export interface Silence {
  readonly agentId: string
  /** Last sign of life, on the wall clock. */
  readonly sinceMs: number
  /** When the alert was raised; null while it may still come back in time. */
  readonly toldMs: number | null
  /** What the agent said when it was stopped in order; null when it said nothing. */
  readonly farewell: string | null
}

export interface SilencesTable {
  get(agentId: string): Silence | undefined
  list(): readonly Silence[]
  /** Keeps an earlier silence of the host that has not ended. */
  begin(agentId: string, sinceMs: number, farewell: string | null): void
  told(agentId: string, atMs: number): void
  end(agentId: string): void
  /** When the controller last said that it is alive; null when it never did. */
  aliveMs(): number | null
  alive(atMs: number): void
}

export function createSilencesTable(db: Sqlite): SilencesTable {
  const columns = 'agent_id AS agentId, since_ms AS sinceMs, told_ms AS toldMs, farewell'
  const get = db.prepare<[string], Silence>(`SELECT ${columns} FROM silence WHERE agent_id = ?`)
  const list = db.prepare<[], Silence>(`SELECT ${columns} FROM silence ORDER BY agent_id`)
  const begin = db.prepare<[string, number, string | null]>(
    `INSERT INTO silence (agent_id, since_ms, farewell) VALUES (?, ?, ?)
     ON CONFLICT (agent_id) DO UPDATE SET farewell = coalesce(excluded.farewell, farewell)`,
  )
  const told = db.prepare<[number, string]>('UPDATE silence SET told_ms = ? WHERE agent_id = ?')
  const end = db.prepare<[string]>('DELETE FROM silence WHERE agent_id = ?')
  const readAlive = db.prepare<[], { at_ms: number }>('SELECT at_ms FROM alive')
  const alive = db.prepare<[number]>(
    'INSERT INTO alive (one, at_ms) VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET at_ms = excluded.at_ms',
  )
  return {
    get: (agentId) => get.get(agentId),
    list: () => list.all(),
    begin: (agentId, sinceMs, farewell) => {
      begin.run(agentId, sinceMs, farewell)
    },
    told: (agentId, atMs) => {
      told.run(atMs, agentId)
    },
    end: (agentId) => {
      end.run(agentId)
    },
    aliveMs: () => readAlive.get()?.at_ms ?? null,
    alive: (atMs) => {
      alive.run(atMs)
    },
  }
}
