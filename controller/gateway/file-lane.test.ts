import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { encodeFileChunk } from '../../shared/node/file-chunk.ts'
import type { Credentials } from '../../shared/node/tls.ts'
import { FILE_CHUNKS_MAX } from '../../shared/protocol/limits.ts'
import { offerOf } from '../evidence/testing/evidence-bench.ts'
import { createSampleStream, sampleAgentId } from '../store/events/testing/sample-stream.ts'
import type { FileSink } from './file-lane.ts'
import {
  connectAgent,
  createTestPki,
  frameOf,
  greetingAgent,
  STREAM_ID,
  startTestController,
  type TestController,
  type TestPki,
} from './testing/test-fleet.ts'

const agentId = sampleAgentId(1)
const content = Buffer.from('content')
const offer = offerOf('ab'.repeat(16), content)

let pki: TestPki
let credentials: Credentials
let controller: TestController
/** What came, and the answers that are held back. */
let log: string[]
let held: ReturnType<typeof Promise.withResolvers<void>>
beforeAll(async () => {
  pki = await createTestPki()
  credentials = pki.issue(agentId)
})
afterAll(() => pki[Symbol.dispose]())
beforeEach(async () => {
  log = []
  held = Promise.withResolvers()
  const files: FileSink = {
    async offer(from, { commandId }) {
      log.push(`offer ${from === agentId} ${commandId.slice(0, 4)}`)
      return { kind: 'fileProgress', commandId, offset: 0, complete: false }
    },
    async take(from) {
      log.push(`piece ${from === agentId}`)
      await held.promise
      return {
        kind: 'answer',
        message: { kind: 'fileProgress', commandId: offer.commandId, offset: 7, complete: true },
      }
    },
    closed: (from) => void log.push(`closed ${from === agentId}`),
  }
  controller = await startTestController(pki, { files })
})
afterEach(async () => {
  held.resolve()
  await controller.stop()
})

const greet = async () => {
  const agent = await greetingAgent(pki, controller, credentials)
  expect(await agent.next()).toMatchObject({ kind: 'welcome' })
  return agent
}
const piece = () => encodeFileChunk({ commandId: offer.commandId, offset: 0 }, content)

test('an offer and its pieces are answered, under the identity of the certificate', async () => {
  held.resolve()
  const agent = await greet()
  agent.send(offer)
  expect(await agent.next()).toMatchObject({ kind: 'fileProgress', offset: 0, complete: false })
  agent.send(await piece())
  expect(await agent.next()).toMatchObject({ kind: 'fileProgress', offset: 7, complete: true })
  agent.socket.close()
  await vi.waitFor(() => expect(log).toEqual(['offer true abab', 'piece true', 'closed true']), {
    timeout: 10_000,
  })
})

test('events are stored while pieces of a file wait for the disk', async () => {
  const agent = await greet()
  agent.send(offer)
  expect(await agent.next()).toMatchObject({ kind: 'fileProgress' })
  for (let count = 0; count < FILE_CHUNKS_MAX; count += 1) agent.send(await piece())
  agent.send(frameOf(createSampleStream(agentId, STREAM_ID).batch(1, 3)))
  expect(await agent.next()).toMatchObject({ kind: 'acknowledgement', sequence: 3 })
  agent.socket.close()
})

test('more pieces unanswered than may be end the connection', async () => {
  const agent = await greet()
  agent.send(offer)
  for (let count = 0; count <= FILE_CHUNKS_MAX; count += 1) agent.send(await piece())
  const rest = await agent.rest()
  expect(rest.at(-1)).toMatchObject({ kind: 'goodbye', code: 'limit' })
  expect(log.filter((line) => line.startsWith('piece'))).toHaveLength(FILE_CHUNKS_MAX)
})

test('a piece before the hello, or after the right to speak has ended, is not taken', async () => {
  const stranger = await connectAgent(pki, controller, credentials)
  stranger.send(await piece())
  expect((await stranger.rest()).at(-1)).toMatchObject({ kind: 'goodbye', code: 'malformed' })
  const agent = await greet()
  controller.revoked.add(agentId)
  agent.send(await piece())
  expect((await agent.rest()).at(-1)).toMatchObject({ kind: 'goodbye', code: 'revoked' })
  expect(log.filter((line) => line.startsWith('piece'))).toEqual([])
})
