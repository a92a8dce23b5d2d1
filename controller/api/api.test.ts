import { Compile } from 'typebox/compile'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ROLES, type Role, roleCovers } from '../operators/role.ts'
import { ErrorBody } from './problem.ts'
import type { Route } from './route.ts'
import { ROUTES } from './routes.ts'
import { AGENT_ID, DETECTION, ENTITY_ID, OTHER_AGENT_ID } from './testing/fixtures.ts'
import { type MemoryController, PASSWORD, startMemoryController } from './testing/memory-controller.ts'
import { EVIDENCE_ID } from './testing/memory-evidence.ts'
import { rawRequest } from './testing/raw-request.ts'

let controller: MemoryController
const tokens = new Map<Role, string>()
beforeAll(async () => {
  controller = await startMemoryController()
  for (const role of ROLES) tokens.set(role, (await controller.signIn(role)).token)
})
afterAll(() => controller[Symbol.asyncDispose]())

const checkError = Compile(ErrorBody)
const kill = {
  action: 'killProcess',
  args: { tree: false },
  targets: [
    {
      agentId: AGENT_ID,
      target: {
        kind: 'process',
        pid: 4242,
        startTicks: 987654,
        bootId: '0badcafe-1111-4222-8333-444455556666',
        executableSha256: null,
      },
    },
  ],
  reason: 'test',
}
/** A request of each route that is right but for who sends it. */
const bodies: Readonly<Record<string, unknown>> = {
  firstSignIn: { code: 'x'.repeat(29), name: 'first', password: PASSWORD },
  login: { name: 'viewer-user', password: PASSWORD },
  createUser: { name: 'new-user', role: 'viewer', password: 'p' },
  revokeHost: { reason: 'lost' },
  breakGlass: { reason: 'nothing reaches it' },
  createEnrolmentToken: {},
  readmitHost: { reason: 'the copy is gone', bootId: null },
  approveRenewal: { reason: 'was in the cupboard' },
  replaceKeyset: { keyset: 'AAAA', rootSignature: 'AAAA' },
  noteIncident: { text: 'seen' },
  closeIncident: { reason: 'over' },
  planAction: kill,
  approveIntent: { signature: { keyId: '0'.repeat(64), signature: '0'.repeat(128) } },
  cancelAction: { reason: 'no' },
}
const ids: Readonly<Record<string, string>> = {
  hosts: AGENT_ID,
  incidents: 'INC-1',
  actions: 'f'.repeat(32),
  intents: 'f'.repeat(32),
  evidence: EVIDENCE_ID,
}

function addressOf(route: Route): string {
  const kind = route.path.split('/')[1] ?? ''
  return `${controller.url}/api/v1${route.path}`
    .replace(':id', ids[kind] ?? '')
    .replace(':name', 'nobody-here')
    .replace(':entity', ENTITY_ID)
    .concat(route.name === 'event' ? '?cursor=0001' : '')
}

async function call(
  method: string,
  path: string,
  options: { body?: unknown; headers?: Record<string, string>; token?: string } = {},
): Promise<{ status: number; headers: Headers; text: string; json: () => Record<string, unknown> }> {
  const response = await fetch(path.startsWith('http') ? path : `${controller.url}${path}`, {
    method,
    headers: {
      ...(options.body === undefined ? {} : { 'content-type': 'application/json' }),
      ...(options.token ? { authorization: `Bearer ${options.token}` } : {}),
      ...options.headers,
    },
    ...(options.body === undefined
      ? {}
      : { body: typeof options.body === 'string' ? options.body : JSON.stringify(options.body) }),
    signal: AbortSignal.timeout(20_000),
  })
  // The live stream has no end: its head says enough.
  const isStream = response.headers.get('content-type')?.startsWith('text/event-stream') ?? false
  const text = isStream ? '' : await response.text()
  if (isStream) await response.body?.cancel()
  return { status: response.status, headers: response.headers, text, json: () => JSON.parse(text) }
}

