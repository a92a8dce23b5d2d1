/**
 * Sessions: a random 256-bit token that only its owner has; the database holds its SHA-256. A session ends
 * 12 hours after it began, after an hour of silence, on sign-out, or when its user is disabled.
 */
import { createHash, randomBytes } from 'node:crypto'
import type { Sqlite } from '../../shared/node/sqlite.ts'
import { whenItCan } from '../state/database-failure.ts'
import type { Role } from './role.ts'

export const SESSION_ABSOLUTE_MS = 12 * 3_600_000
export const SESSION_IDLE_MS = 3_600_000
const SESSIONS_PER_USER_MAX = 20
/** Being seen is written at most this often: each commit goes to the disk. */
const SEEN_STEP_MS = 60_000

/** A cookie's token is worth nothing as a bearer token, and the other way round. */
export type SessionKind = 'cookie' | 'bearer'

export interface Session {
  readonly name: string
  readonly role: Role
  readonly kind: SessionKind
  /** First 16 hex digits of the token's hash: tells sessions apart, opens nothing. */
  readonly sessionId: string
  /** Cookie sessions repeat it in a header when they change something. */
  readonly csrfToken: string
  readonly expiresMs: number
}

export interface NewSession extends Session {
  readonly token: string
}

interface SessionRow {
  kind: SessionKind
  created_ms: number
  seen_ms: number
  name: string
  role: Role
}

export function createSessionStore(db: Sqlite, clock: () => number) {
  const insert = db.prepare<[Buffer, string, string, number, number]>(
    'INSERT INTO session (token_hash, user_name, kind, created_ms, seen_ms) VALUES (?, ?, ?, ?, ?)',
  )
  const find = db.prepare<[Buffer], SessionRow>(
    `SELECT session.kind, session.created_ms, session.seen_ms, user.name, user.role FROM session
     JOIN user ON user.name = session.user_name WHERE token_hash = ? AND user.disabled_ms IS NULL`,
  )
  const seen = db.prepare<[number, Buffer]>('UPDATE session SET seen_ms = ? WHERE token_hash = ?')
  const remove = db.prepare<[Buffer]>('DELETE FROM session WHERE token_hash = ?')
  const removeOf = db.prepare<[string]>('DELETE FROM session WHERE user_name = ?')
  const removeOld = db.prepare<[number, number]>('DELETE FROM session WHERE created_ms <= ? OR seen_ms <= ?')
  const removeMany = db.prepare<[string, string, number]>(
    `DELETE FROM session WHERE user_name = ? AND token_hash NOT IN
     (SELECT token_hash FROM session WHERE user_name = ? ORDER BY created_ms DESC, rowid DESC LIMIT ?)`,
  )

  return {
    create(name: string, role: Role, kind: SessionKind): NewSession {
      const token = randomBytes(32).toString('base64url')
      const nowMs = clock()
      db.transaction(() => {
        removeOld.run(nowMs - SESSION_ABSOLUTE_MS, nowMs - SESSION_IDLE_MS)
        insert.run(tokenHash(token), name, kind, nowMs, nowMs)
        removeMany.run(name, name, SESSIONS_PER_USER_MAX)
      })()
      return { ...describe(token, { name, role, kind, created_ms: nowMs }), token }
    },
    find(token: string, kind: SessionKind): Session | undefined {
      const hash = tokenHash(token)
      const row = find.get(hash)
      if (!row || row.kind !== kind) return undefined
      const nowMs = clock()
      if (nowMs >= row.created_ms + SESSION_ABSOLUTE_MS || nowMs >= row.seen_ms + SESSION_IDLE_MS) {
        remove.run(hash)
        return undefined
      }
      // Who is signed in can still look while the disk is full.
      if (nowMs - row.seen_ms >= SEEN_STEP_MS) whenItCan(() => seen.run(nowMs, hash))
      return describe(token, row)
    },
    end(token: string): void {
      remove.run(tokenHash(token))
    },
    endAllOf(name: string): void {
      removeOf.run(name)
    },
    endAll(): void {
      db.exec('DELETE FROM session')
    },
  }
}

function describe(token: string, row: Omit<SessionRow, 'seen_ms'>): Session {
  return {
    name: row.name,
    role: row.role,
    kind: row.kind,
    sessionId: tokenHash(token).toString('hex').slice(0, 16),
    csrfToken: createHash('sha256').update(`cordon/csrf/v1\0${token}`).digest('base64url'),
    expiresMs: row.created_ms + SESSION_ABSOLUTE_MS,
  }
}

function tokenHash(token: string): Buffer {
  return createHash('sha256').update(`cordon/session/v1\0${token}`).digest()
}
