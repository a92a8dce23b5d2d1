import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect } from 'node:tls'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { encodeBatch } from '../../shared/node/batch.ts'
import { chainHash } from '../../shared/node/chain.ts'
import type { Credentials } from '../../shared/node/tls.ts'
import { CONTROL_BYTES_MAX, MESSAGE_BYTES_MAX } from '../../shared/protocol/limits.ts'
import { createSampleStream, sampleAgentId, sampleExec } from '../store/events/testing/sample-stream.ts'
import {
  connectAgent,
  connectTls,
  createTestPki,
  frameOf,
  greetingAgent,
  openTestStore,
  readToEnd,
  STREAM_ID,
  sampleHello,
  startTestController,
  type TestController,
  type TestPki,
  type TestStore,
  tlsOptionsOf,
} from './testing/test-fleet.ts'

const agentId = sampleAgentId(1)
const shortId = agentId.slice(0, 8)
const honestId = sampleAgentId(7)
let pki: TestPki
let credentials: Credentials
let honest: Credentials
let controller: TestController
/** For all that ask nothing of what is stored. */
let shared: TestStore

beforeAll(async () => {
  pki = await createTestPki()
  shared = await openTestStore()
  credentials = pki.issue(agentId)
  honest = pki.issue(honestId)
})
afterAll(async () => {
  pki[Symbol.dispose]()
  await shared.close()
})
afterEach(async () => {
  // Whatever was tried, the next agent is served.
  const agent = await greetingAgent(pki, controller, honest)
  expect(await agent.next()).toMatchObject({ kind: 'welcome' })
  agent.send(frameOf(createSampleStream(honestId, STREAM_ID).batch(1, 1)))
  expect(await agent.next()).toMatchObject({ kind: 'acknowledgement' })
  agent.socket.close()
  await controller.stop()
})

const greet = async () => {
  const agent = await greetingAgent(pki, controller, credentials)
  expect(await agent.next()).toMatchObject({ kind: 'welcome' })
  return agent
}

const upgrade = (more: readonly string[] = [], path = '/v1/agent', protocol = 'cordon.v1') =>
  [
    `GET ${path} HTTP/1.1`,
    'Host: controller',
    'Upgrade: websocket',
    'Connection: Upgrade',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==',
    `Sec-WebSocket-Protocol: ${protocol}`,
    ...more,
    '\r\n',
  ].join('\r\n')

test('without a certificate of the root there is no connection', async () => {
  controller = await startTestController(pki, { store: shared.store })
  using other = await createTestPki()
  const { key: _key, cert: _cert, ...nobody } = tlsOptionsOf(pki, credentials, controller.port)
  const { keyPem, certificateChainPem } = other.issue(agentId)
  for (const options of [nobody, { ...nobody, key: keyPem, cert: certificateChainPem }]) {
    const socket = connect(options)
    const [error] = await Promise.race([
      once(socket, 'error'),
      once(socket, 'end').then(() => [new Error('ended')]),
    ])
    expect(error).toBeInstanceOf(Error)
    socket.destroy()
  }
})

test('a certificate of the controller itself is no agent', async () => {
  controller = await startTestController(pki, { store: shared.store })
  const socket = connect(tlsOptionsOf(pki, pki.authority.serverCredentials(), controller.port))
  socket.on('error', () => undefined)
  socket.write(upgrade())
  expect(await readToEnd(socket)).toBe('')
})