function expectError(
  answer: { status: number; text: string; headers: Headers },
  status: number,
  code?: string,
) {
  expect(answer.status, answer.text).toBe(status)
  const body = JSON.parse(answer.text)
  expect(checkError.Check(body), answer.text).toBe(true)
  if (code !== undefined) expect(body.error.code).toBe(code)
  expect(answer.text).not.toMatch(/\.ts:|node_modules|at async/)
  expect(answer.headers.get('content-security-policy')).toContain("default-src 'none'")
}

const matrix = ROUTES.flatMap((route) =>
  ([undefined, ...ROLES] as const).map((role) => ({
    route,
    role,
    name: `${route.method} ${route.path} as ${role ?? 'nobody'}`,
  })),
)

test.each(matrix)('$name is answered only where the table allows it', async ({ route, role }) => {
  const token =
    route.name === 'logout' && role ? (await controller.signIn(role)).token : role && tokens.get(role)
  const answer = await call(route.method, addressOf(route), {
    ...(route.name in bodies ? { body: bodies[route.name] } : {}),
    ...(token ? { token } : {}),
  })
  if (route.access === 'anyone') {
    expect(answer.status).not.toBe(403)
  } else if (role === undefined) {
    expectError(answer, 401, 'unauthenticated')
  } else if (!roleCovers(role, route.access)) {
    expectError(answer, 403, 'forbidden')
  } else {
    expect([200, 403, 404, 422], answer.text).toContain(answer.status)
    if (answer.status === 403) expect(answer.json()).toMatchObject({ error: { code: 'signatureRefused' } })
    if (answer.status === 200 && !route.live && !route.download) {
      const check = Compile(route.response)
      expect([...check.Errors(answer.json())], route.path).toEqual([])
    }
  }
})

test('names and addresses of the table are unique, and only three routes need no sign-in', () => {
  expect(new Set(ROUTES.map(({ name }) => name)).size).toBe(ROUTES.length)
  expect(new Set(ROUTES.map(({ method, path }) => `${method} ${path}`)).size).toBe(ROUTES.length)
  expect(ROUTES.filter(({ access }) => access === 'anyone').map(({ name }) => name)).toEqual([
    'health',
    'firstSignIn',
    'login',
  ])
})

test('the description has each route of the table with its schemas, as OpenAPI 3.1', async () => {
  const description = (await call('GET', '/api/openapi.json')).json() as {
    openapi: string
    paths: Record<string, Record<string, { operationId: string; responses: Record<string, unknown> }>>
  }
  expect(description.openapi).toBe('3.1.0')
  const described = Object.values(description.paths).flatMap((methods) =>
    Object.values(methods).map(({ operationId }) => operationId),
  )
  expect(described.sort()).toEqual(ROUTES.map(({ name }) => name).sort())
  for (const methods of Object.values(description.paths)) {
    for (const { responses } of Object.values(methods)) expect(Object.keys(responses)).toContain('200')
  }
})

test('the first page runs no script and carries the strict policy', async () => {
  const page = await call('GET', '/')
  expect(page.status).toBe(200)
  expect(page.text).not.toMatch(/<script|style=|onload/)
  expect(page.text).toContain('/api/openapi.json')
  expect(page.headers.get('content-security-policy')).toContain("default-src 'none'")
  expect(page.headers.get('x-content-type-options')).toBe('nosniff')
  for (const path of ['/cordon.css', '/icon.svg']) expect((await call('GET', path)).status).toBe(200)
})

test('identity headers change nothing', async () => {
  const headers = { 'x-user': 'admin-user', 'x-forwarded-user': 'admin-user', 'x-remote-user': 'admin-user' }
  expectError(await call('GET', '/api/v1/audit', { headers }), 401)
  const session = await call('GET', '/api/v1/auth/session', { headers, token: tokens.get('viewer') ?? '' })
  expect(session.json()).toMatchObject({ name: 'viewer-user', role: 'viewer' })
})

