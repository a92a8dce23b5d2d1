/**
 * A controller over real TLS that keeps what it is sent in memory, checks it as the real one does, and can be
 * told to misbehave.
 */
import { once } from 'node:events'
import { createServer, type Server } from 'node:https'
import type { Socket } from 'node:net'
import { type WebSocket, WebSocketServer } from 'ws'
import { decodeBatch } from '../../../shared/node/batch.ts'
import { CHAIN_START, verifyChain } from '../../../shared/node/chain.ts'
import { agentFacingTlsOptions } from '../../../shared/node/tls.ts'
import {
  AGENT_MESSAGES,
  type AgentMessage,
  type BatchHeader,
  type ControllerMessage,
} from '../../../shared/protocol/messages.ts'
import { parseEvent, parseMessage } from '../../../shared/protocol/parse.ts'
import type { TestCertificates } from './certificates.ts'

type Hello = Extract<AgentMessage, { kind: 'hello' }>
type RefusalCode = Extract<ControllerMessage, { kind: 'batchRefused' }>['code']
type BatchPolicy = (header: BatchHeader) => 'take' | 'ignore' | 'store-only' | RefusalCode

interface StoredClass {
  sequence: number
  hash: string
  readonly bodies: Map<number, string>
}

export interface FakeController {
  readonly port: number
  readonly hellos: Hello[]
  readonly messages: AgentMessage[]
  readonly batches: BatchHeader[]
  /** What went wrong that a real controller would punish. */
  readonly faults: string[]
  /** Most batches that were unanswered at once. */
  mostUnanswered: number
  policy: BatchPolicy
  /** Answers the hello; a welcome by default. */
  greet: (hello: Hello, socket: WebSocket) => void
  credits: number
  /** HTTP status in the place of an upgrade. */
  refuseUpgrade: { readonly status: number; readonly retryAfter?: string } | null
  stored(streamId: string, eventClass: number): StoredClass
  /** Answers batches that `ignore` and `store-only` left open. */
  answerAll(): void
  sockets(): WebSocket[]
  send(data: ControllerMessage | string | Uint8Array): void
  /** Cuts every connection, without a word. */
  cut(): void
  /** From now on nothing is read or written, while the connections stay open. */
  freeze(): void
  stop(): Promise<void>
}

