/**
 * Enrolment tokens: `<id>.<secret>.<root pin>`. Stored hashed, valid for an hour at most, for one host: the
 * first key that uses a token owns it, and may ask again when the answer was lost.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto'
import { sha256Hex } from '../../shared/node/signing.ts'
import type { Sqlite } from '../../shared/node/sqlite.ts'
import { failed, type Outcome, type PkiError } from './outcome.ts'

const ttlMsMax = 3_600_000
/** Wrong secrets after which a token is worth nothing. */
export const TOKEN_ATTEMPTS_MAX = 5
/** Used and expired tokens stay this long, so that a reuse is told from a guess. */
const keptMs = 24 * 3_600_000

export interface TokenRow {
  readonly id: string
  readonly secret_hash: string
  readonly group_name: string
  readonly created_by: string
  readonly expires_at: number
  readonly failed_attempts: number
  readonly used_at: number | null
  readonly used_by_key: string | null
}

export type TokenError = PkiError<'tokenInvalid' | 'tokenExhausted'>

export interface EnrolmentTokens {
  /** Returns the id and the secret, which is not kept. */
  create(by: string, group: string, ttlMs: number): { id: string; secret: string; expiresAtMs: number }
  /** The token whose secret this is. Counts what fails. */
  open(id: string, secret: string): Outcome<TokenRow, TokenError>
  /** Binds an unused token to the key. Part of the caller's transaction. */
  use(id: string, keyFingerprint: string): boolean
}

/** After a restore: a token of the backup may have been used since, and would be good for a second host. */
export function forgetUnusedTokens(database: Sqlite): void {
  database.exec('DELETE FROM token WHERE used_at IS NULL')
}

export function createEnrolmentTokens(database: Sqlite, clock: () => number): EnrolmentTokens {
  const insert = database.prepare<[string, string, string, string, number]>(
    'INSERT INTO token (id, secret_hash, group_name, created_by, expires_at) VALUES (?, ?, ?, ?, ?)',
  )
  const select = database.prepare<[string], TokenRow>('SELECT * FROM token WHERE id = ?')
  const countFailure = database.prepare<[string]>(
    'UPDATE token SET failed_attempts = failed_attempts + 1 WHERE id = ?',
  )
  const markUsed = database.prepare<[number, string, string]>(
    'UPDATE token SET used_at = ?, used_by_key = ? WHERE id = ? AND used_at IS NULL',
  )
  const prune = database.prepare<[number]>('DELETE FROM token WHERE expires_at < ?')
  return {
    create(by, group, ttlMs) {
      const id = randomBytes(8).toString('hex')
      const secret = randomBytes(32).toString('hex')
      const expiresAtMs = clock() + Math.min(ttlMs, ttlMsMax)
      prune.run(clock() - keptMs)
      insert.run(id, sha256Hex(Buffer.from(secret, 'hex')), group, by, expiresAtMs)
      return { id, secret, expiresAtMs }
    },
    open(id, secret) {
      const row = select.get(id)
      const given = Buffer.from(sha256Hex(Buffer.from(secret, 'hex')), 'hex')
      // An unknown id is compared too, so that the time taken does not tell ids that exist.
      const kept = row ? Buffer.from(row.secret_hash, 'hex') : Buffer.alloc(32)
      const equal = timingSafeEqual(given, kept)
      if (!row) return failed('tokenInvalid', 'the token is not known')
      if (row.failed_attempts >= TOKEN_ATTEMPTS_MAX)
        return failed('tokenExhausted', 'too many wrong attempts')
      if (equal) return { ok: true, value: row }
      countFailure.run(id)
      return failed('tokenInvalid', 'the token is not known')
    },
    use: (id, keyFingerprint) => markUsed.run(clock(), keyFingerprint, id).changes === 1,
  }
}
