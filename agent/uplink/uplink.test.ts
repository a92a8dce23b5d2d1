import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { createSilentLogger } from '../../shared/node/logger.ts'
import { controllerFacingTlsOptions } from '../../shared/node/tls.ts'
import type { ControllerMessage } from '../../shared/protocol/messages.ts'
import { SAMPLE_STATUS } from '../../shared/protocol/testing/sample-status.ts'
import { type EventBuffer, openBuffer } from '../buffer/buffer.ts'
import { detectionEvent, execEvent, fileEvent, stoppedEvent } from '../buffer/testing/sample-events.ts'
import type { Uplink, UplinkHandlers, UplinkOptions } from './ports.ts'
import { createTestCertificates, type TestCertificates } from './testing/certificates.ts'
import { type FakeController, startFakeController } from './testing/fake-controller.ts'
import { createUplink } from './uplink.ts'

let certificates: TestCertificates
let folder: string
let controller: FakeController
let buffer: EventBuffer
let stop: AbortController
let running: Promise<void> | undefined
let calls: string[]

beforeAll(() => {
  certificates = createTestCertificates()
})
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-uplink-'))
  controller = await startFakeController(certificates)
  buffer = openFileBuffer()
  stop = new AbortController()
  calls = []
})
afterEach(async () => {
  stop.abort()
  await running
  running = undefined
  buffer.close()
  await controller.stop()
  rmSync(folder, { recursive: true, force: true })
})

function openFileBuffer(bytesMax = 32 * 1024 ** 2): EventBuffer {
  return openBuffer({
    path: join(folder, 'buffer.db'),
    bytesMax,
    reservedBytes: 64 * 1024,
    groupMs: 5,
    logger: createSilentLogger(),
  })
}

const handlers: UplinkHandlers = {
  onCommand: (_command, nonce) => {
    calls.push(`command ${nonce.length}`)
  },
  onCancel: (commandId) => {
    calls.push(`cancel ${commandId.slice(0, 2)}`)
  },
  onKeyset: () => {
    calls.push('keyset')
  },
  onRenewedCertificate: (pem) => {
    calls.push(`certificate ${pem}`)
  },
  onConnected: () => {
    calls.push('connected')
  },
  onDisconnected: () => {
    calls.push('disconnected')
  },
  onWatermarkAhead: ({ class: eventClass }) => {
    calls.push(`ahead ${eventClass}`)
  },
}

function start(more: Partial<UplinkOptions> = {}): Uplink {
  const uplink = createUplink({
    gatewayUrl: `wss://127.0.0.1:${controller.port}`,
    tlsOptions: () =>
      controllerFacingTlsOptions(certificates.agent, certificates.rootPem, certificates.serverName),
    buffer,
    helloFacts: () => ({
      agentVersion: '0.1.0',
      bootId: 'a-boot',
      keysetVersion: 1,
      inventory: {
        hostName: 'host',
        operatingSystem: 'linux',
        operatingSystemVersion: '1',
        kernel: '6',
        architecture: 'x64',
        cpuModel: 'cpu',
        cpuCount: 1,
        memoryBytes: 1,
        addresses: [],
      },
    }),
    status: () => SAMPLE_STATUS,
    handlers,
    logger: createSilentLogger(),
    backoffMinMs: 20,
    backoffMaxMs: 100,
    refusalPauseMs: 5,
    coalesceMs: 10,
    ...more,
  })
  running = uplink.run(stop.signal)
  return uplink
}

/** Generous, because the machine may be busy with other tests. */
const eventually = <Value>(read: () => Value) => expect.poll(read, { timeout: 20_000 })
const connected = (uplink: Uplink) => eventually(() => uplink.state().phase).toBe('connected')
const storedRows = (eventClass: number) => controller.stored(buffer.streamId, eventClass).bodies.size
const addExecs = (from: number, count: number) => {
  for (let index = from; index < from + count; index += 1) buffer.add(execEvent(index))
}
const gapsOnDisk = () => {
  const db = new Database(join(folder, 'buffer.db'), { readonly: true })
  try {
    return db
      .prepare<[], string>(`SELECT body FROM class_0 WHERE json_extract(body, '$."event.action"') = 'gap'`)
      .pluck()
      .all()
      .map((body) => JSON.parse(body) as Record<string, unknown>)
  } finally {
    db.close()
  }
}