export async function startFakeController(certificates: TestCertificates): Promise<FakeController> {
  const server: Server = createServer(agentFacingTlsOptions(certificates.server, certificates.rootPem))
  const raw = new Set<Socket>()
  server.on('secureConnection', (socket) => {
    raw.add(socket)
    socket.on('close', () => raw.delete(socket))
    socket.on('error', () => undefined)
  })
  const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload: 512 * 1024 })
  const streams = new Map<string, StoredClass>()
  const open: (() => void)[] = []
  let unanswered = 0

  const stored = (streamId: string, eventClass: number): StoredClass => {
    const key = `${streamId} ${eventClass}`
    const known = streams.get(key) ?? { sequence: 0, hash: CHAIN_START.toString('hex'), bodies: new Map() }
    streams.set(key, known)
    return known
  }

  const controller: FakeController = {
    port: 0,
    hellos: [],
    messages: [],
    batches: [],
    faults: [],
    mostUnanswered: 0,
    policy: () => 'take',
    credits: 4,
    refuseUpgrade: null,
    greet: (hello, socket) => {
      socket.send(JSON.stringify(welcomeFor(hello)))
    },
    stored,
    answerAll() {
      for (const answer of open.splice(0)) answer()
    },
    sockets: () => [...sockets.clients],
    send(data) {
      const isRaw = typeof data === 'string' || data instanceof Uint8Array
      for (const socket of sockets.clients) socket.send(isRaw ? data : JSON.stringify(data))
    },
    cut() {
      for (const socket of raw) socket.destroy()
    },
    freeze() {
      for (const socket of sockets.clients) socket.pause()
      for (const socket of raw) socket.pause()
    },
    async stop() {
      for (const socket of sockets.clients) socket.terminate()
      for (const socket of raw) socket.destroy()
      server.close()
      if (server.listening) await once(server, 'close')
    },
  }

  const welcomeFor = (hello: Hello): ControllerMessage => ({
    kind: 'welcome',
    protocolVersion: 1,
    agentId: 'a'.repeat(32),
    credits: controller.credits,
    watermarks: [0, 1, 2, 3].map((eventClass) => ({
      class: eventClass,
      sequence: stored(hello.streamId, eventClass).sequence,
    })),
    keysetVersion: 1,
  })

  const take = (socket: WebSocket, frame: Buffer, allowFrom: Map<number, number>): void => {
    const decoded = decodeBatch(frame)
    if (!decoded.ok) {
      controller.faults.push(decoded.reason)
      return
    }
    const { header, bodies } = decoded
    controller.batches.push(header)
    unanswered += 1
    controller.mostUnanswered = Math.max(controller.mostUnanswered, unanswered)
    if (!verifyChain(header, bodies)) controller.faults.push('broken chain')
    const events = bodies.map((body) => parseEvent(body.toString('utf8')))
    for (const event of events) {
      if (!event.ok) controller.faults.push(`invalid event: ${event.error.reason}`)
      else if (event.value['event.action'] === 'gap' && event.value['cordon.gap.to'] !== undefined) {
        const eventClass = event.value['cordon.gap.class']
        const from = event.value['cordon.gap.to'] + 1
        allowFrom.set(eventClass, Math.max(allowFrom.get(eventClass) ?? 1, from))
      }
    }
    const answer = (message: ControllerMessage) => {
      unanswered -= 1
      socket.send(JSON.stringify(message))
    }
    const { streamId, class: eventClass, firstSequence } = header
    const refuse = (code: RefusalCode, expectedSequence: number) =>
      answer({
        kind: 'batchRefused',
        streamId,
        class: eventClass,
        firstSequence,
        expectedSequence,
        code,
        reason: 'a test',
      })
    const policy = controller.policy(header)
    if (policy === 'ignore') return
    const known = stored(streamId, eventClass)
    if (policy !== 'take' && policy !== 'store-only') {
      refuse(policy, known.sequence + 1)
      return
    }
    const skipped = firstSequence - known.sequence - 1
    if (skipped > 0 && firstSequence > (allowFrom.get(eventClass) ?? 1)) {
      refuse('gap', known.sequence + 1)
      return
    }
    if (skipped === 0 && header.previousHash !== known.hash) {
      controller.faults.push(`hash mismatch at class ${eventClass} sequence ${firstSequence}`)
    }
    const last = firstSequence + bodies.length - 1
    bodies.forEach((body, index) => {
      const sequence = firstSequence + index
      const before = known.bodies.get(sequence)
      if (before !== undefined && before !== body.toString('utf8'))
        controller.faults.push('history rewritten')
      known.bodies.set(sequence, body.toString('utf8'))
    })
    if (last > known.sequence) Object.assign(known, { sequence: last, hash: header.lastHash })
    const acknowledge = () =>
      answer({ kind: 'acknowledgement', streamId, class: eventClass, sequence: known.sequence })
    if (policy === 'store-only') open.push(acknowledge)
    else acknowledge()
  }

  server.on('upgrade', (request, socket, head) => {
    const refusal = controller.refuseUpgrade
    if (refusal) {
      const retry = refusal.retryAfter === undefined ? '' : `Retry-After: ${refusal.retryAfter}\r\n`
      socket.end(`HTTP/1.1 ${refusal.status} No\r\n${retry}Connection: close\r\n\r\n`)
      return
    }
    if (request.url !== '/v1/agent') controller.faults.push(`path ${request.url}`)
    sockets.handleUpgrade(request, socket, head, (webSocket) => {
      unanswered = 0
      const allowFrom = new Map<number, number>()
      webSocket.on('error', () => undefined)
      webSocket.on('message', (data: Buffer, isBinary) => {
        if (isBinary) {
          take(webSocket, data, allowFrom)
          return
        }
        const parsed = parseMessage(AGENT_MESSAGES, data.toString('utf8'))
        if (!parsed.ok) controller.faults.push(`refused message: ${parsed.error.reason}`)
        else if (parsed.value.kind === 'hello') {
          controller.hellos.push(parsed.value)
          for (const mark of parsed.value.watermarks) allowFrom.set(mark.class, mark.first)
          controller.greet(parsed.value, webSocket)
        } else controller.messages.push(parsed.value)
      })
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('no address')
  return Object.assign(controller, { port: address.port })
}
