/** Clocks that are wrong by three days, or jump by as much while everything runs: order and delivery hold. */
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { type EventBuffer, openBuffer } from '../agent/buffer/buffer.ts'
import { execEvent, fileEvent } from '../agent/buffer/testing/sample-events.ts'
import type { Uplink } from '../agent/uplink/ports.ts'
import { NO_HANDLERS } from '../agent/uplink/testing/no-handlers.ts'
import { createUplink } from '../agent/uplink/uplink.ts'
import {
  createTestPki,
  greetingAgent,
  sampleHello,
  startTestController,
  type TestController,
  type TestPki,
} from '../controller/gateway/testing/test-fleet.ts'
import type { CordonEvent } from '../shared/events/event.ts'
import { createSilentLogger } from '../shared/node/logger.ts'
import { controllerFacingTlsOptions, parseCertificateChain } from '../shared/node/tls.ts'
import { SAMPLE_STATUS } from '../shared/protocol/testing/sample-status.ts'

const DAY_MS = 86_400_000
/** That of the sample events' processes. */
const AGENT = '0a1b2c3d'.padEnd(32, '2')
const WAIT = { timeout: 20_000, interval: 20 }
let folder: string
let pki: TestPki
let controller: TestController
let buffer: EventBuffer
/** What is wrong with each end's clock, in milliseconds. */
let agentSkewMs = 0
let controllerSkewMs = 0
let stop: AbortController
let running: Promise<void> | undefined

beforeAll(async () => {
  pki = await createTestPki()
})
afterAll(() => pki[Symbol.dispose]())
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-delivery-clock-'))
  agentSkewMs = 0
  controllerSkewMs = 0
  stop = new AbortController()
  controller = await startTestController(pki, {
    clock: () => Date.now() + controllerSkewMs,
    limits: { pingIntervalMs: 50 },
  })
  buffer = openBuffer({
    path: join(folder, 'buffer.db'),
    bytesMax: 32 * 1024 ** 2,
    reservedBytes: 64 * 1024,
    groupMs: 5,
    logger: createSilentLogger(),
    clock: () => Date.now() + agentSkewMs,
  })
})
afterEach(async () => {
  stop.abort()
  await running
  buffer.close()
  await controller.stop()
  rmSync(folder, { recursive: true, force: true })
})

function start(): Uplink {
  const credentials = pki.issue(AGENT)
  const { rootPem, serverName } = pki.authority
  const uplink = createUplink({
    gatewayUrl: `wss://127.0.0.1:${controller.port}`,
    tlsOptions: () => controllerFacingTlsOptions(credentials, rootPem, serverName),
    buffer,
    helloFacts: () => ({ ...sampleHello(), agentVersion: '0.1.0' }),
    status: () => SAMPLE_STATUS,
    handlers: NO_HANDLERS,
    clock: () => Date.now() + agentSkewMs,
    logger: createSilentLogger(),
    backoffMinMs: 20,
    backoffMaxMs: 100,
    pingIntervalMs: 50,
    coalesceMs: 5,
  })
  running = uplink.run(stop.signal)
  return uplink
}

/** An event as an agent makes it at a time that its clock says. */
function addAt(number: number, skewMs: number): void {
  agentSkewMs = skewMs
  const event = number % 2 === 0 ? execEvent(number) : fileEvent(number)
  buffer.add({ ...event, '@timestamp': new Date(Date.now() + skewMs).toISOString() })
}

const storedNumbers = async (eventClass: number) =>
  (await controller.store.readAfter('', 10_000))
    .filter((row) => row.class === eventClass)
    .map(({ sequence, event }) => ({ sequence, pid: pidOf(event) }))

const pidOf = (event: CordonEvent) => ('process.pid' in event ? event['process.pid'] : undefined)

test('order is that of the sequences, whatever the clocks of both ends do meanwhile', async () => {
  const uplink = start()
  const jumps = [0, 3 * DAY_MS, -3 * DAY_MS, 0, -3 * DAY_MS, 3 * DAY_MS]
  let number = 0
  for (const [turn, skewMs] of jumps.entries()) {
    controllerSkewMs = jumps[(turn * 5 + 2) % jumps.length] ?? 0
    for (let count = 0; count < 100; count += 1) addAt(number++, skewMs)
    await vi.waitFor(() => expect(buffer.stats().bufferedRows).toBe(0), WAIT)
    // The next batch is sent over a new connection now and then: jumps meet a hello as well.
    if (turn % 2 === 1) uplink.reconnect('a test')
  }
  for (const eventClass of [2, 3]) {
    const stored = await storedNumbers(eventClass)
    expect(stored.map(({ sequence }) => sequence)).toEqual(
      Array.from({ length: number / 2 }, (_, index) => index + 1),
    )
  }
  const made = Array.from({ length: number / 2 }, (_, index) => execEvent(index * 2))
  expect((await storedNumbers(2)).map(({ pid }) => pid)).toEqual(made.map(pidOf))
  expect(buffer.stats()).toMatchObject({ droppedRows: 0, trouble: null })
  expect(controller.log.filter((line) => /alert|twins/.test(line))).toEqual([])
})

test('a dead connection is found although the controller’s clock was set back by three days', async () => {
  const agent = await greetingAgent(pki, controller, pki.issue(AGENT))
  expect(await agent.next()).toMatchObject({ kind: 'welcome' })
  controllerSkewMs = -3 * DAY_MS
  // As when the network is cut: nothing is read or written any more, and nothing is closed.
  agent.socket.pause()
  await vi.waitFor(() => expect(controller.gateway.sessions()).toEqual([]), WAIT)
  agent.socket.terminate()
})

test('certificates stand three days of a wrong clock, at either end', () => {
  const [server] = parseCertificateChain(pki.authority.serverCredentials().certificateChainPem)
  const agent = new X509Certificate(pki.issue(AGENT).certificateChainPem)
  for (const leaf of [server, agent]) {
    // Issued by a controller whose clock was ahead, or looked at by one whose clock is behind; or the other way.
    expect(leaf?.validFromDate.getTime()).toBeLessThan(Date.now() - 3 * DAY_MS)
    expect(leaf?.validToDate.getTime()).toBeGreaterThan(Date.now() + 3 * DAY_MS)
  }
})
