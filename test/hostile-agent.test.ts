/**
 * An enrolled agent that turned hostile against a real controller process. Whatever it sends, the controller
 * stays up and small, other agents' sessions go on, and what is stored is what the certificate may say.
 */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { constants, zstdCompressSync } from 'node:zlib'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { enrol } from '../agent/identity/enrol.ts'
import { Audit, SessionAnswer } from '../controller/api/schemas.ts'
import { type Client, createClient } from '../controller/cli/client.ts'
import {
  connectAgent,
  frameOf,
  greetingAgent,
  STREAM_ID,
  sampleHello,
  type TestAgent,
} from '../controller/gateway/testing/test-fleet.ts'
import {
  createSampleStream,
  sampleAgentId,
  sampleExec,
} from '../controller/store/events/testing/sample-stream.ts'
import { CONTROLLER, controllerEnvironment, foldersOf, startController } from '../scripts/setup/deployment.ts'
import { findPort } from '../scripts/setup/ports.ts'
import { type Program, runProgram } from '../scripts/setup/program.ts'
import { encodeBatch } from '../shared/node/batch.ts'
import { chainHash } from '../shared/node/chain.ts'
import type { Credentials } from '../shared/node/tls.ts'
import { CONTROL_BYTES_MAX, MESSAGE_BYTES_MAX } from '../shared/protocol/limits.ts'
import { readStored } from './testing/databases.ts'
import { WAIT } from './testing/observer.ts'
import { makeSmallAuthority } from './testing/stage.ts'

/** Far above what one batch needs, far below what a leak of everything sent here would take. */
const GROWTH_BYTES_MAX = 128 * 1024 ** 2

interface Enrolled {
  readonly agentId: string
  readonly credentials: Credentials
}

let folder: string
let folders: ReturnType<typeof foldersOf>
let controller: Program
let gateway: { readonly port: number }
let trust: { readonly authority: Awaited<ReturnType<typeof makeSmallAuthority>> }
let admin: Client
let hostile: Enrolled
let honest: Enrolled
let honestSession: TestAgent
let honestRows = 0
let residentBefore = 0

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-hostile-'))
  folders = foldersOf(folder)
  trust = { authority: await makeSmallAuthority(folders.controller) }
  const [api, gatewayPort, enrolment] = await Promise.all(
    [0, 0, 0].map((port) => findPort(port, '127.0.0.1')),
  )
  const ports = { api: api ?? 0, gateway: gatewayPort ?? 0, enrolment: enrolment ?? 0 }
  const environment = controllerEnvironment(folders, ports, {})
  gateway = { port: ports.gateway }
  controller = await startController(folders, ports, {})
  const enrolNew = async (name: string): Promise<Enrolled> => {
    const token = await runProgram(CONTROLLER, ['token'], environment)
    const result = await enrol({
      url: `https://127.0.0.1:${ports.enrolment}`,
      token: token.stdout.trim(),
      folder: join(folder, name),
      inventory: sampleHello().inventory,
    })
    if (!result.ok) throw new Error(result.error.reason)
    const text = readFileSync(join(folder, name, 'credentials.pem'), 'utf8')
    const end = text.indexOf('-----BEGIN CERTIFICATE-----')
    const credentials = { keyPem: text.slice(0, end), certificateChainPem: text.slice(end) }
    return { agentId: result.identity.agentId, credentials }
  }
  hostile = await enrolNew('hostile')
  honest = await enrolNew('honest')
  const password = randomBytes(24).toString('base64url')
  await runProgram(CONTROLLER, ['user', 'chief', '--role', 'admin'], environment, password)
  const connect = (token: string | null) =>
    createClient({
      url: `http://localhost:${ports.api}`,
      token,
      timeoutMs: 30_000,
      signal: new AbortController().signal,
      warn: () => undefined,
    })
  const login = { name: 'chief', password, kind: 'bearer' }
  admin = connect((await connect(null).send('POST', '/auth/login', SessionAnswer, login)).token)
  honestSession = await greetingAgent(trust, gateway, honest.credentials)
  expect(await honestSession.next()).toMatchObject({ kind: 'welcome' })
  await expectOthersServed()
  residentBefore = residentBytes()
}, 120_000)

afterAll(async () => {
  honestSession?.socket.close()
  await controller?.stop()
  if (folder) rmSync(folder, { recursive: true, force: true })
})

