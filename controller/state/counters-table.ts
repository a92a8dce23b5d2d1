/** Numbers that only rise: incident numbers, the delivery epoch, and each agent's wrapper sequence. */
import type { Sqlite } from '../../shared/node/sqlite.ts'

export interface CountersTable {
  nextIncidentNumber(): number
  epoch(): number
  /**
   * After a restore from a backup: every sequence used before is worth nothing in the new epoch, which is higher
   * than the present one and no lower than `atLeast`.
   */
  raiseEpoch(atLeast?: number): number
  /** The next sequence for this agent in the current epoch. */
  nextDelivery(agentId: string): { readonly epoch: number; readonly sequence: number }
}

export function createCountersTable(db: Sqlite): CountersTable {
  const raise = db.prepare<[string], { value: number }>(
    `INSERT INTO counter (name, value) VALUES (?, 1)
     ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value`,
  )
  const raiseTo = db.prepare<[number], { value: number }>(
    "UPDATE counter SET value = max(value + 1, ?) WHERE name = 'epoch' RETURNING value",
  )
  const start = db.prepare<[string]>('INSERT OR IGNORE INTO counter (name, value) VALUES (?, 1)')
  const read = db.prepare<[string], { value: number }>('SELECT value FROM counter WHERE name = ?')
  const deliver = db.prepare<[string, number], { sequence: number }>(
    `INSERT INTO delivery (agent_id, epoch, sequence) VALUES (?, ?, 1)
     ON CONFLICT (agent_id) DO UPDATE SET
       sequence = CASE WHEN delivery.epoch = excluded.epoch THEN sequence + 1 ELSE 1 END,
       epoch = excluded.epoch
     RETURNING sequence`,
  )
  start.run('epoch')

  const numberIn = (row: { value: number } | undefined): number => {
    if (row === undefined) throw new Error('a counter is missing from the state database')
    return row.value
  }
  const counters: CountersTable = {
    nextIncidentNumber: () => numberIn(raise.get('incident')),
    epoch: () => numberIn(read.get('epoch')),
    raiseEpoch: (atLeast = 0) => numberIn(raiseTo.get(atLeast)),
    nextDelivery(agentId) {
      const epoch = counters.epoch()
      const row = deliver.get(agentId, epoch)
      if (row === undefined) throw new Error('a delivery sequence was not returned')
      return { epoch, sequence: row.sequence }
    },
  }
  return counters
}
