import { once } from 'node:events'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import type { Credentials } from '../../shared/node/tls.ts'
import { ISOLATION_OFF } from '../../shared/protocol/testing/isolation-off.ts'
import { createSampleStream, sampleAgentId } from '../store/events/testing/sample-stream.ts'
import {
  connectAgent,
  connectTls,
  createTestPki,
  frameOf,
  greetingAgent,
  readToEnd,
  STREAM_ID,
  sampleHello,
  startTestController,
  type TestController,
  type TestPki,
  tlsOptionsOf,
} from './testing/test-fleet.ts'

const agentId = sampleAgentId(1)
const shortId = agentId.slice(0, 8)
let pki: TestPki
let credentials: Credentials
let controller: TestController

beforeAll(async () => {
  pki = await createTestPki()
  credentials = pki.issue(agentId)
})
afterAll(() => pki[Symbol.dispose]())
afterEach(() => controller.stop())

const greet = async (hello = {}) => {
  const agent = await greetingAgent(pki, controller, credentials, hello)
  expect(await agent.next()).toMatchObject({ kind: 'welcome', agentId })
  return agent
}
const sequences = async () => (await controller.store.readAfter('', 1_000)).map((event) => event.sequence)

test('an agent is welcomed, its batch is stored under its certificate, and then acknowledged', async () => {
  controller = await startTestController(pki)
  const agent = await greetingAgent(pki, controller, credentials)
  expect(await agent.next()).toEqual({
    kind: 'welcome',
    protocolVersion: 1,
    agentId,
    credits: 16,
    watermarks: [],
    keysetVersion: 1,
  })
  agent.send(frameOf(createSampleStream(agentId, STREAM_ID).batch(1, 3)))
  expect(await agent.next()).toEqual({ kind: 'acknowledgement', streamId: STREAM_ID, class: 2, sequence: 3 })
  const stored = await controller.store.readAfter('', 10)
  expect(stored.map((event) => [event.agentId, event.sequence])).toEqual([
    [agentId, 1],
    [agentId, 2],
    [agentId, 3],
  ])
  expect(controller.gateway.sessions()).toMatchObject([{ agentId, remoteAddress: '127.0.0.1' }])
  expect(controller.gateway.nonceOf(agentId)).toBe(sampleHello().sessionNonce)
  agent.socket.close()
  await expect
    .poll(() => controller.log)
    .toEqual([`hello ${shortId}`, `connected ${shortId}`, `disconnected ${shortId}`])
  expect(controller.gateway.nonceOf(agentId)).toBeUndefined()
})

test('after a reconnect the welcome says where the stream stands, and a replay is acknowledged, not stored', async () => {
  controller = await startTestController(pki)
  const stream = createSampleStream(agentId, STREAM_ID)
  const agent = await greet()
  agent.send(frameOf(stream.batch(1, 5)))
  await agent.next()
  agent.socket.terminate()
  const again = await greetingAgent(pki, controller, credentials, {
    watermarks: [{ class: 2, first: 1, last: 5, acknowledged: 0 }],
  })
  expect(await again.next()).toMatchObject({ watermarks: [{ class: 2, sequence: 5 }] })
  again.send(frameOf(stream.batch(1, 5)))
  expect(await again.next()).toMatchObject({ kind: 'acknowledgement', sequence: 5 })
  again.send(frameOf(stream.batch(4, 4)))
  expect(await again.next()).toMatchObject({ kind: 'acknowledgement', sequence: 7 })
  expect(await sequences()).toEqual([1, 2, 3, 4, 5, 6, 7])
})

test('a batch with a hole before it is refused until the hello or a gap event tells of the loss', async () => {
  controller = await startTestController(pki)
  const stream = createSampleStream(agentId, STREAM_ID)
  const agent = await greet()
  agent.send(frameOf(stream.batch(4, 2)))
  expect(await agent.next()).toMatchObject({ kind: 'batchRefused', code: 'gap', expectedSequence: 1 })
  const gaps = createSampleStream(agentId, STREAM_ID, 0)
  gaps.add({
    '@timestamp': '2026-01-01T10:00:00.000Z',
    'event.kind': 'event',
    'event.category': 'host',
    'event.type': 'info',
    'event.action': 'gap',
    'cordon.gap.class': 2,
    'cordon.gap.from': 1,
    'cordon.gap.to': 3,
    'cordon.gap.count': 3,
    'cordon.gap.bytes': 900,
    'cordon.gap.started': '2026-01-01T09:00:00.000Z',
    'cordon.gap.ended': '2026-01-01T09:30:00.000Z',
    'event.reason': 'the buffer was full',
  })
  agent.send(frameOf(gaps.batch(1, 1)))
  agent.send(frameOf(stream.batch(4, 2)))
  expect(await agent.next()).toMatchObject({ kind: 'acknowledgement', class: 0, sequence: 1 })
  expect(await agent.next()).toMatchObject({ kind: 'acknowledgement', class: 2, sequence: 5 })
  agent.send(frameOf(stream.batch(9, 1)))
  expect(await agent.next()).toMatchObject({ kind: 'batchRefused', code: 'gap', expectedSequence: 6 })
  agent.socket.close()
  const again = await greet({ watermarks: [{ class: 2, first: 9, last: 9, acknowledged: 5 }] })
  again.send(frameOf(stream.batch(9, 1)))
  expect(await again.next()).toMatchObject({ kind: 'acknowledgement', class: 2, sequence: 9 })
})