/** The honest agent's one session, from the first to the last test, goes on. */
async function expectOthersServed(): Promise<void> {
  honestRows += 1
  honestSession.send(frameOf(createSampleStream(honest.agentId, STREAM_ID).batch(honestRows, 1)))
  expect(await honestSession.next()).toMatchObject({ kind: 'acknowledgement', sequence: honestRows })
}

afterEach(async () => {
  expect(controller.running()).toBe(true)
  await expectOthersServed()
})

function residentBytes(): number {
  const status = readFileSync(`/proc/${controller.pid}/status`, 'utf8')
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024
}

const greet = async (streamId = STREAM_ID) => {
  const agent = await greetingAgent(trust, gateway, hostile.credentials, { streamId })
  expect(await agent.next()).toMatchObject({ kind: 'welcome' })
  return agent
}
const storedOf = (streamId: string) => readStored(folders.controller, hostile.agentId, streamId)
const alerts = async () => {
  const { entries } = await admin.get('/audit', Audit, { limit: 1_000 })
  return entries
    .filter(({ subject, action }) => subject === hostile.agentId && action.startsWith('alert.'))
    .map(({ action }) => action.slice('alert.'.length))
}

const hello = JSON.stringify(sampleHello())
test.each<[string, string | Uint8Array]>([
  ['a batch', frameOf(createSampleStream(sampleAgentId(1), STREAM_ID).batch(1, 1))],
  ['an unknown kind', '{"kind":"shell","command":"id"}'],
  ['a key __proto__', hello.replace('{', '{"__proto__":{"agentId":"x"},')],
  ['an identity in its body', hello.replace('{', `{"agentId":"${sampleAgentId(2)}",`)],
  ['a key twice', hello.replace('"keysetVersion":1', '"keysetVersion":1,"keysetVersion":1')],
  ['an integer past 2^53', hello.replace('"keysetVersion":1', '"keysetVersion":9007199254740993')],
  ['a text in place of a number', hello.replace('"keysetVersion":1', '"keysetVersion":"1"')],
  ['a string too long', hello.replace('"hostName":"host"', `"hostName":"${'x'.repeat(1_000)}"`)],
  ['40 KB of brackets', `${'['.repeat(20_000)}${']'.repeat(20_000)}`],
  ['a text too long', `"${'x'.repeat(CONTROL_BYTES_MAX)}"`],
])('%s instead of a hello ends the connection', async (_what, data) => {
  const agent = await connectAgent(trust, gateway, hostile.credentials)
  agent.send(data)
  expect(await agent.rest()).toMatchObject([{ kind: 'goodbye', code: 'malformed' }])
})

test.each<[string, string | Uint8Array]>([
  ['a second hello', hello],
  ["the controller's own kind", '{"kind":"welcome"}'],
  ['deep JSON', `{"kind":"status","sensors":${'['.repeat(5_000)}${']'.repeat(5_000)}}`],
  ['binary garbage', Buffer.alloc(1_000, 7)],
])('%s after the hello ends the connection', async (_what, data) => {
  const agent = await greet()
  agent.send(data)
  expect(await agent.rest()).toMatchObject([{ kind: 'goodbye', code: 'malformed' }])
})

test('a message larger than any may be ends the connection', async () => {
  const agent = await greet()
  agent.send(Buffer.alloc(MESSAGE_BYTES_MAX + 1))
  const [code] = await once(agent.socket, 'close')
  expect(code).toBe(1009)
})

/** A frame whose payload is 256 MB of nothing in some 20 KB, under a header that says otherwise. */
function bomb(): Buffer {
  const header = Buffer.from(
    JSON.stringify({
      kind: 'eventBatch',
      streamId: STREAM_ID,
      class: 2,
      firstSequence: 1,
      rows: 1,
      payloadBytes: 5,
      previousHash: '0'.repeat(64),
      lastHash: '0'.repeat(64),
    }),
  )
  const head = Buffer.alloc(2)
  head.writeUInt16BE(header.length)
  const options = { params: { [constants.ZSTD_c_windowLog]: 19 } }
  return Buffer.concat([head, header, zstdCompressSync(Buffer.alloc(256 * 1024 ** 2), options)])
}

test('a batch that would inflate to hundreds of megabytes ends the connection and takes no memory', async () => {
  const frame = bomb()
  expect(frame.length).toBeLessThan(MESSAGE_BYTES_MAX)
  for (let attempt = 0; attempt < 5; attempt += 1) {
    const agent = await greet()
    agent.send(frame)
    expect(await agent.rest()).toMatchObject([{ kind: 'goodbye', code: 'malformed' }])
  }
  expect(residentBytes() - residentBefore).toBeLessThan(GROWTH_BYTES_MAX)
})

