import { afterAll, beforeAll, expect, test } from 'vitest'
import { type MemoryController, PASSWORD, startMemoryController } from './testing/memory-controller.ts'
import { type RawAnswer, rawBytes, rawRequest } from './testing/raw-request.ts'

let controller: MemoryController
let cookie: string
let csrf: string
beforeAll(async () => {
  controller = await startMemoryController()
  const session = await controller.signIn('admin', 'cookie')
  cookie = `cordon-${controller.port}=${session.token}`
  csrf = session.csrfToken
})
afterAll(() => controller[Symbol.asyncDispose]())

const origin = () => `http://localhost:${controller.port}`

function note(headers: Record<string, string>): Promise<RawAnswer> {
  return rawRequest(controller.port, {
    method: 'POST',
    path: '/api/v1/incidents/INC-1/notes',
    headers: { host: `localhost:${controller.port}`, 'content-type': 'application/json', ...headers },
    body: '{"text":"x"}',
  })
}

const codeOf = ({ text }: RawAnswer): string => JSON.parse(text).error?.code ?? 'none'

test('a cookie session changes things with its token and from its own origin', async () => {
  const answer = await note({ cookie, origin: origin(), 'x-csrf-token': csrf })
  expect(answer.status, answer.text).toBe(200)
})

test.each([
  ['without the token', () => ({ origin: origin() }), 403, 'wrongCsrfToken'],
  ['with a wrong token', () => ({ origin: origin(), 'x-csrf-token': 'x'.repeat(43) }), 403, 'wrongCsrfToken'],
  ['with an empty token', () => ({ origin: origin(), 'x-csrf-token': '' }), 403, 'wrongCsrfToken'],
  ['without an origin', () => ({ 'x-csrf-token': csrf }), 403, 'wrongOrigin'],
  [
    'from another origin',
    () => ({ origin: 'https://evil.example', 'x-csrf-token': csrf }),
    403,
    'wrongOrigin',
  ],
  ['from no origin', () => ({ origin: 'null', 'x-csrf-token': csrf }), 403, 'wrongOrigin'],
  ['from another port', () => ({ origin: 'http://localhost:1', 'x-csrf-token': csrf }), 403, 'wrongOrigin'],
  [
    'from another scheme',
    () => ({ origin: origin().replace('http', 'https'), 'x-csrf-token': csrf }),
    403,
    'wrongOrigin',
  ],
  [
    'from a page on the same site',
    () => ({ origin: origin(), 'x-csrf-token': csrf, 'sec-fetch-site': 'same-site' }),
    401,
    'unauthenticated',
  ],
] as const)('a cookie session %s changes nothing', async (_name, headers, status, code) => {
  const before = controller.notes.length
  const answer = await note({ cookie, ...headers() })
  expect([answer.status, codeOf(answer)]).toEqual([status, code])
  expect(controller.notes).toHaveLength(before)
})

test('a foreign page cannot sign anybody in, nor read', async () => {
  for (const [method, path] of [
    ['POST', '/api/v1/auth/login'],
    ['GET', '/api/v1/hosts'],
    ['GET', '/api/v1/stream'],
  ] as const) {
    const answer = await rawRequest(controller.port, {
      method,
      path,
      headers: {
        host: `localhost:${controller.port}`,
        origin: 'https://evil.example',
        cookie,
        'content-type': 'application/json',
      },
      ...(method === 'POST' ? { body: JSON.stringify({ name: 'admin-user', password: PASSWORD }) } : {}),
    })
    expect([answer.status, codeOf(answer)], path).toEqual([403, 'wrongOrigin'])
  }
})

test.each([
  'evil.example',
  'localhost',
  'localhost:1',
  'localhost.evil.example:PORT',
  '0.0.0.0:PORT',
  '[::]:PORT',
])('asked for as %j it answers nothing: a name may be rebound to this address', async (host) => {
  for (const path of ['/', '/api/v1/health', '/api/v1/hosts', '/nothing']) {
    const answer = await rawRequest(controller.port, {
      method: 'GET',
      path,
      headers: { host: host.replace('PORT', String(controller.port)), cookie },
    })
    expect([answer.status, codeOf(answer)], path).toEqual([421, 'wrongHost'])
  }
})

test.each([
  ['two Host headers', 'Host: localhost:PORT\r\nHost: evil.example'],
  ['an empty Host header', 'Host:'],
  ['no Host header', 'X-Host: localhost:PORT'],
])('%s are not answered', async (_name, lines) => {
  const headers = lines.replaceAll('PORT', String(controller.port))
  const answer = await rawBytes(
    controller.port,
    `GET /api/v1/health HTTP/1.1\r\n${headers}\r\nConnection: close\r\n\r\n`,
  )
  expect(answer).toMatch(/^HTTP\/1\.1 (400|421) /)
})

test('a cookie is no bearer token, and a bearer token no cookie', async () => {
  const bearer = await controller.signIn('viewer')
  const headers = { host: `localhost:${controller.port}` }
  const get = (more: Record<string, string>) =>
    rawRequest(controller.port, { method: 'GET', path: '/api/v1/hosts', headers: { ...headers, ...more } })
  expect((await get({ cookie })).status).toBe(200)
  expect((await get({ authorization: `Bearer ${cookie.split('=')[1]}` })).status).toBe(401)
  expect((await get({ cookie: `cordon-${controller.port}=${bearer.token}` })).status).toBe(401)
  // A wrong Authorization header is not made good by a right cookie.
  expect((await get({ cookie, authorization: 'Basic eDp4' })).status).toBe(401)
})

test('a session that ran out is nobody, and so is one that signed out', async () => {
  const { token } = await controller.signIn('viewer')
  const hosts = () =>
    fetch(`${controller.url}/api/v1/hosts`, { headers: { authorization: `Bearer ${token}` } })
  expect((await hosts()).status).toBe(200)
  controller.clock.nowMs += 3_600_000
  expect((await hosts()).status).toBe(401)
  controller.clock.nowMs -= 3_600_000
})
