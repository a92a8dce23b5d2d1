/**
 * Operators: who may sign in, with which role, and for how long. Nobody has a default password: the first
 * administrator is made with a code that is shown once, works once, and only while there is no administrator.
 */
import { createHash, randomBytes } from 'node:crypto'
import { openSqlite, type Sqlite } from '../../shared/node/sqlite.ts'
import { ATTEMPT_LIMITS, type AttemptLimits, createAttempts } from './attempts.ts'
import { createPasswordHasher, PASSWORD_COST, passwordProblem, sameBytes } from './password.ts'
import type { Role } from './role.ts'
import { createSessionStore, type NewSession, type Session, type SessionKind } from './session-store.ts'

export const FIRST_SIGN_IN_MS = 3_600_000
const USERS_MAX = 1_000

export interface User {
  readonly name: string
  readonly role: Role
  readonly createdMs: number
  readonly disabledMs: number | null
}

export type OperatorError =
  /** Wrong name, wrong password, wrong code or disabled user: which one is not told. */
  | { readonly kind: 'wrong' }
  | { readonly kind: 'tooMany'; readonly retryAfterMs: number }
  | { readonly kind: 'invalid'; readonly reason: string }
  | { readonly kind: 'exists' }
  | { readonly kind: 'notFound' }

type OperatorOutcome<Value> =
  | { readonly ok: true; readonly value: Value }
  | { readonly ok: false; readonly error: OperatorError }

export interface Credentials {
  readonly name: string
  readonly password: string
  /** Where the attempt comes from, as the socket says it. */
  readonly address: string
  readonly kind: SessionKind
}

export interface Operators {
  /** A code for the first administrator, in place of any earlier one; `null` once there is one. */
  createFirstSignIn(): { readonly code: string; readonly expiresMs: number } | null
  /** Makes the first administrator with the code, and signs them in. */
  useFirstSignIn(code: string, credentials: Credentials): Promise<OperatorOutcome<NewSession>>
  logIn(credentials: Credentials): Promise<OperatorOutcome<NewSession>>
  authenticate(token: string, kind: SessionKind): Session | undefined
  logOut(token: string): void
  users(): readonly User[]
  createUser(name: string, role: Role, password: string): Promise<OperatorOutcome<User>>
  /** Ends the user's sessions with it. The last administrator stays. */
  disableUser(name: string): OperatorOutcome<User>
  /** Signs everybody out: after a restore, which brings back sessions that had ended since. */
  endAllSessions(): void
  close(): void
}

export interface OperatorsOptions {
  /** The database file, `operators.db`. */
  readonly path: string
  readonly clock?: () => number
  /** scrypt's N for new passwords; tests take a cheaper one. */
  readonly passwordCost?: number
  readonly attemptLimits?: AttemptLimits
}

/** `controller` and `agent` are who acts when no operator does. */
const RESERVED_NAMES: ReadonlySet<string> = new Set(['controller', 'agent', 'cordon', 'system', 'nobody'])
export const USER_NAME_PATTERN = '^[a-z][a-z0-9._-]{0,62}[a-z0-9]$'

const MIGRATIONS = [
  `CREATE TABLE user (
     name TEXT PRIMARY KEY, role TEXT NOT NULL, cost INTEGER NOT NULL, salt BLOB NOT NULL, hash BLOB NOT NULL,
     created_ms INTEGER NOT NULL, disabled_ms INTEGER
   ) STRICT;
   CREATE TABLE session (
     token_hash BLOB PRIMARY KEY, user_name TEXT NOT NULL REFERENCES user (name), kind TEXT NOT NULL,
     created_ms INTEGER NOT NULL, seen_ms INTEGER NOT NULL
   ) STRICT;
   CREATE INDEX session_user ON session (user_name);
   CREATE TABLE first_sign_in (
     one INTEGER PRIMARY KEY CHECK (one = 1), code_hash BLOB NOT NULL, expires_ms INTEGER NOT NULL
   ) STRICT;`,
]

