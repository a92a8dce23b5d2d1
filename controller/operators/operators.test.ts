import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createAttempts } from './attempts.ts'
import { type Credentials, createOperators, FIRST_SIGN_IN_MS, type Operators } from './operators.ts'
import { createPasswordHasher, PASSWORD_COST } from './password.ts'
import { SESSION_ABSOLUTE_MS, SESSION_IDLE_MS } from './session-store.ts'

const PASSWORD = 'a long enough password'
let folder: string
let operators: Operators
let nowMs: number
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-operators-'))
  nowMs = 1_000_000
  operators = createOperators({
    path: join(folder, 'operators.db'),
    clock: () => nowMs,
    passwordCost: 2 ** 10,
  })
})
afterEach(() => {
  operators.close()
  rmSync(folder, { recursive: true, force: true })
})

const as = (name: string, password = PASSWORD, address = '192.0.2.1'): Credentials => ({
  name,
  password,
  address,
  kind: 'bearer',
})

async function signedIn(name = 'ada') {
  await operators.createUser(name, 'admin', PASSWORD)
  const outcome = await operators.logIn(as(name))
  if (!outcome.ok) throw new Error(outcome.error.kind)
  return outcome.value
}

test('the first administrator comes in by the code, once', async () => {
  const first = operators.createFirstSignIn()
  expect(first?.code).toMatch(/^([0-9a-z]{5}-){4}[0-9a-z]{5}$/)
  expect(await operators.useFirstSignIn('00000-00000-00000-00000-00000', as('ada'))).toMatchObject({
    ok: false,
  })
  const code = first?.code ?? ''
  const outcome = await operators.useFirstSignIn(code.toUpperCase().replaceAll('-', ' '), as('ada'))
  expect(outcome).toMatchObject({ ok: true, value: { name: 'ada', role: 'admin' } })
  expect(await operators.useFirstSignIn(code, as('eve'))).toEqual({ ok: false, error: { kind: 'wrong' } })
  expect(operators.createFirstSignIn()).toBeNull()
  expect(operators.users()).toHaveLength(1)
})

test('users without the role do not stand in the way of the first administrator, whose name must be free', async () => {
  await operators.createUser('demo', 'responder', PASSWORD)
  const code = operators.createFirstSignIn()?.code ?? ''
  expect(await operators.useFirstSignIn(code, as('demo'))).toEqual({ ok: false, error: { kind: 'exists' } })
  expect(operators.users()).toMatchObject([{ name: 'demo', role: 'responder' }])
  expect((await operators.useFirstSignIn(code, as('ada'))).ok).toBe(true)
  expect(operators.createFirstSignIn()).toBeNull()
})

test('of many that use the code at once, one becomes administrator', async () => {
  const { code } = operators.createFirstSignIn() ?? { code: '' }
  const outcomes = await Promise.all(
    Array.from({ length: 8 }, (_, index) => operators.useFirstSignIn(code, as(`user-${index}`))),
  )
  expect(outcomes.filter(({ ok }) => ok)).toHaveLength(1)
  expect(operators.users()).toHaveLength(1)
})

test('a code ends after an hour, and when a newer one is made', async () => {
  const old = operators.createFirstSignIn()?.code ?? ''
  const code = operators.createFirstSignIn()?.code ?? ''
  expect((await operators.useFirstSignIn(old, as('ada'))).ok).toBe(false)
  nowMs += FIRST_SIGN_IN_MS
  expect((await operators.useFirstSignIn(code, as('ada'))).ok).toBe(false)
})

test('a refused password leaves the code usable', async () => {
  const code = operators.createFirstSignIn()?.code ?? ''
  expect(await operators.useFirstSignIn(code, as('ada', 'short'))).toMatchObject({
    error: { kind: 'invalid' },
  })
  expect((await operators.useFirstSignIn(code, as('ada'))).ok).toBe(true)
})

