import { afterAll, beforeAll, expect, test } from 'vitest'
import { ROUTES } from './routes.ts'
import { AGENT_ID } from './testing/fixtures.ts'
import { type MemoryController, PASSWORD, startMemoryController } from './testing/memory-controller.ts'
import { rawBytes, rawRequest } from './testing/raw-request.ts'

let controller: MemoryController
let token: string
beforeAll(async () => {
  controller = await startMemoryController()
  token = (await controller.signIn('admin')).token
})
afterAll(() => controller[Symbol.asyncDispose]())

const ids: Readonly<Record<string, string>> = { hosts: AGENT_ID, incidents: 'INC-1' }
const pathOf = (path: string) =>
  `/api/v1${path}`
    .replace(':id', ids[path.split('/')[1] ?? ''] ?? 'f'.repeat(32))
    .replace(':name', 'nobody-here')

async function send(method: string, path: string, body?: string, contentType = 'application/json') {
  const { status, text } = await rawRequest(controller.port, {
    method,
    path,
    headers: {
      host: `localhost:${controller.port}`,
      authorization: `Bearer ${token}`,
      ...(body === undefined
        ? {}
        : { 'content-type': contentType, 'content-length': String(Buffer.byteLength(body)) }),
    },
    ...(body === undefined ? {} : { body }),
  })
  return { status, text }
}

function expectRefusal({ status, text }: { status: number; text: string }, allowed: readonly number[]) {
  expect(allowed, text).toContain(status)
  const { error } = JSON.parse(text)
  expect(Object.keys(error).sort()).toEqual(['code', 'hint', 'message', 'requestId'])
  expect(text).not.toMatch(/\.ts:|node_modules|SqliteError|SQLITE/)
}

const deep = `${'['.repeat(20_000)}${']'.repeat(20_000)}`
const bodies: readonly (readonly [string, string])[] = [
  ['nothing', ''],
  ['half a body', '{'],
  ['null', 'null'],
  ['a list', '[]'],
  ['a number', '1e999'],
  ['a text', '"x"'],
  ['no field', '{"nonsense":1}'],
  ['__proto__', '{"__proto__":{"isAdmin":true},"reason":"x","text":"x"}'],
  ['__proto__ in escapes', '{"\\u005f_proto__":{"x":1},"reason":"x","text":"x"}'],
  ['constructor', '{"constructor":{"prototype":{"x":1}},"reason":"x","text":"x"}'],
  ['deep nesting', deep],
  ['deep nesting in a field', `{"args":${deep},"reason":${deep}}`],
  [
    'wrong types',
    '{"reason":{"$ne":null},"text":["x"],"name":1,"password":true,"keyset":{},"action":[],"ttlMs":"1"}',
  ],
  ['not UTF-8', Buffer.from([0x7b, 0xff, 0xfe, 0x7d]).toString('latin1')],
]
const taking = ROUTES.filter(({ body }) => body !== undefined)

test.each(taking.map((route) => [route.method, route.path, route] as const))(
  '%s %s refuses every hostile body and says why',
  async (method, path) => {
    for (const [name, body] of bodies) {
      const answer = await send(method, pathOf(path), body)
      // An empty object is a right request for a token alone.
      expectRefusal(answer, [400, 422])
      expect(answer.text, name).not.toContain('isAdmin')
    }
    expectRefusal(await send(method, pathOf(path), `{"reason":"${'x'.repeat(300_000)}"}`), [413])
    expectRefusal(await send(method, pathOf(path), 'reason=x', 'application/x-www-form-urlencoded'), [415])
    expectRefusal(await send(method, pathOf(path), '<x/>', 'application/xml'), [415])
    expectRefusal(await send(method, pathOf(path), '{"reason":"x"}', 'text/plain'), [415])
  },
)

test.each(
  ROUTES.filter(({ body, method }) => body === undefined && method !== 'GET').map(
    ({ path }) => [path] as const,
  ),
)('POST %s takes no body', async (path) => {
  expectRefusal(await send('POST', pathOf(path), '{"x":1}'), [400])
})

const queries = [
  'limit=0',
  'limit=10001',
  'limit=-1',
  'limit=1e3',
  'limit=0x10',
  'limit=%201',
  'limit=1&limit=2',
  'limit[]=1',
  'limit=',
  'sort=time;DROP TABLE event',
  'order=time',
  "order=ascending'--",
  'nonsense=1',
  '__proto__=1',
  'constructor=1',
  "agentId=x' OR 1=1 --",
  'action=exec;ATTACH DATABASE x AS y',
  `contains=${'x'.repeat(300)}`,
  'fromMs=99999999999999999999',
  'after=%00',
  'after=%27%3B',
  'format=exe',
]

