/** Notes and changes of status of incidents, in the order they were written. */
import type { Sqlite } from '../../shared/node/sqlite.ts'

/** Entries kept per incident; further ones are refused, so that a loop cannot fill the disk. */
const ENTRIES_PER_INCIDENT_MAX = 5_000

interface IncidentEntry {
  readonly atMs: number
  readonly kind: 'note' | 'status'
  readonly by: string
  readonly text: string
}

export interface IncidentEntriesTable {
  list(incident: number): readonly IncidentEntry[]
  /** False when the incident is full. */
  add(incident: number, entry: IncidentEntry): boolean
}

export function createIncidentEntriesTable(db: Sqlite): IncidentEntriesTable {
  const list = db.prepare<[number], IncidentEntry>(
    'SELECT at_ms AS atMs, kind, by, text FROM incident_entry WHERE incident = ? ORDER BY id',
  )
  const add = db.prepare<IncidentEntry & { incident: number }>(
    `INSERT INTO incident_entry (incident, at_ms, kind, by, text)
     SELECT @incident, @atMs, @kind, @by, @text
     WHERE (SELECT count(*) FROM incident_entry WHERE incident = @incident) < ${ENTRIES_PER_INCIDENT_MAX}`,
  )
  return {
    list: (incident) => list.all(incident),
    add: (incident, entry) => add.run({ ...entry, incident }).changes === 1,
  }
}