test('a session ends twelve hours after it began, however busy', async () => {
  const { token } = await signedIn()
  const endMs = nowMs + SESSION_ABSOLUTE_MS
  while (nowMs < endMs - 1) {
    expect(operators.authenticate(token, 'bearer')?.name).toBe('ada')
    nowMs = Math.min(endMs - 1, nowMs + SESSION_IDLE_MS / 2)
  }
  expect(operators.authenticate(token, 'bearer')?.name).toBe('ada')
  nowMs = endMs
  expect(operators.authenticate(token, 'bearer')).toBeUndefined()
})

test('an hour of silence ends a session for good', async () => {
  const { token } = await signedIn()
  nowMs += SESSION_IDLE_MS - 1
  expect(operators.authenticate(token, 'bearer')).toBeDefined()
  nowMs += SESSION_IDLE_MS
  expect(operators.authenticate(token, 'bearer')).toBeUndefined()
  nowMs -= SESSION_IDLE_MS
  expect(operators.authenticate(token, 'bearer')).toBeUndefined()
})

test('a token is worth nothing as a cookie, after sign-out, or when its user is disabled', async () => {
  await operators.createUser('grace', 'admin', PASSWORD)
  const session = await signedIn()
  expect(operators.authenticate(session.token, 'cookie')).toBeUndefined()
  expect(operators.authenticate(session.sessionId, 'bearer')).toBeUndefined()
  operators.logOut(session.token)
  expect(operators.authenticate(session.token, 'bearer')).toBeUndefined()
  const again = await operators.logIn(as('ada'))
  expect(operators.disableUser('ada').ok).toBe(true)
  expect(again.ok && operators.authenticate(again.value.token, 'bearer')).toBeUndefined()
  expect((await operators.logIn(as('ada'))).ok).toBe(false)
  expect(operators.disableUser('grace')).toMatchObject({ ok: false, error: { kind: 'invalid' } })
})

test('the database holds no token, no code and no password in clear', async () => {
  const code = operators.createFirstSignIn()?.code ?? ''
  const first = await operators.useFirstSignIn(code, as('ada'))
  const secrets = [code, code.replaceAll('-', ''), PASSWORD, first.ok ? first.value.token : 'no sign-in']
  const bytes = ['operators.db', 'operators.db-wal']
    .map((file) => readFileSync(join(folder, file), 'latin1'))
    .join('')
  for (const secret of secrets) expect(bytes).not.toContain(secret)
})

test('sessions and users outlive the program', async () => {
  const { token } = await signedIn()
  operators.close()
  operators = createOperators({
    path: join(folder, 'operators.db'),
    clock: () => nowMs,
    passwordCost: 2 ** 10,
  })
  expect(operators.authenticate(token, 'bearer')?.name).toBe('ada')
})

test('a hundred wrong sign-ins at once are stopped after ten for a name', async () => {
  await operators.createUser('ada', 'viewer', PASSWORD)
  const outcomes = await Promise.all(
    Array.from({ length: 100 }, (_, index) =>
      operators.logIn(as('ada', 'wrong password', `192.0.2.${index}`)),
    ),
  )
  const kinds = outcomes.map((outcome) => (outcome.ok ? 'in' : outcome.error.kind))
  expect(kinds.filter((kind) => kind === 'wrong')).toHaveLength(10)
  expect(kinds.filter((kind) => kind === 'tooMany')).toHaveLength(90)
  // The right password does not get past the limit either; after the window it does.
  expect((await operators.logIn(as('ada'))).ok).toBe(false)
  nowMs += 15 * 60_000
  expect((await operators.logIn(as('ada'))).ok).toBe(true)
})

test('a hundred names from one address are stopped after thirty, and other addresses go on', async () => {
  await operators.createUser('ada', 'viewer', PASSWORD)
  const outcomes = await Promise.all(
    Array.from({ length: 100 }, (_, index) => operators.logIn(as(`user-${index}`))),
  )
  expect(outcomes.filter((outcome) => !outcome.ok && outcome.error.kind === 'wrong')).toHaveLength(30)
  expect((await operators.logIn(as('ada'))).ok).toBe(false)
  expect((await operators.logIn(as('ada', PASSWORD, '198.51.100.9'))).ok).toBe(true)
})