test.each(queries)('the query %s is refused, not guessed at', async (query) => {
  const before = controller.queries.length
  expectRefusal(await send('GET', `/api/v1/events?${encodeURI(query)}`), [400])
  expect(controller.queries).toHaveLength(before)
})

test.each([
  '/api/v1/hosts/..%2f..%2fetc%2fpasswd',
  '/api/v1/hosts/%00',
  '/api/v1/hosts/%ff',
  "/api/v1/incidents/INC-1' OR '1'='1",
  '/api/v1/incidents/INC-99999999999999999',
  '/api/v1/incidents/__proto__',
  '/api/v1/actions/constructor',
  `/api/v1/hosts/${'a'.repeat(4_000)}`,
  '/api/v1//hosts',
  '/API/V1/hosts',
  '/api/v1/hosts/',
  '/api/v2/hosts',
  '/.env',
])('the address %s leads nowhere', async (path) => {
  expectRefusal(await send('GET', path.replaceAll(' ', '%20')), [400, 404, 414])
})

test('methods that are not in the table are refused', async () => {
  for (const method of ['PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE']) {
    expectRefusal(await send(method, '/api/v1/hosts'), [400, 404])
  }
  expect((await send('HEAD', '/api/v1/hosts')).status).toBe(404)
})

test('an address that is too long is refused before anything reads it', async () => {
  expectRefusal(await send('GET', `/api/v1/events?contains=${'x'.repeat(9_000)}`), [414])
})

test('a flood of headers ends the connection with a short answer', async () => {
  const flood = Array.from({ length: 2_000 }, (_, index) => `X-${index}: ${'y'.repeat(20)}`).join('\r\n')
  const answer = await rawBytes(controller.port, `GET / HTTP/1.1\r\nHost: localhost\r\n${flood}\r\n\r\n`)
  expect(answer).toMatch(/^HTTP\/1\.1 431 /)
  expect(answer).toContain('"code":"headersTooLarge"')
  expect(answer).toContain('content-security-policy')
})

test('what is not HTTP gets an answer in our form and is closed', async () => {
  const answer = await rawBytes(controller.port, '\u0016\u0003\u0001garbage\r\n\r\n')
  expect(answer).toMatch(/^HTTP\/1\.1 400 /)
  expect(answer).toContain('"code":"malformedBody"')
})

test('a service that fails tells its client nothing of it', async () => {
  const { list } = controller.services.audit
  Object.assign(controller.services.audit, {
    list: () => {
      throw new Error('SqliteError: secret at /home/x.ts:1')
    },
  })
  const answer = await send('GET', '/api/v1/audit')
  Object.assign(controller.services.audit, { list })
  expectRefusal(answer, [500])
  expect(answer.text).not.toContain('secret')
})

test('an answer that takes too long is given up', async () => {
  await using slow = await startMemoryController({ handlerTimeoutMs: 100 })
  const viewer = await slow.signIn('viewer')
  Object.assign(slow.services.events, { query: () => new Promise(() => undefined) })
  const answer = await fetch(`${slow.url}/api/v1/events`, {
    headers: { authorization: `Bearer ${viewer.token}` },
  })
  expect([answer.status, ((await answer.json()) as { error: { code: string } }).error.code]).toEqual([
    503,
    'overloaded',
  ])
})

test('one address that asks without end is slowed down', async () => {
  await using strict = await startMemoryController({ requestsPerMinuteMax: 20 })
  const statuses: number[] = []
  for (let index = 0; index < 30; index += 1)
    statuses.push((await fetch(`${strict.url}/api/v1/health`)).status)
  expect(statuses.filter((status) => status === 200)).toHaveLength(20)
  expect(statuses.filter((status) => status === 429)).toHaveLength(10)
})

test('a hundred bad sign-ins at once over HTTP are stopped, with a time to come back', async () => {
  await using fresh = await startMemoryController()
  await fresh.operators.createUser('ada', 'admin', PASSWORD)
  const answers = await Promise.all(
    Array.from({ length: 100 }, () =>
      fetch(`${fresh.url}/api/v1/auth/login`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ name: 'ada', password: 'a wrong password' }),
      }),
    ),
  )
  expect(answers.filter(({ status }) => status === 401)).toHaveLength(10)
  const limited = answers.filter(({ status }) => status === 429)
  expect(limited).toHaveLength(90)
  expect(Number(limited[0]?.headers.get('retry-after'))).toBeGreaterThan(60)
  // What the limit stopped does not fill the audit log.
  expect(fresh.audit.filter(({ action }) => action === 'auth.refused')).toHaveLength(10)
})