test('bearer answers carry no cookie, cookie answers no token', async () => {
  const login = { name: 'viewer-user', password: PASSWORD }
  const bearer = await call('POST', '/api/v1/auth/login', { body: { ...login, kind: 'bearer' } })
  expect(bearer.headers.get('set-cookie')).toBeNull()
  expect(bearer.json()['token']).toMatch(/^[A-Za-z0-9_-]{43}$/)
  const cookie = await call('POST', '/api/v1/auth/login', { body: login })
  expect(cookie.json()['token']).toBeNull()
  expect(cookie.headers.get('set-cookie')).toMatch(/HttpOnly/)
  expect(cookie.headers.get('set-cookie')).toMatch(/SameSite=Strict/)
})

test('a public address with https makes the cookie secure and bound to the host', async () => {
  await using secure = await startMemoryController({ publicUrl: 'https://console.example', allowedHosts: [] })
  await secure.operators.createUser('someone', 'viewer', PASSWORD)
  const { headers } = await rawRequest(secure.port, {
    method: 'POST',
    path: '/api/v1/auth/login',
    headers: { host: 'console.example', 'content-type': 'application/json' },
    body: JSON.stringify({ name: 'someone', password: PASSWORD }),
  })
  expect(String(headers['set-cookie'])).toMatch(/^__Host-cordon=.*Secure/)
  expect(headers['strict-transport-security']).toMatch(/max-age/)
})

test('rows for spreadsheets are inert', async () => {
  const answer = await call('GET', '/api/v1/incidents/INC-1/detections?format=csv', {
    token: tokens.get('viewer') ?? '',
  })
  expect(answer.headers.get('content-type')).toBe('text/csv; charset=utf-8')
  expect(DETECTION.commandLine).toMatch(/^=/)
  expect(answer.text).toContain(`"'=cmd|""/c calc""!A1`)
  expect(answer.text).not.toMatch(/[,\n]"?[=+@-]/)
})

test('query strings become the query of the store, numbers as numbers', async () => {
  const token = tokens.get('viewer') ?? ''
  const query = `agentId=${AGENT_ID}&action=exec&entityId=${ENTITY_ID}&fromMs=5&limit=7&order=descending&contains=1`
  expect((await call('GET', `/api/v1/events?${query}`, { token })).status).toBe(200)
  expect(controller.queries.at(-1)).toEqual({
    agentId: AGENT_ID,
    action: 'exec',
    entityId: ENTITY_ID,
    fromMs: 5,
    limit: 7,
    order: 'descending',
    contains: '1',
  })
})

test('what is done is done in the name of the session, not of the request', async () => {
  const token = tokens.get('responder') ?? ''
  await call('POST', '/api/v1/incidents/INC-1/notes', { token, body: { text: 'hello' } })
  expect(controller.notes.at(-1)).toBe('responder-user: hello')
  const other = { ...kill, targets: [{ ...kill.targets[0], agentId: OTHER_AGENT_ID.replace('f', '0') }] }
  expectError(await call('POST', '/api/v1/actions', { token, body: other }), 404)
})

test('a restored controller refuses what issues, says why, and answers everything else', async () => {
  const token = tokens.get('admin') ?? ''
  controller.issuing.refusal = 'restored: confirm-restore'
  try {
    const issuing = ROUTES.filter((route) => route.issues).map(({ name }) => name)
    expect(issuing.toSorted()).toEqual([
      'approveIntent',
      'approveRenewal',
      'createEnrolmentToken',
      'planAction',
      'replaceKeyset',
    ])
    const refused = await call('POST', '/api/v1/enrolment/tokens', { token, body: {} })
    expectError(refused, 409)
    expect(refused.text).toContain('restored: confirm-restore')
    expect((await call('GET', '/api/v1/hosts', { token })).status).toBe(200)
  } finally {
    controller.issuing.refusal = null
  }
  expect((await call('POST', '/api/v1/enrolment/tokens', { token, body: {} })).status).toBe(200)
})