test('TLS 1.2 is not spoken', async () => {
  controller = await startTestController(pki, { store: shared.store })
  const options = tlsOptionsOf(pki, credentials, controller.port)
  const socket = connect({ ...options, minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' })
  await once(socket, 'error')
  socket.destroy()
})

test.each([
  ['another path', upgrade([], '/v2/agent'), '404'],
  ['a path with a query', upgrade([], '/v1/agent?agent=other'), '404'],
  ['another subprotocol', upgrade([], '/v1/agent', 'cordon.v2, chat'), '400'],
  ['no websocket', upgrade().replace('Upgrade: websocket', 'Upgrade: h2c'), '426'],
  ['no key', upgrade().replace(/Sec-WebSocket-Key.*\r\n/, ''), '400'],
  ['no upgrade', 'GET /v1/agent HTTP/1.1\r\nHost: controller\r\n\r\n', '426'],
  [
    'no upgrade, another path',
    'POST /login HTTP/1.1\r\nHost: controller\r\nContent-Length: 5\r\n\r\nhello',
    '404',
  ],
])('a request with %s is refused and closed', async (_what, request, status) => {
  controller = await startTestController(pki, { store: shared.store })
  const socket = await connectTls(pki, controller, credentials)
  socket.write(request)
  expect(await readToEnd(socket)).toMatch(new RegExp(`^HTTP/1.1 ${status} `))
})

test.each([
  ['100 headers', upgrade(Array.from({ length: 100 }, (_, index) => `X${index}: y`))],
  ['2,000 headers', upgrade(Array.from({ length: 2_000 }, (_, index) => `X${index}: y`))],
  ['one header of 100 KB', upgrade([`X: ${'y'.repeat(100_000)}`])],
  ['no HTTP', `\x00\x01${'garbage'.repeat(1_000)}\r\n\r\n`],
])('%s end the connection without an answer', async (_what, request) => {
  controller = await startTestController(pki, { store: shared.store })
  const socket = await connectTls(pki, controller, credentials)
  socket.write(request)
  expect(await readToEnd(socket)).not.toContain('101 ')
})

test('who says nothing, or says it too slowly, is cut off in time', async () => {
  controller = await startTestController(pki, { store: shared.store, limits: { helloTimeoutMs: 3_000 } })
  const silent = await connectTls(pki, controller, credentials)
  const slow = await connectTls(pki, controller, credentials)
  const helloless = await connectAgent(pki, controller, credentials)
  const writing = setInterval(() => slow.write('GET /v1'.at(0) ?? ''), 50)
  await Promise.all([readToEnd(silent), readToEnd(slow)])
  clearInterval(writing)
  expect(await helloless.rest()).toMatchObject([
    { kind: 'goodbye', code: 'malformed', reason: 'no hello in time' },
  ])
})

test('connections that never finish their handshake do not keep agents out', async () => {
  controller = await startTestController(pki, {
    store: shared.store,
    limits: { handshakesMax: 5, helloTimeoutMs: 3_000 },
  })
  const { connect: connectTcp } = await import('node:net')
  const sockets = Array.from({ length: 20 }, () => connectTcp(controller.port, '127.0.0.1'))
  const closed = sockets.map((socket) => {
    socket.on('error', () => undefined)
    return once(socket, 'close')
  })
  await Promise.all(closed)
})

const hello = JSON.stringify(sampleHello())
test.each<[string, string | Uint8Array]>([
  ['a batch', frameOf(createSampleStream(agentId, STREAM_ID).batch(1, 1))],
  ['binary garbage', Buffer.alloc(1_000, 7)],
  ['no JSON', '{'],
  ['nothing', ''],
  ['a list', '[]'],
  ['null', 'null'],
  ['an unknown kind', '{"kind":"shell"}'],
  ['the kind __proto__', '{"kind":"__proto__"}'],
  ['the kind constructor', '{"kind":"constructor"}'],
  ["the controller's kind", '{"kind":"keyset","keyset":"","rootSignature":""}'],
  ['a status before the hello', '{"kind":"keysetRequest"}'],
  ['a key __proto__', hello.replace('{', '{"__proto__":{"agentId":"x"},')],
  ['a key more', hello.replace('{', '{"agentId":"x",')],
  ['a key twice', hello.replace('"keysetVersion":1', '"keysetVersion":1,"keysetVersion":1')],
  ['an integer past 2^53', hello.replace('"keysetVersion":1', '"keysetVersion":9007199254740993')],
  ['white space', ` ${hello}`],
  ['a string too long', hello.replace('"hostName":"host"', `"hostName":"${'x'.repeat(1_000)}"`)],
  ['40 KB of brackets', `${'['.repeat(20_000)}${']'.repeat(20_000)}`],
  ['a text too long', `"${'x'.repeat(CONTROL_BYTES_MAX)}"`],
])('%s instead of a hello ends the connection', async (_what, data) => {
  controller = await startTestController(pki, { store: shared.store })
  const agent = await connectAgent(pki, controller, credentials)
  agent.send(data)
  expect(await agent.rest()).toMatchObject([{ kind: 'goodbye', code: 'malformed' }])
  expect(controller.log).toEqual([])
})

test('after the hello the same rules hold', async () => {
  controller = await startTestController(pki, { store: shared.store })
  for (const data of [
    hello,
    '{"kind":"welcome"}',
    '\u0000',
    Buffer.alloc(70),
    Buffer.from('ffff00', 'hex'),
  ]) {
    const agent = await greet()
    agent.send(data)
    expect(await agent.rest()).toMatchObject([{ kind: 'goodbye', code: 'malformed' }])
  }
})

test('a message larger than any may be, and one in thousands of fragments, end the connection', async () => {
  controller = await startTestController(pki, { store: shared.store })
  const large = await greet()
  large.send(Buffer.alloc(MESSAGE_BYTES_MAX + 1))
  const [code] = await once(large.socket, 'close')
  expect(code).toBe(1009)
  const fragmented = await greet()
  for (let part = 0; part < 5_000; part += 1) fragmented.socket.send('x', { fin: false })
  await once(fragmented.socket, 'close')
})

test('frames that are no websocket frames end the connection', async () => {
  controller = await startTestController(pki, { store: shared.store })
  for (const bytes of ['ffffffffffffffffffff', '81057465', 'c18500000000ffffffffff', '8180000000008a']) {
    const socket = await connectTls(pki, controller, credentials)
    socket.write(upgrade())
    await once(socket, 'data')
    socket.end(Buffer.from(bytes, 'hex'))
    await once(socket, 'close')
  }
})

test('a batch of another stream than the hello ends the connection', async () => {
  controller = await startTestController(pki)
  const agent = await greet()
  agent.send(frameOf(createSampleStream(agentId, '99'.repeat(16)).batch(1, 1)))
  expect(await agent.rest()).toMatchObject([{ kind: 'goodbye', code: 'malformed' }])
  expect(await controller.store.readAfter('', 10)).toEqual([])
})

const bodies = {
  'not JSON': '{',
  'an unknown action': '{"event.action":"shell"}',
  'a key more': JSON.stringify({ ...sampleExec(agentId, 1), 'agent.id': sampleAgentId(2) }),
  'a key twice': JSON.stringify(sampleExec(agentId, 1)).replace(
    '"process.pid":1',
    '"process.pid":1,"process.pid":1',
  ),
  'a key __proto__': JSON.stringify(sampleExec(agentId, 1)).replace('{', '{"__proto__":{},'),
  'an integer past 2^53': JSON.stringify(sampleExec(agentId, 1)).replace(
    '"process.pid":1',
    '"process.pid":9007199254740993',
  ),
  'a time that is none': JSON.stringify({
    ...sampleExec(agentId, 1),
    '@timestamp': '2026-99-99T10:00:00.000Z',
  }),
  'another class': JSON.stringify({
    '@timestamp': '2026-01-01T10:00:00.000Z',
    'event.kind': 'alert',
    'event.category': 'host',
    'event.type': 'info',
    'event.action': 'tamper',
    'event.reason': 'an event of class 0',
  }),
  'bytes that are not UTF-8': Buffer.from('7b22ff227d', 'hex'),
}
test.each(Object.entries(bodies))(
  'a body with %s has its batch refused, and the next one is taken',
  async (_what, body) => {
    controller = await startTestController(pki, { store: shared.store })
    const agent = await greet()
    const stream = createSampleStream(agentId, STREAM_ID)
    const good = stream.batch(1, 2)
    const bad = [...good.bodies, Buffer.from(body)]
    const start = Buffer.from(good.previousHash, 'hex')
    const lastHash = bad.reduce((hash, next) => chainHash(hash, next), start).toString('hex')
    const { previousHash } = good
    agent.send(encodeBatch({ streamId: STREAM_ID, class: 2, firstSequence: 1, previousHash, lastHash }, bad))
    expect(await agent.next()).toMatchObject({
      kind: 'batchRefused',
      code: 'invalidEvent',
      reason: expect.stringMatching(/^sequence 3: /),
    })
    agent.send(frameOf(good))
    expect(await agent.next()).toMatchObject({ kind: 'acknowledgement', sequence: 2 })
  },
)

test('bodies that do not lead to the hash of the batch are refused, with an alert', async () => {
  controller = await startTestController(pki, { store: shared.store })
  const agent = await greet()
  const batch = createSampleStream(agentId, STREAM_ID).batch(1, 2)
  agent.send(frameOf({ ...batch, lastHash: '12'.repeat(32) }))
  expect(await agent.next()).toMatchObject({ kind: 'batchRefused', code: 'malformed' })
  expect(controller.log).toContain(`alert chainBroken ${shortId}`)
})

test('another content under a stored sequence is refused, with an alert', async () => {
  controller = await startTestController(pki)
  const agent = await greet()
  agent.send(frameOf(createSampleStream(agentId, STREAM_ID).batch(1, 3)))
  await agent.next()
  const forger = createSampleStream(agentId, STREAM_ID)
  forger.add(sampleExec(agentId, 77))
  agent.send(frameOf(forger.batch(1, 3)))
  expect(await agent.next()).toMatchObject({
    kind: 'batchRefused',
    code: 'hashMismatch',
    expectedSequence: 4,
  })
  expect(controller.log).toContain(`alert historyRewritten ${shortId}`)
  expect(await controller.store.readAfter('', 10)).toHaveLength(3)
})

test('a body that speaks of processes of another agent is stored under the certificate, with an alert', async () => {
  controller = await startTestController(pki)
  const agent = await greet()
  const stream = createSampleStream(agentId, STREAM_ID)
  stream.add(sampleExec(sampleAgentId(2), 1))
  agent.send(frameOf(stream.batch(1, 1)))
  expect(await agent.next()).toMatchObject({ kind: 'acknowledgement' })
  expect(controller.log).toContain(`alert foreignEntity ${shortId}`)
  expect(await controller.store.readAfter('', 10)).toMatchObject([{ agentId }])
})

test('more batches than credits end the connection', async () => {
  controller = await startTestController(pki, {
    store: shared.store,
    limits: { credits: 2 },
    slowStoreMs: 300,
  })
  const agent = await greet()
  const stream = createSampleStream(agentId, STREAM_ID)
  for (let first = 1; first <= 3; first += 1) agent.send(frameOf(stream.batch(first, 1)))
  expect(await agent.rest()).toMatchObject([{ kind: 'goodbye', code: 'limit' }])
})

test('when more comes than can be stored, agents wait and lose nothing', async () => {
  controller = await startTestController(pki, {
    store: shared.store,
    limits: { batchesMax: 1 },
    slowStoreMs: 20,
  })
  const agents = await Promise.all(
    [2, 3, 4].map(async (number) => {
      const id = sampleAgentId(number)
      const agent = await greetingAgent(pki, controller, pki.issue(id))
      await agent.next()
      return { agent, stream: createSampleStream(id, STREAM_ID) }
    }),
  )
  for (const { agent, stream } of agents) {
    for (let first = 1; first <= 10; first += 1) agent.send(frameOf(stream.batch(first, 1)))
  }
  for (const { agent } of agents) {
    for (let sequence = 1; sequence <= 10; sequence += 1) {
      expect(await agent.next()).toMatchObject({ kind: 'acknowledgement', sequence })
    }
  }
})

test('a flood of messages, or of pings, ends the connection', async () => {
  controller = await startTestController(pki, { store: shared.store, limits: { controlBurst: 5 } })
  const talker = await greet()
  for (let count = 0; count < 10; count += 1) talker.send({ kind: 'keysetRequest' })
  expect((await talker.rest()).at(-1)).toMatchObject({ kind: 'goodbye', code: 'limit' })
  const pinger = await greet()
  for (let count = 0; count < 10; count += 1) pinger.socket.ping()
  expect((await pinger.rest()).at(-1)).toMatchObject({ kind: 'goodbye', code: 'limit' })
})

test('an agent that does not read is cut off before its messages pile up', async () => {
  controller = await startTestController(pki, { store: shared.store, limits: { bufferedBytesMax: 100_000 } })
  const agent = await greet()
  agent.socket.pause()
  const message = { kind: 'keyset', keyset: 'A'.repeat(60_000), rootSignature: 'AAAA' } as const
  let sent = 0
  while (controller.gateway.send(agentId, message)) {
    sent += 1
    expect(sent).toBeLessThan(1_000)
    await sleep(1)
  }
  expect(controller.gateway.sessions()).toEqual([])
  expect(controller.log).toContain(`disconnected ${shortId}`)
  agent.socket.terminate()
})

test('a handler that fails costs its own session alone', async () => {
  controller = await startTestController(pki, {
    handlers: {
      onKeysetRequest: () => {
        throw new Error('the keyset is gone')
      },
      onRenewal: () => Promise.reject(new Error('the issuer is gone')),
    },
  })
  for (const message of [{ kind: 'keysetRequest' }, { kind: 'renewalRequest', csrPem: 'x' }]) {
    const agent = await greet()
    agent.send(message)
    expect(await agent.rest()).toMatchObject([{ kind: 'goodbye', code: 'overloaded' }])
  }
})
