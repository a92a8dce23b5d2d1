/** Hosts as they told of themselves. Nothing here decides who may do what: that is the certificates' part. */
import type { Sqlite } from '../../shared/node/sqlite.ts'

export interface HostRow {
  readonly agent_id: string
  readonly host_name: string
  /** JSON of the Inventory message. */
  readonly inventory: string
  readonly agent_version: string
  readonly boot_id: string | null
  readonly enrolled_ms: number
  readonly last_seen_ms: number | null
  /** JSON of the last Status message. */
  readonly status: string | null
  readonly revoked_ms: number | null
}

export interface HostsTable {
  get(agentId: string): HostRow | undefined
  list(): readonly HostRow[]
  /** Keeps what a field's null or an existing row already says of version, boot, enrolment and status. */
  upsert(row: {
    readonly agentId: string
    readonly hostName: string
    readonly inventory: string
    readonly agentVersion: string | null
    readonly bootId: string | null
    readonly atMs: number
    readonly seen: boolean
  }): void
  started(agentId: string, agentVersion: string, bootId: string): void
  status(agentId: string, status: string, atMs: number): void
  seen(agentId: string, atMs: number): void
  revoked(agentId: string, atMs: number): boolean
}

export function createHostsTable(db: Sqlite): HostsTable {
  const get = db.prepare<[string], HostRow>('SELECT * FROM host WHERE agent_id = ?')
  const list = db.prepare<[], HostRow>('SELECT * FROM host ORDER BY host_name, agent_id')
  const upsert = db.prepare(
    `INSERT INTO host (agent_id, host_name, inventory, agent_version, boot_id, enrolled_ms, last_seen_ms)
     VALUES (@agentId, @hostName, @inventory, coalesce(@agentVersion, ''), @bootId, @atMs, @seenMs)
     ON CONFLICT (agent_id) DO UPDATE SET
       host_name = excluded.host_name,
       inventory = excluded.inventory,
       agent_version = coalesce(@agentVersion, agent_version),
       boot_id = coalesce(@bootId, boot_id),
       last_seen_ms = coalesce(@seenMs, last_seen_ms)`,
  )
  const started = db.prepare<[string, string, string]>(
    'UPDATE host SET agent_version = ?, boot_id = ? WHERE agent_id = ?',
  )
  const status = db.prepare<[string, number, string]>(
    'UPDATE host SET status = ?, last_seen_ms = ? WHERE agent_id = ?',
  )
  const seen = db.prepare<[number, string]>('UPDATE host SET last_seen_ms = ? WHERE agent_id = ?')
  const revoked = db.prepare<[number, string]>(
    'UPDATE host SET revoked_ms = ? WHERE agent_id = ? AND revoked_ms IS NULL',
  )
  return {
    get: (agentId) => get.get(agentId),
    list: () => list.all(),
    upsert({ seen: isSeen, ...row }) {
      upsert.run({ ...row, seenMs: isSeen ? row.atMs : null })
    },
    started: (agentId, agentVersion, bootId) => {
      started.run(agentVersion, bootId, agentId)
    },
    status: (agentId, text, atMs) => {
      status.run(text, atMs, agentId)
    },
    seen: (agentId, atMs) => {
      seen.run(atMs, agentId)
    },
    revoked: (agentId, atMs) => revoked.run(atMs, agentId).changes === 1,
  }
}
