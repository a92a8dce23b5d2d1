/** Writes the rows of one batch into the open file, several to a statement: a call costs more than a row. */
import type { Sqlite } from '../../../shared/node/sqlite.ts'
import { COLUMNS_PER_EVENT, type ColumnValue } from './columns.ts'
import type { PackedBatch } from './worker-protocol.ts'

const ROWS_PER_STATEMENT = 8
const ROW = '(?, ?, ?, ?, ?, ?, unhex(?), ?, ?)'
const INSERT = `INSERT INTO event
  (id, batch, time_ms, action, entity_id, parent_entity_id, sha256, destination_ip, path) VALUES `

export interface RowPlace {
  readonly firstEvent: number
  readonly batch: number
}

/** Inserts the batch's rows from index `skip` on. Runs inside the caller's transaction. */
export type EventInserter = (packed: PackedBatch, skip: number, place: RowPlace) => void

export function createEventInserter(db: Sqlite): EventInserter {
  const many = db.prepare<[ColumnValue[]]>(INSERT + Array(ROWS_PER_STATEMENT).fill(ROW).join(', '))
  const one = db.prepare<[ColumnValue[]]>(INSERT + ROW)
  const actions = new Map(
    db
      .prepare<[], { id: number; name: string }>('SELECT id, name FROM action')
      .all()
      .map((row) => [row.name, row.id]),
  )

  const actionId = (name: string): number => {
    const known = actions.get(name)
    if (known !== undefined) return known
    // An action that came with an upgrade after this file was made. Not kept in the map: the transaction may
    // be rolled back.
    db.prepare('INSERT INTO action (name) VALUES (?) ON CONFLICT DO NOTHING').run(name)
    return Number(db.prepare<[string], number>('SELECT id FROM action WHERE name = ?').pluck().get(name))
  }

  return (packed, skip, place) => {
    const columns: ColumnValue[] = JSON.parse(packed.columns)
    const rows = packed.count

    const addRow = (values: ColumnValue[], row: number): void => {
      const at = row * COLUMNS_PER_EVENT
      values.push(place.firstEvent + row - skip, place.batch)
      values.push(columns[at] ?? null, actionId(String(columns[at + 1])))
      for (let column = 2; column < COLUMNS_PER_EVENT; column += 1) values.push(columns[at + column] ?? null)
    }

    let row = skip
    for (; row + ROWS_PER_STATEMENT <= rows; row += ROWS_PER_STATEMENT) {
      const values: ColumnValue[] = []
      for (let next = row; next < row + ROWS_PER_STATEMENT; next += 1) addRow(values, next)
      many.run(values)
    }
    for (; row < rows; row += 1) {
      const values: ColumnValue[] = []
      addRow(values, row)
      one.run(values)
    }
  }
}