interface UserRow {
  name: string
  role: Role
  cost: number
  salt: Buffer
  hash: Buffer
  created_ms: number
  disabled_ms: number | null
}

export function createOperators(options: OperatorsOptions): Operators {
  const clock = options.clock ?? Date.now
  const cost = options.passwordCost ?? PASSWORD_COST
  const db = openSqlite({ path: options.path, migrations: MIGRATIONS })
  const sql = prepare(db)
  const sessions = createSessionStore(db, clock)
  const attempts = createAttempts(clock, options.attemptLimits ?? ATTEMPT_LIMITS)
  const hasher = createPasswordHasher()
  /** Hashed for an unknown name, so that its answer takes as long as a known one's. */
  const nobodySalt = randomBytes(16)

  const newUser = async (name: string, role: Role, password: string): Promise<OperatorOutcome<UserRow>> => {
    const problem = nameProblem(name) ?? passwordProblem(password, name)
    if (problem !== undefined) return refuse({ kind: 'invalid', reason: problem })
    const salt = randomBytes(16)
    const hash = await hasher.hash(password, salt, cost)
    if (!hash) return refuse({ kind: 'tooMany', retryAfterMs: 1_000 })
    return accept({ name, role, cost, salt, hash, created_ms: clock(), disabled_ms: null })
  }

  return {
    createFirstSignIn() {
      if (sql.administrators.get()?.users !== 0) return null
      const code = readableCode()
      const expiresMs = clock() + FIRST_SIGN_IN_MS
      sql.setCode.run(codeHash(code), expiresMs)
      return { code, expiresMs }
    },

    async useFirstSignIn(code, { name, password, address, kind }) {
      const attempt = attempts.begin(`\0first ${address}`, address)
      if (!attempt.ok) return refuse({ kind: 'tooMany', retryAfterMs: attempt.retryAfterMs })
      const codeIsRight = () => {
        const row = sql.code.get()
        return row !== undefined && clock() < row.expires_ms && sameBytes(row.code_hash, codeHash(code))
      }
      // The code comes first: without it nobody learns the rules for names, or makes the machine hash.
      if (!codeIsRight()) return refuse({ kind: 'wrong' })
      attempt.succeeded()
      const user = await newUser(name, 'admin', password)
      if (!user.ok) return user
      // Looked at again: while the password was hashed, another one may have used the code.
      const refused = db.transaction((): OperatorError | undefined => {
        if (!codeIsRight() || sql.administrators.get()?.users !== 0) return { kind: 'wrong' }
        if (sql.user.get(name)) return { kind: 'exists' }
        sql.removeCode.run()
        insertUser(sql, user.value)
        return undefined
      })()
      return refused ? refuse(refused) : accept(sessions.create(name, 'admin', kind))
    },

    async logIn({ name, password, address, kind }) {
      const attempt = attempts.begin(name, address)
      if (!attempt.ok) return refuse({ kind: 'tooMany', retryAfterMs: attempt.retryAfterMs })
      const user = sql.user.get(name)
      const hash = await hasher.hash(password, user?.salt ?? nobodySalt, user?.cost ?? cost)
      if (!hash) return refuse({ kind: 'tooMany', retryAfterMs: 1_000 })
      // Read again: the user may have been disabled meanwhile.
      if (!user || !sameBytes(hash, user.hash) || sql.user.get(name)?.disabled_ms !== null) {
        return refuse({ kind: 'wrong' })
      }
      attempt.succeeded()
      return accept(sessions.create(user.name, user.role, kind))
    },

    authenticate: (token, kind) => sessions.find(token, kind),
    logOut: (token) => sessions.end(token),
    users: () => sql.users.all().map(userOf),

    async createUser(name, role, password) {
      if (sql.user.get(name)) return refuse({ kind: 'exists' })
      if ((sql.count.get()?.users ?? 0) >= USERS_MAX) {
        return refuse({ kind: 'invalid', reason: `there are ${USERS_MAX} users already` })
      }
      const user = await newUser(name, role, password)
      if (!user.ok) return user
      if (sql.user.get(name)) return refuse({ kind: 'exists' })
      insertUser(sql, user.value)
      return accept(userOf(user.value))
    },

    disableUser(name) {
      return db.transaction((): OperatorOutcome<User> => {
        const user = sql.user.get(name)
        if (!user) return refuse({ kind: 'notFound' })
        const others = sql.users.all().filter((row) => row.name !== name && row.disabled_ms === null)
        if (user.role === 'admin' && !others.some((row) => row.role === 'admin')) {
          return refuse({ kind: 'invalid', reason: 'the last administrator cannot be disabled' })
        }
        const disabledMs = user.disabled_ms ?? clock()
        sql.disable.run(disabledMs, name)
        sessions.endAllOf(name)
        return accept(userOf({ ...user, disabled_ms: disabledMs }))
      })()
    },

    endAllSessions() {
      sessions.endAll()
      sql.removeCode.run()
    },

    close: () => {
      db.close()
    },
  }
}

