/** How far each consumer of the event store has come. Written in the transaction of what it did. */
import type { Sqlite } from '../../shared/node/sqlite.ts'

export interface ConsumerTable {
  /** `''` before the first event. */
  cursor(name: string): string
  advance(name: string, cursor: string): void
  /** Every consumer begins again with the first event: after a restore without the events. */
  restart(): void
}

export function createConsumerTable(db: Sqlite): ConsumerTable {
  const read = db.prepare<[string], { cursor: string }>('SELECT cursor FROM consumer WHERE name = ?')
  const write = db.prepare<[string, string]>(
    `INSERT INTO consumer (name, cursor) VALUES (?, ?)
     ON CONFLICT (name) DO UPDATE SET cursor = excluded.cursor`,
  )
  const restart = db.prepare('DELETE FROM consumer')
  return {
    cursor: (name) => read.get(name)?.cursor ?? '',
    advance: (name, cursor) => {
      write.run(name, cursor)
    },
    restart: () => {
      restart.run()
    },
  }
}
