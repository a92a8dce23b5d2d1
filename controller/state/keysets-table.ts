/** Keysets as they were accepted: exact bytes and the root's signature. The highest version is in force. */
import type { Sqlite } from '../../shared/node/sqlite.ts'

export interface KeysetRow {
  readonly version: number
  readonly bytes: Buffer
  readonly root_signature: Buffer
  readonly accepted_ms: number
  readonly by: string
}

export interface KeysetsTable {
  current(): KeysetRow | undefined
  insert(
    row: Omit<KeysetRow, 'bytes' | 'root_signature'> & { bytes: Uint8Array; root_signature: Uint8Array },
  ): void
}

export function createKeysetsTable(db: Sqlite): KeysetsTable {
  const current = db.prepare<[], KeysetRow>('SELECT * FROM keyset ORDER BY version DESC LIMIT 1')
  const insert = db.prepare(
    `INSERT INTO keyset (version, bytes, root_signature, accepted_ms, by)
     VALUES (@version, @bytes, @root_signature, @accepted_ms, @by)`,
  )
  return {
    current: () => current.get(),
    insert: (row) => {
      insert.run(row)
    },
  }
}
