/** Intents in their exact bytes, and the operators' signatures over them. */
import type { Sqlite } from '../../shared/node/sqlite.ts'
import type { CommandClass } from '../../shared/protocol/commands.ts'

export interface IntentRow {
  readonly intent_id: string
  readonly class: CommandClass
  readonly action: string
  readonly bytes: Buffer
  readonly requested_by: string
  readonly created_ms: number
  readonly expires_ms: number
  readonly idempotency_key: string | null
  readonly request_hash: string
}

interface IntentSignatureRow {
  readonly intent_id: string
  readonly key_id: string
  /** Hex. */
  readonly signature: string
  /** The name that the keyset gave the key when it signed. */
  readonly operator: string
  readonly by: string
  readonly at_ms: number
}

export interface IntentsTable {
  get(intentId: string): IntentRow | undefined
  byIdempotencyKey(requestedBy: string, key: string): IntentRow | undefined
  insert(row: Omit<IntentRow, 'bytes'> & { readonly bytes: Uint8Array }): void
  signatures(intentId: string): readonly IntentSignatureRow[]
  addSignature(row: IntentSignatureRow): void
}

export function createIntentsTable(db: Sqlite): IntentsTable {
  const get = db.prepare<[string], IntentRow>('SELECT * FROM intent WHERE intent_id = ?')
  const byKey = db.prepare<[string, string], IntentRow>(
    'SELECT * FROM intent WHERE requested_by = ? AND idempotency_key = ?',
  )
  const insert = db.prepare(
    `INSERT INTO intent (intent_id, class, action, bytes, requested_by, created_ms, expires_ms, idempotency_key,
       request_hash)
     VALUES (@intent_id, @class, @action, @bytes, @requested_by, @created_ms, @expires_ms, @idempotency_key,
       @request_hash)`,
  )
  const signatures = db.prepare<[string], IntentSignatureRow>(
    'SELECT * FROM intent_signature WHERE intent_id = ? ORDER BY at_ms, key_id',
  )
  const addSignature = db.prepare<IntentSignatureRow>(
    `INSERT INTO intent_signature (intent_id, key_id, signature, operator, by, at_ms)
     VALUES (@intent_id, @key_id, @signature, @operator, @by, @at_ms)`,
  )
  return {
    get: (intentId) => get.get(intentId),
    byIdempotencyKey: (requestedBy, key) => byKey.get(requestedBy, key),
    insert: (row) => {
      insert.run(row)
    },
    signatures: (intentId) => signatures.all(intentId),
    addSignature: (row) => {
      addSignature.run(row)
    },
  }
}
