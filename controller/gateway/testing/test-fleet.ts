/** A gateway with real certificates, a real store and clients that can be as rude as they like. */
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, type TLSSocket } from 'node:tls'
import { WebSocket } from 'ws'
import { encodeBatch } from '../../../shared/node/batch.ts'
import { createCertificateRequest, generateAgentKey } from '../../../shared/node/certificate-request.ts'
import { createSilentLogger } from '../../../shared/node/logger.ts'
import {
  agentFacingTlsOptions,
  type Credentials,
  controllerFacingTlsOptions,
} from '../../../shared/node/tls.ts'
import { CONTROLLER_MESSAGES, type ControllerMessage } from '../../../shared/protocol/messages.ts'
import { parseMessage } from '../../../shared/protocol/parse.ts'
import { createWeigh } from '../../detect/examiner.ts'
import { createIngest } from '../../ingest/ingest.ts'
import { verifyFrame } from '../../ingest/verify.ts'
import { type Authority, createAuthority } from '../../pki/authority.ts'
import type { IncomingBatch } from '../../store/event-store.ts'
import { type EmbeddedEventStore, openEmbeddedEventStore } from '../../store/events/embedded-event-store.ts'
import type { SampleBatch } from '../../store/events/testing/sample-stream.ts'
import type { FileSink } from '../file-lane.ts'
import { AGENT_PATH, AGENT_SUBPROTOCOL } from '../front-door.ts'
import { createGateway, type Gateway } from '../gateway.ts'
import type { Authorise, GatewayHandlers, GatewayLimits, Hello } from '../ports.ts'

export interface TestPki {
  readonly authority: Authority
  issue(agentId: string): Credentials & { readonly fingerprint: string }
  [Symbol.dispose](): void
}

/** Small keys: making the real ones takes seconds. */
export async function createTestPki(): Promise<TestPki> {
  const folder = mkdtempSync(join(tmpdir(), 'cordon-pki-'))
  const created = await createAuthority(join(folder, 'pki'), {
    passphrase: 'one passphrase',
    rootPassphrase: 'another passphrase',
    rootKeyBits: 2_048,
    issuerKeyBits: 2_048,
    scryptCost: 2 ** 10,
  })
  if (!created.ok) throw new Error(created.error.reason)
  const authority = created.value
  return {
    authority,
    issue(agentId) {
      const key = generateAgentKey()
      const issued = authority.issueAgentCertificate(createCertificateRequest(key), agentId)
      if (!issued.ok) throw new Error(issued.error.reason)
      return {
        keyPem: key.export({ format: 'pem', type: 'pkcs8' }).toString(),
        certificateChainPem: issued.value.certificateChainPem,
        fingerprint: issued.value.certificateFingerprint,
      }
    },
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  }
}

export interface TestController {
  readonly gateway: Gateway
  readonly store: EmbeddedEventStore
  readonly port: number
  /** What happened, one line each: handlers and alerts. */
  readonly log: string[]
  /** Certificates and agents that are sent away. */
  readonly revoked: Set<string>
  stop(): Promise<void>
}

const weigh = createWeigh(
  () => [],
  (error) => {
    throw error
  },
)

export async function startTestController(
  pki: TestPki,
  more: {
    readonly limits?: Partial<GatewayLimits>
    readonly handlers?: Partial<GatewayHandlers>
    readonly slowStoreMs?: number
    readonly files?: FileSink
    readonly clock?: () => number
    /** One that outlives this controller; else it opens one of its own. */
    readonly store?: EmbeddedEventStore
  } = {},
): Promise<TestController> {
  const logger = createSilentLogger()
  const own = more.store === undefined ? await openTestStore() : null
  const store = more.store ?? (own as TestStore).store
  const log: string[] = []
  const revoked = new Set<string>()
  const onAlert = (kind: string, agentId: string) => log.push(`alert ${kind} ${agentId.slice(0, 8)}`)
  const authorise: Authorise = (_fingerprint, agentId) => (revoked.has(agentId) ? 'revoked' : 'ok')
  const slowly = async (batch: IncomingBatch) => {
    await new Promise((resolve) => setTimeout(resolve, more.slowStoreMs))
    return store.append(batch)
  }
  const sink = {
    append: more.slowStoreMs === undefined ? store.append : slowly,
    watermarks: store.watermarks,
    streams: store.streams,
  }
  const gateway = createGateway({
    host: '127.0.0.1',
    port: 0,
    tlsOptions: () => agentFacingTlsOptions(pki.authority.serverCredentials(), pki.authority.rootPem),
    authorise,
    keysetVersion: () => 1,
    batches: createIngest({
      store: sink,
      // On this thread: the one that programs have takes as long to start as most of these tests run.
      verify: async (frame, origin) => verifyFrame(frame, origin, weigh),
      onAlert,
      logger,
      ...(more.clock ? { clock: more.clock } : {}),
    }),
    handlers: {
      onHello: (agentId) => log.push(`hello ${agentId.slice(0, 8)}`),
      onConnected: (agentId) => log.push(`connected ${agentId.slice(0, 8)}`),
      onDisconnected: (agentId) => log.push(`disconnected ${agentId.slice(0, 8)}`),
      onStatus: (_agentId, status) => log.push(`status ${status.bufferedRows}`),
      onRenewal: () => ({ kind: 'renewed', certificateChainPem: 'a chain' }),
      onKeysetRequest: () => ({ kind: 'keyset', keyset: 'AAAA', rootSignature: 'AAAA' }),
      onStopping: (agentId, reason) => log.push(`stopping ${agentId.slice(0, 8)} ${reason}`),
      ...more.handlers,
    },
    ...(more.files ? { files: more.files } : {}),
    onTwins: (agentId, twins) => {
      log.push(`twins ${agentId.slice(0, 8)} ${twins.map(({ bootId }) => bootId).join(' ')}`)
    },
    logger,
    ...(more.limits ? { limits: more.limits } : {}),
    ...(more.clock ? { clock: more.clock } : {}),
  })
  const stop = new AbortController()
  const running = gateway.run(stop.signal)
  const { port } = await Promise.race([
    gateway.listening,
    running.then(() => Promise.reject(new Error('ended'))),
  ])
  return {
    gateway,
    store,
    port,
    log,
    revoked,
    async stop() {
      stop.abort()
      await running
      await own?.close()
    },
  }
}