test('it greets with a fresh nonce, sends its status and delivers every class in order', async () => {
  addExecs(0, 1_200)
  buffer.add(fileEvent(1))
  buffer.add(detectionEvent(1))
  buffer.add(stoppedEvent(1))
  const uplink = start()
  await connected(uplink)
  addExecs(1_200, 300)
  await eventually(() => storedRows(2)).toBe(1_500)
  await eventually(() => buffer.watermarks()[2]?.acknowledged).toBe(1_500)
  expect([storedRows(0), storedRows(1), storedRows(3)]).toEqual([1, 1, 1])
  expect(controller.batches[0]?.class).toBe(0)
  expect(controller.hellos[0]?.sessionNonce).toBe(uplink.state().sessionNonce)
  await eventually(() => controller.messages.map((message) => message.kind)).toEqual(['status'])
  expect(controller.faults).toEqual([])
  expect(calls).toEqual(['connected'])
  expect(uplink.state()).toMatchObject({ lastError: null, nextAttemptMs: null, attempts: 0 })
})

test('after a cut connection what was not acknowledged is sent again, and stored once', async () => {
  controller.policy = () => 'store-only'
  const uplink = start()
  await connected(uplink)
  addExecs(0, 900)
  await eventually(() => storedRows(2)).toBeGreaterThan(0)
  const nonce = controller.hellos[0]?.sessionNonce
  controller.policy = () => 'take'
  controller.cut()
  await eventually(() => controller.hellos.length).toBe(2)
  await eventually(() => buffer.watermarks()[2]?.acknowledged).toBe(900)
  expect(controller.hellos[1]?.sessionNonce).not.toBe(nonce)
  expect(storedRows(2)).toBe(900)
  expect(controller.faults).toEqual([])
  expect(calls).toEqual(['connected', 'disconnected', 'connected'])
})

test('a controller that lost its newest rows gets them again', async () => {
  const uplink = start()
  await connected(uplink)
  addExecs(0, 100)
  await eventually(() => buffer.watermarks()[2]?.acknowledged).toBe(100)
  addExecs(100, 100)
  await eventually(() => buffer.watermarks()[2]?.acknowledged).toBe(200)
  const stored = controller.stored(buffer.streamId, 2)
  const backup = controller.batches.find((batch) => batch.class === 2)
  if (!backup) throw new Error('no batch')
  Object.assign(stored, { sequence: backup.rows, hash: backup.lastHash })
  for (const sequence of [...stored.bodies.keys()]) if (sequence > backup.rows) stored.bodies.delete(sequence)
  controller.cut()
  await eventually(() => stored.bodies.size).toBe(200)
  expect(controller.faults).toEqual([])
})

test('no more batches are unanswered than there are credits', async () => {
  controller.credits = 2
  controller.policy = () => 'store-only'
  const uplink = start()
  await connected(uplink)
  addExecs(0, 4_000)
  await eventually(() => uplink.state().inFlight).toBe(2)
  await new Promise((resolve) => setTimeout(resolve, 100))
  expect(controller.mostUnanswered).toBe(2)
  controller.policy = () => 'take'
  controller.answerAll()
  await eventually(() => storedRows(2)).toBe(4_000)
  expect(controller.mostUnanswered).toBe(2)
})

test.each(['malformed', 'invalidEvent', 'hashMismatch'] as const)(
  'a batch refused three times as %s is set aside with a gap, and the rows behind it arrive',
  async (code) => {
    controller.policy = (header) =>
      header.class === 2 && header.firstSequence <= 3 && header.firstSequence + header.rows > 3
        ? code
        : 'take'
    addExecs(0, 5)
    buffer.flush()
    const uplink = start()
    await connected(uplink)
    await eventually(() => storedRows(0)).toBe(1)
    addExecs(5, 10)
    await eventually(() => storedRows(2)).toBe(10)
    expect(controller.batches.filter((batch) => batch.class === 2 && batch.firstSequence === 1).length).toBe(
      3,
    )
    expect(gapsOnDisk()).toEqual([
      expect.objectContaining({
        'cordon.gap.class': 2,
        'cordon.gap.from': 1,
        'cordon.gap.to': 5,
        'event.reason': expect.stringContaining(code),
      }),
    ])
    expect(controller.faults).toEqual([])
  },
)

