import { mkdtempSync, rmSync } from 'node:fs'
import { request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect } from 'node:tls'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createSilentLogger } from '../../shared/node/logger.ts'
import { serverVerification } from '../../shared/node/tls.ts'
import { type Authority, createAuthority } from './authority.ts'
import type { Enrolment } from './enrolment.ts'
import { type EnrolmentServer, startEnrolmentServer } from './enrolment-server.ts'
import { failed } from './outcome.ts'

let folder: string
let authority: Authority
let server: EnrolmentServer
let nowMs = Date.now()
const stop = new AbortController()
const seen: unknown[] = []
/** Takes what the listener let through and refuses it: the listener alone is tried here. */
const enrolment: Enrolment = {
  createToken: () => ({ token: '', expiresAt: '', url: '' }),
  enrol(body) {
    seen.push(body)
    return failed('tokenInvalid', 'the token is not known')
  },
  renew: () => failed('notAuthorised', 'never'),
}
const body = {
  protocolVersion: 1,
  tokenId: '0'.repeat(16),
  tokenSecret: '0'.repeat(64),
  csrPem: 'x',
  inventory: {
    hostName: 'h',
    operatingSystem: 'linux',
    operatingSystemVersion: '1',
    kernel: '1',
    architecture: 'x64',
    cpuModel: 'c',
    cpuCount: 1,
    memoryBytes: 1,
    addresses: [],
  },
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-listener-'))
  const sizes = { rootKeyBits: 2_048, issuerKeyBits: 2_048, scryptCost: 2 ** 10 }
  const created = await createAuthority(folder, { ...sizes, passphrase: 'a', rootPassphrase: 'b' })
  if (!created.ok) throw new Error(created.error.reason)
  authority = created.value
  server = await startEnrolmentServer(
    {
      host: '127.0.0.1',
      port: 0,
      authority,
      enrolment,
      logger: createSilentLogger(),
      clock: () => nowMs,
      requestsPerMinuteMax: 40,
    },
    stop.signal,
  )
})
afterAll(async () => {
  stop.abort()
  await server.stopped
  rmSync(folder, { recursive: true, force: true })
})

interface Answer {
  readonly status: number
  readonly code: string | undefined
  readonly hint: string | undefined
}

function send(
  content: string | Buffer,
  options: { method?: string; path?: string; headers?: Record<string, string> } = {},
) {
  return new Promise<Answer>((resolve, reject) => {
    const outgoing = request(
      {
        ...serverVerification(authority.rootPem, authority.serverName),
        host: '127.0.0.1',
        port: server.port,
        path: options.path ?? '/v1/enrol',
        method: options.method ?? 'POST',
        agent: false,
        headers: options.headers ?? {},
      },
      (response) => {
        let text = ''
        response.setEncoding('utf8')
        response.on('data', (chunk: string) => {
          text += chunk
        })
        response.on('end', () => {
          const answer = (text === '' ? {} : JSON.parse(text)) as { error?: { code: string; hint: string } }
          resolve({ status: response.statusCode ?? 0, code: answer.error?.code, hint: answer.error?.hint })
        })
      },
    )
    outgoing.on('error', reject)
    outgoing.end(content)
  })
}

test('a well formed request comes through, and a refusal names its mend', async () => {
  expect(await send(JSON.stringify(body))).toMatchObject({
    status: 401,
    code: 'tokenInvalid',
    hint: expect.any(String),
  })
  expect(seen).toEqual([body])
})

test.each([
  ['nothing', ''],
  ['no JSON', '{'],
  ['a list', '[]'],
  ['another type', JSON.stringify({ ...body, tokenId: 1 })],
  ['a field too many', JSON.stringify({ ...body, agentId: 'mine' })],
  ['a field missing', JSON.stringify({ ...body, inventory: undefined })],
  ['duplicate keys', JSON.stringify(body).replace('"csrPem":"x"', '"csrPem":"y","csrPem":"x"')],
  ['__proto__', JSON.stringify(body).replace('"csrPem":"x"', '"csrPem":"x","__proto__":{}')],
  ['deep nesting', '['.repeat(10_000)],
  ['bytes that are not UTF-8', Buffer.from([0xff, 0xfe])],
])('hostile body, %s, is refused before enrolment sees it', async (_, content) => {
  nowMs += 61_000
  const before = seen.length
  expect(await send(content)).toMatchObject({ status: 400, code: 'malformed' })
  expect(seen.length).toBe(before)
})

test('a body over the bound is refused, whatever length it claims', async () => {
  nowMs += 61_000
  const long = JSON.stringify({ ...body, csrPem: 'x'.repeat(40_000) })
  expect(await send(long)).toMatchObject({ status: 413 })
})

test('other paths and methods are not there', async () => {
  expect(await send('', { path: '/' })).toMatchObject({ status: 404 })
  expect(await send('', { path: '/v1/enrol?x=1' })).toMatchObject({ status: 404 })
  expect(await send('', { method: 'GET' })).toMatchObject({ status: 405 })
})

test('one address that asks too often waits, and may ask again in the next minute', async () => {
  nowMs += 61_000
  const answers: number[] = []
  for (let index = 0; index < 42; index += 1) answers.push((await send(JSON.stringify(body))).status)
  expect(answers.slice(0, 40).every((status) => status === 401)).toBe(true)
  expect(answers.slice(40)).toEqual([429, 429])
  nowMs += 61_000
  expect((await send(JSON.stringify(body))).status).toBe(401)
})

test('many headers and long ones end the request', async () => {
  nowMs += 61_000
  const headers = Object.fromEntries(Array.from({ length: 2_000 }, (_, index) => [`x-${index}`, 'y']))
  const status = await send('', { headers }).then(
    (answer) => answer.status,
    () => 'closed',
  )
  expect([431, 'closed']).toContain(status)
})

test('a client that speaks only TLS 1.2 gets no answer', async () => {
  const outcome = await new Promise<string>((resolve) => {
    const socket = connect({
      host: '127.0.0.1',
      port: server.port,
      ca: [authority.rootPem],
      servername: authority.serverName,
      maxVersion: 'TLSv1.2',
    })
    socket.once('secureConnect', () => resolve('connected'))
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
  })
  expect(outcome).toMatch(/PROTOCOL_VERSION/)
})