test('right sign-ins are not counted', async () => {
  await operators.createUser('ada', 'viewer', PASSWORD)
  for (let round = 0; round < 40; round += 1) expect((await operators.logIn(as('ada'))).ok).toBe(true)
})

test('made-up names cannot wash out a count, and the tables stay bounded', () => {
  const limits = { perNameMax: 2, perAddressMax: 1_000_000, windowMs: 60_000, keysMax: 50 }
  const attempts = createAttempts(() => nowMs, limits)
  attempts.begin('ada', '192.0.2.1')
  attempts.begin('ada', '192.0.2.1')
  for (let index = 0; index < 500; index += 1) attempts.begin(`name-${index}`, '192.0.2.1')
  expect(attempts.begin('ada', '192.0.2.1').ok).toBe(false)
  // Names that no longer fit share one count.
  expect(attempts.begin('late-name', '192.0.2.1').ok).toBe(false)
  nowMs += 60_000
  expect(attempts.begin('late-name', '192.0.2.1').ok).toBe(true)
})

test.each([
  ['2001:db8:1:2::1', '2001:db8:1:2:ffff::9', false],
  ['2001:db8:1:2::1', '2001:db8:1:3::1', true],
  ['::1', '::2', false],
  ['192.0.2.1', '::ffff:192.0.2.1', false],
  ['192.0.2.1', '192.0.2.2', true],
])('addresses %s and %s are told apart: %s', (left, right, apart) => {
  const attempts = createAttempts(() => 0, {
    perNameMax: 100,
    perAddressMax: 1,
    windowMs: 60_000,
    keysMax: 50,
  })
  attempts.begin('a', left)
  expect(attempts.begin('b', right).ok).toBe(apart)
})

test.each([
  ['ada', 'short', /has 5 characters; it needs at least 12/],
  ['ada', 'x'.repeat(300), /more than 256/],
  ['ada', 'aaaaaaaaaaaaaaaa', /too few different/],
  ['administrator', 'Administrator1', /little more than the name/],
  ['controller', PASSWORD, /kept for the program/],
  ['agent', PASSWORD, /kept for the program/],
  ['Ada', PASSWORD, /a name has/],
  ['a b', PASSWORD, /a name has/],
  ["x'; DROP TABLE user; --", PASSWORD, /a name has/],
  ['__proto__', PASSWORD, /a name has/],
])('user %j with password %j is refused', async (name, password, reason) => {
  const outcome = await operators.createUser(name, 'viewer', password)
  expect(outcome).toMatchObject({
    ok: false,
    error: { kind: 'invalid', reason: expect.stringMatching(reason) },
  })
})

test('a name is taken once', async () => {
  const outcomes = await Promise.all([1, 2, 3].map(() => operators.createUser('ada', 'viewer', PASSWORD)))
  expect(outcomes.filter(({ ok }) => ok)).toHaveLength(1)
})

test('hashes at the real cost run off the event loop, few at a time, and a crowd is turned away', async () => {
  const hasher = createPasswordHasher()
  const salt = Buffer.alloc(16)
  let ticks = 0
  const ticking = setInterval(() => {
    ticks += 1
  }, 5)
  const outcomes = await Promise.all([
    hasher.hash('real', salt, PASSWORD_COST),
    ...Array.from({ length: 99 }, () => hasher.hash('crowd', salt, 2 ** 10)),
  ])
  clearInterval(ticking)
  expect(ticks).toBeGreaterThan(3)
  expect(outcomes.filter((hash) => hash === null)).toHaveLength(100 - 2 - 64)
  expect(outcomes[0]?.toString('hex')).toMatch(/^[0-9a-f]{64}$/)
})