test('batches behind a refused one are sent again behind it, in order', async () => {
  let refusals = 0
  controller.policy = (header) => {
    if (header.class !== 2 || header.firstSequence === 1 || refusals >= 2) return 'take'
    refusals += 1
    return 'malformed'
  }
  const uplink = start()
  addExecs(0, 3_000)
  await connected(uplink)
  await eventually(() => buffer.watermarks()[2]?.acknowledged).toBe(3_000)
  expect(refusals).toBe(2)
  expect(gapsOnDisk()).toEqual([])
  expect(controller.faults).toEqual([])
})

test('a store that fails costs no event, however long it fails', async () => {
  let failures = 0
  controller.policy = (header) => {
    if (header.class !== 2 || failures >= 8) return 'take'
    failures += 1
    return 'storeFailed'
  }
  start()
  addExecs(0, 50)
  await eventually(() => buffer.watermarks()[2]?.acknowledged).toBe(50)
  expect(storedRows(2)).toBe(50)
  expect(gapsOnDisk()).toEqual([])
  expect(controller.hellos.length).toBeGreaterThan(1)
})

test('rows dropped while there was no controller are told before the rows that follow on them', async () => {
  buffer.close()
  buffer = openFileBuffer(512 * 1024)
  for (let index = 0; index < 6_000; index += 1) buffer.add(fileEvent(index))
  buffer.flush()
  start()
  await eventually(() => buffer.watermarks()[3]?.acknowledged).toBe(6_000)
  expect(controller.batches[0]?.class).toBe(0)
  expect(controller.batches.some((batch) => batch.firstSequence > 1)).toBe(true)
  expect(controller.faults).toEqual([])
  const [gap] = gapsOnDisk()
  expect(Number(gap?.['cordon.gap.count']) + storedRows(3)).toBe(6_000)
})

test('refused events of class 0 are a hole that the next hello tells', async () => {
  controller.policy = (header) => (header.class === 0 && header.firstSequence === 1 ? 'invalidEvent' : 'take')
  buffer.add(stoppedEvent(1))
  start()
  await eventually(() => controller.hellos.length).toBe(2)
  buffer.add(stoppedEvent(2))
  // The gap is row 2, the new event row 3.
  await eventually(() => buffer.watermarks()[0]?.acknowledged).toBe(3)
  expect([...controller.stored(buffer.streamId, 0).bodies.keys()]).toEqual([2, 3])
})

test('a connection that is only half open is noticed', async () => {
  const uplink = start({ pingIntervalMs: 30 })
  await connected(uplink)
  controller.freeze()
  await eventually(() => uplink.state().lastError).toMatch(/no answer to pings/)
})

test('a round trip tells an answering controller from a silent one', async () => {
  const uplink = start()
  expect(await uplink.roundTrip(1_000)).toBe(false)
  await connected(uplink)
  expect(await uplink.roundTrip(5_000)).toBe(true)
  controller.freeze()
  expect(await uplink.roundTrip(100)).toBe(false)
})

test('a goodbye is told in words and its wait is kept', async () => {
  controller.greet = (_hello, socket) => {
    const goodbye: ControllerMessage = {
      kind: 'goodbye',
      code: 'revoked',
      reason: 'by Ann',
      retryAfterMs: 600_000,
    }
    socket.send(JSON.stringify(goodbye))
  }
  const uplink = start()
  await eventually(() => uplink.state().phase).toBe('waiting')
  expect(uplink.state().lastError).toBe('this agent was revoked: by Ann')
  expect((uplink.state().nextAttemptMs ?? 0) - Date.now()).toBeGreaterThan(590_000)
  expect(controller.hellos.length).toBe(1)
  expect(uplink.send({ kind: 'keysetRequest' })).toBe(false)
})

test.each([
  [403, undefined, /unknown or revoked/, 0],
  [503, '120', /busy/, 119_000],
  [503, '99999999999', /busy/, 0],
])(
  'an upgrade refused with %s is told in words and its wait is kept',
  async (status, retryAfter, words, waitMs) => {
    controller.refuseUpgrade = { status, ...(retryAfter === undefined ? {} : { retryAfter }) }
    const uplink = start()
    await eventually(() => uplink.state().lastError).toMatch(words)
    await eventually(() => uplink.state().phase).toBe('waiting')
    expect((uplink.state().nextAttemptMs ?? 0) - Date.now()).toBeGreaterThanOrEqual(waitMs - 100)
  },
)