type Statements = ReturnType<typeof prepare>

function prepare(db: Sqlite) {
  return {
    count: db.prepare<[], { users: number }>('SELECT count(*) AS users FROM user'),
    administrators: db.prepare<[], { users: number }>(
      "SELECT count(*) AS users FROM user WHERE role = 'admin' AND disabled_ms IS NULL",
    ),
    user: db.prepare<[string], UserRow>('SELECT * FROM user WHERE name = ?'),
    users: db.prepare<[], UserRow>('SELECT * FROM user ORDER BY name'),
    insertUser: db.prepare<[string, Role, number, Buffer, Buffer, number]>(
      'INSERT INTO user (name, role, cost, salt, hash, created_ms) VALUES (?, ?, ?, ?, ?, ?)',
    ),
    disable: db.prepare<[number, string]>('UPDATE user SET disabled_ms = ? WHERE name = ?'),
    code: db.prepare<[], { code_hash: Buffer; expires_ms: number }>('SELECT * FROM first_sign_in'),
    setCode: db.prepare<[Buffer, number]>(
      'INSERT OR REPLACE INTO first_sign_in (one, code_hash, expires_ms) VALUES (1, ?, ?)',
    ),
    removeCode: db.prepare('DELETE FROM first_sign_in'),
  }
}

function insertUser(sql: Statements, user: UserRow): void {
  sql.insertUser.run(user.name, user.role, user.cost, user.salt, user.hash, user.created_ms)
}

function userOf(row: UserRow): User {
  return { name: row.name, role: row.role, createdMs: row.created_ms, disabledMs: row.disabled_ms }
}

function nameProblem(name: string): string | undefined {
  if (!new RegExp(USER_NAME_PATTERN).test(name)) {
    return 'a name has 2 to 64 characters: a-z, 0-9, dot, dash, underscore; it starts with a letter'
  }
  return RESERVED_NAMES.has(name) ? `the name ${name} is kept for the program itself` : undefined
}

/** 125 bits in Crockford's base 32, which leaves out letters that look like digits. */
function readableCode(): string {
  const letters = '0123456789abcdefghjkmnpqrstvwxyz'
  const text = Array.from(randomBytes(25), (byte) => letters[byte % 32]).join('')
  return text.replace(/(.{5})(?=.)/g, '$1-')
}

function codeHash(code: string): Buffer {
  const plain = code.toLowerCase().replace(/[^0-9a-z]/g, '')
  return createHash('sha256').update(`cordon/first/v1\0${plain}`).digest()
}

function accept<Value>(value: Value): { readonly ok: true; readonly value: Value } {
  return { ok: true, value }
}

function refuse(error: OperatorError): { readonly ok: false; readonly error: OperatorError } {
  return { ok: false, error }
}
