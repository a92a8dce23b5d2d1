/** How far each consumer of the event store has come. Written in the transaction of what it did. */
import type { Sqlite } from '../../shared/node/sqlite.ts'

export interface ConsumerTable {
  /** `''` before the first event. */
  cursor(name: string): string
  advance(name: string, cursor: string): void
}

export function createConsumerTable(db: Sqlite): ConsumerTable {
  const read = db.prepare<[string], { cursor: string }>('SELECT cursor FROM consumer WHERE name = ?')
  const write = db.prepare<[string, string]>(
    `INSERT INTO consumer (name, cursor) VALUES (?, ?)
     ON CONFLICT (name) DO UPDATE SET cursor = excluded.cursor`,
  )
  return {
    cursor: (name) => read.get(name)?.cursor ?? '',
    advance: (name, cursor) => {
      write.run(name, cursor)
    },
  }
}