test('bodies that break the schema have their batch refused, and nothing of it is stored', async () => {
  const streamId = '01'.repeat(16)
  const agent = await greet(streamId)
  const exec = JSON.stringify(sampleExec(hostile.agentId, 1))
  const good = createSampleStream(hostile.agentId, streamId).batch(1, 2)
  for (const body of [
    '{',
    exec.replace('"exec"', '"shell"'),
    exec.replace('{', `{"agent.id":"${honest.agentId}",`),
    exec.replace('{', '{"__proto__":{},'),
    exec.replace('"process.pid":1', '"process.pid":1,"process.pid":1'),
    exec.replace('"process.pid":1', '"process.pid":9007199254740993'),
    exec.replace('"process.pid":1', '"process.pid":"1"'),
  ]) {
    const bodies = [...good.bodies, Buffer.from(body)]
    const start: Buffer = Buffer.from(good.previousHash, 'hex')
    const lastHash = bodies.reduce((hash, next) => chainHash(hash, next), start).toString('hex')
    const { previousHash } = good
    agent.send(encodeBatch({ streamId, class: 2, firstSequence: 1, previousHash, lastHash }, bodies))
    expect(await agent.next()).toMatchObject({ kind: 'batchRefused', code: 'invalidEvent' })
  }
  expect(storedOf(streamId)).toEqual([])
  agent.socket.close()
})

test('a batch that comes again, on one connection or the next, is stored once', async () => {
  const streamId = '02'.repeat(16)
  const stream = createSampleStream(hostile.agentId, streamId)
  for (let connection = 0; connection < 2; connection += 1) {
    const agent = await greet(streamId)
    for (const frame of [stream.batch(1, 3), stream.batch(1, 3), stream.batch(2, 3)].map(frameOf)) {
      agent.send(frame)
      expect(await agent.next()).toMatchObject({ kind: 'acknowledgement' })
    }
    agent.socket.close()
    await once(agent.socket, 'close')
  }
  expect(storedOf(streamId).map(({ sequence }) => sequence)).toEqual([1, 2, 3, 4])
})

test('another content under a stored sequence is refused and stands in the audit log', async () => {
  const streamId = '03'.repeat(16)
  const agent = await greet(streamId)
  agent.send(frameOf(createSampleStream(hostile.agentId, streamId).batch(1, 3)))
  expect(await agent.next()).toMatchObject({ kind: 'acknowledgement' })
  const forged = createSampleStream(hostile.agentId, streamId)
  forged.add(sampleExec(hostile.agentId, 77))
  agent.send(frameOf(forged.batch(1, 3)))
  expect(await agent.next()).toMatchObject({ kind: 'batchRefused', code: 'hashMismatch' })
  expect(storedOf(streamId).map(({ event }) => event['process.pid'])).toEqual([1, 2, 3])
  await vi.waitFor(async () => expect(await alerts()).toContain('historyRewritten'), WAIT)
  agent.socket.close()
})

test("events about another agent's processes are stored under the certificate, and stand in the audit log", async () => {
  const streamId = '04'.repeat(16)
  const agent = await greet(streamId)
  const stream = createSampleStream(hostile.agentId, streamId)
  stream.add(sampleExec(honest.agentId, 1))
  agent.send(frameOf(stream.batch(1, 1)))
  expect(await agent.next()).toMatchObject({ kind: 'acknowledgement' })
  expect(storedOf(streamId)).toHaveLength(1)
  expect(readStored(folders.controller, honest.agentId, streamId)).toEqual([])
  await vi.waitFor(async () => expect(await alerts()).toContain('foreignEntity'), WAIT)
  agent.socket.close()
})

test('two hundred connections full of garbage leave the controller as small as it was', async () => {
  const garbage = randomBytes(MESSAGE_BYTES_MAX - 1)
  for (let round = 0; round < 20; round += 1) {
    const agents = await Promise.all(
      Array.from({ length: 10 }, () => connectAgent(trust, gateway, hostile.credentials)),
    )
    for (const agent of agents) agent.send(garbage)
    await Promise.all(agents.map((agent) => agent.rest()))
  }
  expect(residentBytes() - residentBefore).toBeLessThan(GROWTH_BYTES_MAX)
})
