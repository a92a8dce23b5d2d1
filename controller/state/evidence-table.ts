/** Files that agents were told to copy here: what each offered, how much of it has come, and whether it is whole. */
import type { Sqlite } from '../../shared/node/sqlite.ts'

export interface EvidenceRow {
  readonly command_id: string
  readonly agent_id: string
  readonly host_name: string
  readonly path: string
  readonly size_bytes: number
  readonly sha256: string
  /** JSON of the FileOffer message, as the agent told it. */
  readonly offer: string
  /** `complete`: stored under its hash, which was measured here. `failed`: nothing is kept. */
  readonly state: 'receiving' | 'complete' | 'failed'
  /** On disk for certain; what came since the last note may be, too. */
  readonly received_bytes: number
  readonly offered_ms: number
  readonly changed_ms: number
  readonly collected_ms: number | null
  /** Why it failed. */
  readonly reason: string | null
}

export interface EvidenceTable {
  get(commandId: string): EvidenceRow | undefined
  /** Newest first. */
  list(filter: { readonly agentId?: string }, limit: number): readonly EvidenceRow[]
  receiving(): readonly EvidenceRow[]
  /** Bytes of what is kept, each content once, and of all that was offered and is on its way. */
  heldBytes(): number
  offered(
    row: Pick<
      EvidenceRow,
      'command_id' | 'agent_id' | 'host_name' | 'path' | 'size_bytes' | 'sha256' | 'offer' | 'offered_ms'
    >,
  ): void
  received(commandId: string, bytes: number, atMs: number): void
  completed(commandId: string, atMs: number): void
  failed(commandId: string, reason: string, atMs: number): void
}

export function createEvidenceTable(db: Sqlite): EvidenceTable {
  const get = db.prepare<[string], EvidenceRow>('SELECT * FROM evidence WHERE command_id = ?')
  const list = db.prepare<[number], EvidenceRow>(
    'SELECT * FROM evidence ORDER BY offered_ms DESC, command_id LIMIT ?',
  )
  const listOfAgent = db.prepare<[string, number], EvidenceRow>(
    'SELECT * FROM evidence WHERE agent_id = ? ORDER BY offered_ms DESC, command_id LIMIT ?',
  )
  const receiving = db.prepare<[], EvidenceRow>("SELECT * FROM evidence WHERE state = 'receiving'")
  const heldBytes = db.prepare<[], { bytes: number }>(
    `SELECT
       (SELECT coalesce(sum(size_bytes), 0) FROM
         (SELECT size_bytes FROM evidence WHERE state = 'complete' GROUP BY sha256))
       + (SELECT coalesce(sum(size_bytes), 0) FROM evidence WHERE state = 'receiving') AS bytes`,
  )
  const offered = db.prepare(
    `INSERT INTO evidence (command_id, agent_id, host_name, path, size_bytes, sha256, offer, state, received_bytes,
       offered_ms, changed_ms)
     VALUES (@command_id, @agent_id, @host_name, @path, @size_bytes, @sha256, @offer, 'receiving', 0,
       @offered_ms, @offered_ms)`,
  )
  const received = db.prepare<[number, number, string]>(
    "UPDATE evidence SET received_bytes = ?, changed_ms = ? WHERE command_id = ? AND state = 'receiving'",
  )
  const completed = db.prepare<[number, number, string]>(
    `UPDATE evidence SET state = 'complete', received_bytes = size_bytes, collected_ms = ?, changed_ms = ?
     WHERE command_id = ?`,
  )
  const failed = db.prepare<[string, number, string]>(
    "UPDATE evidence SET state = 'failed', received_bytes = 0, reason = ?, changed_ms = ? WHERE command_id = ?",
  )
  return {
    get: (commandId) => get.get(commandId),
    list: ({ agentId }, limit) => (agentId === undefined ? list.all(limit) : listOfAgent.all(agentId, limit)),
    receiving: () => receiving.all(),
    heldBytes: () => heldBytes.get()?.bytes ?? 0,
    offered: (row) => {
      offered.run(row)
    },
    received: (commandId, bytes, atMs) => {
      received.run(bytes, atMs, commandId)
    },
    completed: (commandId, atMs) => {
      completed.run(atMs, atMs, commandId)
    },
    failed: (commandId, reason, atMs) => {
      failed.run(reason, atMs, commandId)
    },
  }
}