test('a controller of another fleet, with another name, or an expired certificate is refused in words', async () => {
  const cases = [
    { of: createTestCertificates(), root: certificates.rootPem, words: /not of this fleet/ },
    { of: createTestCertificates({ serverName: 'elsewhere' }), words: /is for DNS:elsewhere/ },
    { of: createTestCertificates({ serverDays: -1 }), words: /has expired/ },
  ]
  for (const { of, root, words } of cases) {
    const other = await startFakeController(of)
    const uplink = createUplinkTo(other.port, root ?? of.rootPem, of)
    const stopOne = new AbortController()
    const done = uplink.run(stopOne.signal)
    await eventually(() => uplink.state().lastError).toMatch(words)
    stopOne.abort()
    await done
    expect(other.hellos).toEqual([])
    await other.stop()
  }
})

function createUplinkTo(port: number, rootPem: string, of: TestCertificates): Uplink {
  return createUplink({
    gatewayUrl: `wss://127.0.0.1:${port}`,
    tlsOptions: () => controllerFacingTlsOptions(of.agent, rootPem, of.serverName),
    buffer,
    helloFacts: () => {
      throw new Error('never greeted')
    },
    status: () => {
      throw new Error('never asked')
    },
    handlers,
    logger: createSilentLogger(),
    backoffMinMs: 20,
    backoffMaxMs: 100,
  })
}

test('credentials that cannot be read are told, and tried again', async () => {
  let attempts = 0
  const uplink = start({
    tlsOptions: () => {
      attempts += 1
      if (attempts < 3) throw new Error('the key is not readable')
      return controllerFacingTlsOptions(certificates.agent, certificates.rootPem, certificates.serverName)
    },
  })
  await eventually(() => uplink.state().lastError).toBe('the key is not readable')
  await connected(uplink)
})

test('messages reach their handlers, and handlers that fail do not cost the connection', async () => {
  const failing: UplinkHandlers = {
    ...handlers,
    onCancel: () => Promise.reject(new Error('no')),
    onKeyset: () => {
      throw new Error('no')
    },
  }
  const uplink = start({ handlers: failing })
  await connected(uplink)
  const signature = { keyId: 'a'.repeat(64), signature: 'b'.repeat(128) }
  controller.send({ kind: 'cancelCommand', commandId: 'c'.repeat(32) })
  controller.send({ kind: 'keyset', keyset: 'AAAA', rootSignature: 'AAAA' })
  controller.send({ kind: 'renewedCertificate', certificateChainPem: 'pem' })
  controller.send({
    kind: 'command',
    intent: 'AAAA',
    signatures: [signature],
    leaf: 'AAAA',
    leafIndex: 0,
    leafCount: 1,
    proof: [],
    wrapper: 'AAAA',
    wrapperSignature: signature,
  })
  await eventually(() => calls).toEqual(['connected', 'certificate pem', 'command 32'])
  expect(uplink.state().phase).toBe('connected')
})

const stream = '0'.repeat(32)
test.each([
  ['no JSON', '{'],
  ['an unknown kind', '{"kind":"__proto__"}'],
  ['an unknown field', '{"kind":"cancelCommand","commandId":"00000000000000000000000000000000","x":1}'],
  ['deep nesting', '['.repeat(60_000)],
  ['an oversized text', ' '.repeat(200_000)],
  ['a message past the largest', 'x'.repeat(600_000)],
  ['a binary frame', new Uint8Array([1, 2, 3])],
  [
    'a second welcome',
    JSON.stringify({
      kind: 'welcome',
      protocolVersion: 1,
      agentId: 'a'.repeat(32),
      credits: 1,
      watermarks: [],
      keysetVersion: 1,
    }),
  ],
  [
    'an acknowledgement of another stream',
    JSON.stringify({ kind: 'acknowledgement', streamId: stream, class: 2, sequence: 1 }),
  ],
  [
    'a refusal of what was not sent',
    JSON.stringify({
      kind: 'batchRefused',
      streamId: stream,
      class: 2,
      firstSequence: 1,
      expectedSequence: 1,
      code: 'gap',
      reason: '',
    }),
  ],
])('%s from the controller ends the connection and nothing else', async (_name, data) => {
  addExecs(0, 10)
  const uplink = start()
  await connected(uplink)
  await eventually(() => storedRows(2)).toBe(10)
  controller.send(data)
  await eventually(() => controller.hellos.length).toBe(2)
  await connected(uplink)
  expect(uplink.state().lastError).toMatch(/broke the protocol|Max payload|max payload|frame/i)
  expect(buffer.watermarks()[2]?.acknowledged).toBe(10)
})