export interface TestStore {
  readonly store: EmbeddedEventStore
  close(): Promise<void>
}

/** A real one in a folder of its own. */
export async function openTestStore(): Promise<TestStore> {
  const folder = mkdtempSync(join(tmpdir(), 'cordon-gateway-'))
  const store = await openEmbeddedEventStore({ folder, logger: createSilentLogger() })
  return {
    store,
    async close() {
      await store.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

export interface TestAgent {
  readonly socket: WebSocket
  /** Takes the next message from the controller; `end` when the connection is over. */
  next(): Promise<ControllerMessage | 'end'>
  /** All messages up to the end of the connection. */
  rest(): Promise<ControllerMessage[]>
  send(data: string | Uint8Array | object): void
}

/** What a client needs to know: also of a controller that runs as a process of its own. */
export interface Trust {
  readonly authority: Pick<Authority, 'rootPem' | 'serverName'>
}
export type Listening = Pick<TestController, 'port'>

export function tlsOptionsOf(pki: Trust, credentials: Credentials, port: number) {
  const { rootPem, serverName } = pki.authority
  return { ...controllerFacingTlsOptions(credentials, rootPem, serverName), host: '127.0.0.1', port }
}

/** Connects, without a hello. Rejects when the upgrade is refused. */
export async function connectAgent(
  pki: Trust,
  controller: Listening,
  credentials: Credentials,
): Promise<TestAgent> {
  const socket = new WebSocket(`wss://127.0.0.1:${controller.port}${AGENT_PATH}`, AGENT_SUBPROTOCOL, {
    ...tlsOptionsOf(pki, credentials, controller.port),
    perMessageDeflate: false,
  })
  const arrived: (ControllerMessage | 'end')[] = []
  const waiting: ((message: ControllerMessage | 'end') => void)[] = []
  const arrive = (message: ControllerMessage | 'end') => {
    const taker = waiting.shift()
    if (taker) taker(message)
    else arrived.push(message)
  }
  socket.on('message', (data) => {
    const parsed = parseMessage(CONTROLLER_MESSAGES, String(data))
    if (!parsed.ok) throw new Error(`the controller sent what its own schema refuses: ${parsed.error.reason}`)
    arrive(parsed.value)
  })
  socket.on('close', () => arrive('end'))
  await once(socket, 'open')
  socket.on('error', () => undefined)
  const next = () => {
    const message = arrived.shift()
    return message === undefined
      ? new Promise<ControllerMessage | 'end'>((resolve) => waiting.push(resolve))
      : Promise.resolve(message)
  }
  return {
    socket,
    next,
    async rest() {
      const messages: ControllerMessage[] = []
      for (let message = await next(); message !== 'end'; message = await next()) messages.push(message)
      return messages
    },
    send(data) {
      const isRaw = typeof data === 'string' || data instanceof Uint8Array
      socket.send(isRaw ? data : JSON.stringify(data))
    },
  }
}

/** Connects and greets; the welcome is the next message. */
export async function greetingAgent(
  pki: Trust,
  controller: Listening,
  credentials: Credentials,
  hello: Partial<Hello> = {},
): Promise<TestAgent> {
  const agent = await connectAgent(pki, controller, credentials)
  agent.send({ ...sampleHello(), ...hello })
  return agent
}

export const STREAM_ID = 'ab'.repeat(16)

export function sampleHello(): Hello {
  return {
    kind: 'hello',
    protocolVersion: 1,
    agentVersion: '0.1.0',
    bootId: 'boot',
    sessionNonce: 'cd'.repeat(16),
    keysetVersion: 1,
    streamId: STREAM_ID,
    watermarks: [],
    inventory: {
      hostName: 'host',
      operatingSystem: 'linux',
      operatingSystemVersion: '1',
      kernel: '1',
      architecture: 'x64',
      cpuModel: 'a cpu',
      cpuCount: 1,
      memoryBytes: 1,
      addresses: [],
    },
  }
}

/** The frame of a batch as `createSampleStream` makes them. */
export function frameOf(batch: SampleBatch): Buffer {
  const { streamId, class: eventClass, firstSequence, previousHash, lastHash } = batch
  return encodeBatch({ streamId, class: eventClass, firstSequence, previousHash, lastHash }, batch.bodies)
}

/** A TLS connection with the agent's certificate, for those who speak no websocket. */
export async function connectTls(
  pki: Trust,
  controller: Listening,
  credentials: Credentials,
): Promise<TLSSocket> {
  const socket = connect(tlsOptionsOf(pki, credentials, controller.port))
  await once(socket, 'secureConnect')
  socket.on('error', () => undefined)
  return socket
}

/** Everything the other end sends until it closes. */
export async function readToEnd(socket: TLSSocket): Promise<string> {
  let text = ''
  socket.on('data', (chunk) => {
    text += String(chunk)
  })
  // Not events.once: it would reject for a reset, which is an end as good as another.
  await new Promise<void>((resolve) => socket.once('close', () => resolve()))
  return text
}
