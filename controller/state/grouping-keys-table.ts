/** What active incidents can be recognised by. Values are digests: an agent's texts never widen a row. */
import { createHash } from 'node:crypto'
import type { Sqlite } from '../../shared/node/sqlite.ts'
import type { GroupingKey, Holder, KeyQuery } from '../correlate/correlate.ts'

/** Incidents looked at per key; one key in more incidents than this says little. */
const HOLDERS_MAX = 32

export interface GroupingKeysTable {
  holders(query: KeyQuery): readonly Holder[]
  leave(incident: number, agentId: string, eventMs: number, keys: readonly GroupingKey[]): void
  has(incident: number, agentId: string, key: GroupingKey): boolean
  /** Drops the keys of incidents that take no more detections, because their window has ended. */
  purge(lastDetectionBeforeMs: number): void
}

export function createGroupingKeysTable(db: Sqlite): GroupingKeysTable {
  const holders = (comparison: '=' | '<>') =>
    db.prepare<[string, Buffer, string, number, number], Holder>(
      `SELECT k.incident, max(k.event_ms) AS eventMs, coalesce(h.host_name, k.agent_id) AS hostName
       FROM grouping_key k
       JOIN incident i ON i.number = k.incident
       LEFT JOIN host h ON h.agent_id = k.agent_id
       WHERE k.kind = ? AND k.value = ? AND k.agent_id ${comparison} ?
         AND i.status <> 'closed' AND i.last_detection_ms >= ? AND i.detection_count < ?
       GROUP BY k.incident ORDER BY k.incident LIMIT ${HOLDERS_MAX}`,
    )
  const here = holders('=')
  const elsewhere = holders('<>')
  const leave = db.prepare<[string, Buffer, string, number, number]>(
    `INSERT INTO grouping_key (kind, value, agent_id, incident, event_ms) VALUES (?, ?, ?, ?, ?)
     ON CONFLICT DO UPDATE SET event_ms = max(event_ms, excluded.event_ms)`,
  )
  const has = db.prepare<[string, Buffer, string, number]>(
    'SELECT 1 FROM grouping_key WHERE kind = ? AND value = ? AND agent_id = ? AND incident = ?',
  )
  const purge = db.prepare<[number]>(
    'DELETE FROM grouping_key WHERE incident IN (SELECT number FROM incident WHERE last_detection_ms < ?)',
  )
  return {
    holders({ kind, value, agentId, where, activeSinceMs, detectionsBelow }) {
      const statement = where === 'thisHost' ? here : elsewhere
      return statement.all(kind, digest(value), agentId, activeSinceMs, detectionsBelow)
    },
    leave(incident, agentId, eventMs, keys) {
      for (const { kind, value } of keys) leave.run(kind, digest(value), agentId, incident, eventMs)
    },
    has: (incident, agentId, { kind, value }) =>
      has.get(kind, digest(value), agentId, incident) !== undefined,
    purge: (lastDetectionBeforeMs) => {
      purge.run(lastDetectionBeforeMs)
    },
  }
}

function digest(value: string): Buffer {
  return createHash('sha256').update(value).digest().subarray(0, 16)
}
