/**
 * One real deployment whose programs are killed, stopped and sent away: nothing that was acknowledged is lost,
 * nothing is stored twice, what is lost is told, and incidents are what they would have been.
 */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { WebSocket } from 'ws'
import { openIdentity } from '../agent/identity/identity.ts'
import { Done, Hosts, SessionAnswer } from '../controller/api/schemas.ts'
import { createClient } from '../controller/cli/client.ts'
import { AGENT_PATH, AGENT_SUBPROTOCOL } from '../controller/gateway/front-door.ts'
import { AGENT, CONTROLLER } from '../scripts/setup/deployment.ts'
import { runProgram } from '../scripts/setup/program.ts'
import { startDropper, startLoad } from './testing/attack.ts'
import {
  awaitDelivery,
  balance,
  bufferedEvents,
  readBuffer,
  readMarks,
  readStored,
  storedUpTo,
} from './testing/databases.ts'
import { WAIT } from './testing/observer.ts'
import { type Stage, startStage } from './testing/stage.ts'

let stage: Stage
beforeAll(async () => {
  stage = await startStage()
}, 120_000)
afterAll(() => stage?.[Symbol.asyncDispose]())

const WHOLE = { missing: [], storedTwice: [], different: [] }

/** Everything that was made is stored once and unchanged, or told in a gap. */
async function expectWhole(): Promise<void> {
  const { agent, controller } = stage.folders
  await awaitDelivery(agent, controller, stage.agentId)
  const made = readBuffer(agent)
  const stored = await awaitDelivery(agent, controller, stage.agentId)
  expect(balance(made, stored)).toMatchObject(WHOLE)
}

const status = async () =>
  JSON.parse((await runProgram(AGENT, ['status', '--json'], stage.agentState)).stdout)

test('an agent that is killed goes on with its sequences, and tells of the time that it missed', async () => {
  const before = readMarks(stage.folders.agent)
  {
    await using _load = startLoad(stage.folder, 200)
    const grown = () => expect(readMarks(stage.folders.agent).made[0]).toBeGreaterThan(0)
    await vi.waitFor(grown, WAIT)
    await stage.killAgent()
    await stage.startAgent()
  }
  const after = readMarks(stage.folders.agent)
  expect(after.streamId).toBe(before.streamId)
  await expectWhole()
  // The blind time ends, and is told, when all sensors see again; the fallback takes its time.
  const gaps = await vi.waitFor(() => {
    const stored = readStored(stage.folders.controller, stage.agentId, after.streamId)
    const told = stored
      .map(({ event }) => event)
      // What others on this machine did too much of is told as well.
      .filter((event) => event['event.action'] === 'gap' && event['process.pid'] === undefined)
    expect(told.map((gap) => gap['cordon.gap.class'])).toEqual(expect.arrayContaining([1, 2, 3]))
    return told
  }, WAIT)
  for (const gap of gaps) {
    expect(gap).toMatchObject({
      'cordon.gap.count': null,
      'event.reason': expect.stringContaining('without warning'),
    })
    const blindMs =
      Date.parse(String(gap['cordon.gap.ended'])) - Date.parse(String(gap['cordon.gap.started']))
    expect(blindMs).toBeGreaterThan(0)
  }
  const starts = await stage.observer.events({ action: 'agent-started' })
  expect(starts).toHaveLength(2)
})