test('an acknowledgement of what was never sent loses no event', async () => {
  controller.policy = () => 'ignore'
  const uplink = start()
  await connected(uplink)
  addExecs(0, 10)
  await eventually(() => controller.batches.length).toBeGreaterThan(0)
  controller.policy = () => 'take'
  controller.send({ kind: 'acknowledgement', streamId: buffer.streamId, class: 2, sequence: 999 })
  await eventually(() => uplink.state().lastError).toMatch(/acknowledges what was not sent/)
  await eventually(() => storedRows(2)).toBe(10)
})

test('batches that are never answered are sent again over a new connection', async () => {
  controller.policy = () => 'ignore'
  const uplink = start({ answerTimeoutMs: 200 })
  await connected(uplink)
  addExecs(0, 10)
  await eventually(() => controller.batches.length).toBeGreaterThan(0)
  controller.policy = () => 'take'
  await eventually(() => uplink.state().lastError).toMatch(/does not answer batches/)
  await eventually(() => storedRows(2)).toBe(10)
})

test('a flood of messages from the controller ends the connection', async () => {
  const uplink = start()
  await connected(uplink)
  const message = JSON.stringify({ kind: 'cancelCommand', commandId: 'c'.repeat(32) })
  for (let index = 0; index < 3_000; index += 1) controller.send(message)
  await eventually(() => uplink.state().lastError).toMatch(/too many messages/)
  expect(calls.length).toBeLessThan(2_100)
})

test('higher watermarks than the buffer ever had begin a new stream, once', async () => {
  addExecs(0, 5)
  buffer.flush()
  const old = buffer.streamId
  controller.stored(old, 2).sequence = 50
  const uplink = start()
  await eventually(() => calls).toContain('ahead 2')
  await connected(uplink)
  expect(buffer.streamId).not.toBe(old)
  await eventually(() => storedRows(0)).toBe(2)
  expect([...controller.stored(buffer.streamId, 0).bodies.values()].join()).toMatch(/tamper.*gap/)
  // A controller that goes on like this does not fill the disk with set-aside files.
  controller.stored(buffer.streamId, 2).sequence = 50
  const second = buffer.streamId
  controller.cut()
  await eventually(() => uplink.state().lastError).toMatch(/the buffer is kept/)
  expect(buffer.streamId).toBe(second)
})

test('a buffer that began a new stream greets again before it sends', async () => {
  const uplink = start()
  await connected(uplink)
  addExecs(0, 5)
  await eventually(() => storedRows(2)).toBe(5)
  buffer.startNewStream('a test')
  await eventually(() => controller.hellos.at(-1)?.streamId).toBe(buffer.streamId)
  await eventually(() => storedRows(0)).toBe(1)
  expect(controller.faults).toEqual([])
})

test('an address where nobody speaks TLS, or nobody answers, leaves it trying', async () => {
  const silent: Server = createServer((socket) => socket.write('not tls at all'))
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
  const address = silent.address()
  const port = typeof address === 'object' ? (address?.port ?? 0) : 0
  const uplink = createUplinkTo(port, certificates.rootPem, certificates)
  running = uplink.run(stop.signal)
  await eventually(() => uplink.state().attempts).toBeGreaterThan(1)
  silent.close()
  await eventually(() => uplink.state().lastError).toMatch(/nothing listens/)
})

test('attempts grow apart until the controller lets the agent in', async () => {
  controller.refuseUpgrade = { status: 503 }
  const pauses: number[] = []
  let nowMs = 0
  const uplink = start({ random: () => 1, backoffMinMs: 4, backoffMaxMs: 64, clock: () => nowMs })
  const seen = new Set<number>()
  await expect
    .poll(
      () => {
        const { nextAttemptMs, attempts } = uplink.state()
        if (nextAttemptMs !== null && !seen.has(attempts)) {
          seen.add(attempts)
          pauses.push(nextAttemptMs - nowMs)
        }
        return pauses.length
      },
      { interval: 1 },
    )
    .toBeGreaterThan(3)
  nowMs += 1
  expect(pauses.toSorted((a, b) => a - b)).toEqual(pauses)
  expect(Math.max(...pauses)).toBeLessThanOrEqual(64)
  expect(() => start({ gatewayUrl: 'ws://127.0.0.1' })).toThrow(/wss/)
})