test('messages go both ways, and only to who is connected', async () => {
  controller = await startTestController(pki)
  const cancel = { kind: 'cancelCommand', commandId: 'ef'.repeat(16) } as const
  expect(controller.gateway.send(agentId, cancel)).toBe(false)
  const agent = await greet()
  expect(controller.gateway.send(agentId, cancel)).toBe(true)
  expect(controller.gateway.send(sampleAgentId(2), cancel)).toBe(false)
  expect(await agent.next()).toEqual(cancel)
  agent.send({ kind: 'keysetRequest' })
  expect(await agent.next()).toMatchObject({ kind: 'keyset' })
  agent.send({ kind: 'renewalRequest', csrPem: 'a request' })
  expect(await agent.next()).toEqual({ kind: 'renewedCertificate', certificateChainPem: 'a chain' })
  agent.send({
    kind: 'status',
    sensors: [],
    bufferedRows: 42,
    bufferedBytes: 0,
    droppedRows: 0,
    scanner: { scanned: 0, skipped: 0, restarts: 0, queued: 0 },
    residentBytes: 1,
    certificateExpires: '2026-02-01T00:00:00.000Z',
    isolation: ISOLATION_OFF,
  })
  await expect.poll(() => controller.log).toContain('status 42')
})

test('a connection that came back takes the place of one that nobody holds any more', async () => {
  controller = await startTestController(pki, { limits: { challengeMs: 200 } })
  let agent = await greet()
  for (let round = 0; round < 3; round += 1) {
    // Half open: the host lost the connection, the controller has not noticed.
    agent.socket.pause()
    // The same boot, or another after a reboot.
    const next = await greet({ sessionNonce: `0${round}`.repeat(16), bootId: `boot ${round}` })
    expect(controller.gateway.nonceOf(agentId)).toBe(`0${round}`.repeat(16))
    agent.socket.resume()
    expect(await agent.rest()).toMatchObject([{ kind: 'goodbye', code: 'replaced' }])
    agent = next
  }
  expect(controller.gateway.sessions()).toHaveLength(1)
  expect(controller.log.filter((line) => /twins|alert/.test(line))).toEqual([])
  expect(controller.log.filter((line) => line.startsWith('disconnected'))).toHaveLength(3)
})

test('two hosts with one identity, both alive, are both sent away as held before the second is welcomed', async () => {
  controller = await startTestController(pki, { limits: { challengeMs: 10_000 } })
  const first = await greet({ bootId: 'boot one' })
  const second = await greetingAgent(pki, controller, credentials, { bootId: 'boot two' })
  expect(await second.rest()).toMatchObject([{ kind: 'goodbye', code: 'held' }])
  expect(await first.rest()).toMatchObject([{ kind: 'goodbye', code: 'held' }])
  expect(controller.log).toContain(`twins ${shortId} boot one boot two`)
  expect(controller.gateway.sessions()).toEqual([])
})

test('two hosts that are never there at once are told by their boots, which take turns', async () => {
  controller = await startTestController(pki)
  const visit = async (bootId: string) => {
    const agent = await greet({ bootId })
    agent.socket.close()
    await expect.poll(() => controller.gateway.sessions()).toEqual([])
  }
  // A reboot, a snapshot that was restored, and any number of reconnects are no twin.
  for (const bootId of ['one', 'one', 'two', 'two', 'one', 'one', 'three', 'three', 'one'])
    await visit(bootId)
  expect(controller.log.filter((line) => line.startsWith('twins'))).toEqual([])
  const agent = await greetingAgent(pki, controller, credentials, { bootId: 'three' })
  expect(await agent.rest()).toMatchObject([{ kind: 'goodbye', code: 'held' }])
  expect(controller.log).toContain(`twins ${shortId} one three`)
})

test('an agent that stops in order says so', async () => {
  controller = await startTestController(pki)
  const agent = await greet()
  agent.send({ kind: 'stopping', reason: 'the agent was told to stop' })
  await expect.poll(() => controller.log).toContain(`stopping ${shortId} the agent was told to stop`)
})