test('a controller that is killed while events flow loses none that it acknowledged, and forms each incident once', async () => {
  const droppers = ['one', 'two', 'three'].map((name) => startDropper(stage.folders.testRoot, name))
  try {
    await using _load = startLoad(stage.folder, 200)
    const [one, two, three] = droppers
    if (!one || !two || !three) throw new Error('three droppers were started')
    await stage.observer.detectionOf(await one.drop('before.txt'))
    await two.drop('during.txt')
    await stage.killController()
    const { streamId, acknowledged } = readMarks(stage.folders.agent)
    const stored = storedUpTo(stage.folders.controller, stage.agentId, streamId)
    for (const [eventClass, last] of acknowledged.entries()) {
      expect(stored[eventClass]).toBeGreaterThanOrEqual(last)
    }
    await three.drop('meanwhile.txt')
    await stage.startController()
    for (const [dropper, name] of [
      [two, 'during.txt'],
      [three, 'meanwhile.txt'],
    ] as const) {
      await stage.observer.detectionOf(`${dropper.folder}/${name}`)
    }
    await expectWhole()
    // Once by its hash and once by its content.
    const found = await vi.waitFor(async () => {
      const all = await Promise.all(droppers.map(({ folder }) => stage.observer.detectionsBelow(folder)))
      expect(all.map((detections) => detections.map(({ repeats }) => repeats))).toEqual([
        [0, 0],
        [0, 0],
        [0, 0],
      ])
      return all
    }, WAIT)
    if (stage.sensors.includes('ebpf')) {
      expect(new Set(found.flat().map(({ incidentId }) => incidentId)).size).toBe(3)
    }
  } finally {
    for (const dropper of droppers) dropper[Symbol.dispose]()
  }
})

test('without a controller the agent detects on its own, and tells it all afterwards', async () => {
  using dropper = startDropper(stage.folders.testRoot, 'alone')
  await stage.stopController()
  await vi.waitFor(async () => {
    expect((await status()).connection.state).not.toBe('connected')
  }, WAIT)
  const path = await dropper.drop('unseen.txt')
  await vi.waitFor(() => {
    const detections = bufferedEvents(stage.folders.agent, 'detection')
    expect(detections.some((event) => event['file.path'] === path)).toBe(true)
  }, WAIT)
  expect((await status()).events.buffered).toBeGreaterThan(0)
  await stage.startController()
  const detection = await stage.observer.detectionOf(path)
  expect(Date.parse(detection.storedAt)).toBeGreaterThan(Date.parse(detection.detectedAt))
  await expectWhole()
})

test('a host that is sent away is cut off within seconds, and is not let in again', async () => {
  const password = randomBytes(24).toString('base64url')
  const environment = stage.controllerEnvironment
  const made = await runProgram(CONTROLLER, ['user', 'chief', '--role', 'admin'], environment, password)
  expect(made.code).toBe(0)
  const connect = (token: string | null) =>
    createClient({
      url: stage.apiUrl,
      token,
      timeoutMs: 30_000,
      signal: new AbortController().signal,
      warn: () => undefined,
    })
  const login = { name: 'chief', password, kind: 'bearer' }
  const session = await connect(null).send('POST', '/auth/login', SessionAnswer, login)
  const admin = connect(session.token)
  await vi.waitFor(async () => expect((await status()).connection.state).toBe('connected'), WAIT)

  await admin.send('POST', `/hosts/${stage.agentId}/revoke`, Done, { reason: 'a test sends it away' })
  // The agent may be trying again at any moment; what counts is that it is never connected again.
  await vi.waitFor(
    async () => {
      const { connection } = await status()
      expect(connection.state).not.toBe('connected')
      expect(connection.detail).toMatch(/revoked/)
    },
    { timeout: 5_000, interval: 50 },
  )
  const { hosts } = await admin.get('/hosts', Hosts)
  expect(hosts).toMatchObject([{ agentId: stage.agentId, state: 'revoked' }])

  const opened = openIdentity(stage.folders.agent)
  if (!opened.ok) throw new Error(opened.error.reason)
  const url = `wss://127.0.0.1:${stage.ports.gateway}${AGENT_PATH}`
  const socket = new WebSocket(url, AGENT_SUBPROTOCOL, opened.identity.tlsOptions())
  const [error] = await once(socket, 'error')
  expect(String(error)).toContain('403')
  expect(stage.agent().running()).toBe(true)
})