test('a revoked agent is sent away at once, at its next batch, and at the door', async () => {
  controller = await startTestController(pki)
  const waiting = await connectAgent(pki, controller, credentials)
  const agent = await greet()
  controller.gateway.disconnect(agentId, 'revoked', 'stolen')
  expect(await agent.rest()).toMatchObject([{ kind: 'goodbye', code: 'revoked', reason: 'stolen' }])
  expect(await waiting.rest()).toMatchObject([{ kind: 'goodbye', code: 'revoked' }])
  const another = await greet()
  controller.revoked.add(agentId)
  another.send(frameOf(createSampleStream(agentId, STREAM_ID).batch(1, 1)))
  expect(await another.rest()).toMatchObject([{ kind: 'goodbye', code: 'revoked' }])
  await expect(connectAgent(pki, controller, credentials)).rejects.toThrow('403')
  expect(await sequences()).toEqual([])
})

test('another protocol version is told so', async () => {
  controller = await startTestController(pki)
  const agent = await greetingAgent(pki, controller, credentials, { protocolVersion: 2 })
  expect(await agent.rest()).toMatchObject([{ kind: 'goodbye', code: 'protocolVersion' }])
  expect(controller.log).toEqual([])
})

test('a controller that has more of the stream than the agent, or another stream, raises an alert', async () => {
  controller = await startTestController(pki)
  const agent = await greet()
  agent.send(frameOf(createSampleStream(agentId, STREAM_ID).batch(1, 5)))
  await agent.next()
  agent.socket.close()
  const whole = await greet({ watermarks: [{ class: 2, first: 1, last: 5, acknowledged: 5 }] })
  expect(controller.log.filter((line) => line.startsWith('alert'))).toEqual([])
  whole.socket.terminate()
  const behind = await greet({ watermarks: [{ class: 2, first: 1, last: 3, acknowledged: 3 }] })
  behind.socket.terminate()
  expect(controller.log).toContain(`alert watermarkAhead ${shortId}`)
  await greet({ streamId: '99'.repeat(16) })
  expect(controller.log).toContain(`alert streamReplaced ${shortId}`)
})

test('the door counts who is in, and tells the others when to come again', async () => {
  controller = await startTestController(pki, { limits: { sessionsMax: 1 } })
  const agent = await greet()
  const socket = await connectTls(pki, controller, pki.issue(sampleAgentId(2)))
  socket.write(upgradeRequest())
  const answer = await readToEnd(socket)
  expect(answer).toMatch(/^HTTP\/1.1 503 /)
  expect(answer).toMatch(/\r\nRetry-After: [0-9]+\r\n/)
  agent.socket.close()
  await expect.poll(() => controller.gateway.sessions()).toEqual([])
  await greet()
})

test('no session is resumed: every connection proves its key', async () => {
  controller = await startTestController(pki)
  const first = await connectTls(pki, controller, credentials)
  const session = new Promise<Buffer>((resolve) => first.once('session', resolve))
  first.write(upgradeRequest())
  // The client offers what it has of the first session, ticket or not.
  const ticket = await Promise.race([session, once(first, 'data').then(() => first.getSession())])
  first.destroy()
  const { connect } = await import('node:tls')
  const second = connect({
    ...tlsOptionsOf(pki, credentials, controller.port),
    ...(ticket ? { session: ticket } : {}),
  })
  await once(second, 'secureConnect')
  expect(ticket).toBeInstanceOf(Buffer)
  expect(second.isSessionReused()).toBe(false)
  second.destroy()
})

test('when the controller stops, agents are told, and the port is free', async () => {
  controller = await startTestController(pki)
  const agent = await greet()
  const idle = await connectTls(pki, controller, credentials)
  const ended = once(idle, 'close')
  const stopped = controller.stop()
  expect(await agent.rest()).toMatchObject([{ kind: 'goodbye', code: 'shutdown' }])
  await Promise.all([stopped, ended])
  expect(controller.gateway.address()).toBeNull()
  await expect(connectTls(pki, controller, credentials)).rejects.toThrow('ECONNREFUSED')
  controller = await startTestController(pki)
})

test('a dead connection is found by its silence', async () => {
  controller = await startTestController(pki, { limits: { pingIntervalMs: 100 } })
  const agent = await greet()
  // As when the network is cut: nothing is read or written any more, and nothing is closed.
  agent.socket.pause()
  await expect.poll(() => controller.gateway.sessions(), { timeout: 20_000 }).toEqual([])
  agent.socket.terminate()
})

function upgradeRequest(): string {
  return [
    'GET /v1/agent HTTP/1.1',
    'Host: controller',
    'Upgrade: websocket',
    'Connection: Upgrade',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==',
    'Sec-WebSocket-Protocol: cordon.v1',
    '\r\n',
  ].join('\r\n')
}
