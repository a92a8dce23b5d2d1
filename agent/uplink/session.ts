/**
 * One connection to the controller, from dialling to its end. The controller is believed no more than its
 * certificate proves: what breaks the protocol ends the connection, and nothing it sends throws here.
 */
import { randomBytes } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { ConnectionOptions } from 'node:tls'
import { type RawData, WebSocket } from 'ws'
import type { Logger } from '../../shared/node/logger.ts'
import {
  HELLO_TIMEOUT_MS,
  MESSAGE_BYTES_MAX,
  MESSAGE_FRAGMENTS_MAX,
  PONG_MISSES_MAX,
} from '../../shared/protocol/limits.ts'
import {
  type AgentMessage,
  CONTROLLER_MESSAGES,
  type ControllerMessage,
} from '../../shared/protocol/messages.ts'
import { parseMessage } from '../../shared/protocol/parse.ts'
import { reasonOfError, reasonOfStatus, retryAfterMsOf } from './reasons.ts'

export interface SessionEnd {
  /** For a person. */
  readonly reason: string
  readonly welcomed: boolean
  /** The end is no success to build on: the next attempt waits longer. */
  readonly backOff: boolean
  readonly retryAfterMs: number
  /** Two hosts use this identity: the controller hears neither until a person has looked. */
  readonly held: boolean
}

export interface SessionOptions {
  readonly url: string
  readonly tls: ConnectionOptions
  readonly hello: (sessionNonce: string) => Extract<AgentMessage, { kind: 'hello' }>
  /** The controller let the agent in. */
  readonly onWelcome: (message: Extract<ControllerMessage, { kind: 'welcome' }>, session: Session) => void
  /** After the welcome. Null, or what was wrong with the message. */
  readonly onMessage: (message: Exclude<ControllerMessage, { kind: 'welcome' | 'goodbye' }>) => string | null
  readonly onAlive: () => void
  readonly pingIntervalMs: number
  readonly logger: Logger
}

export interface Session {
  readonly sessionNonce: string
  readonly queuedBytes: number
  write(data: string | Uint8Array, done?: () => void): void
  end(reason: string, backOff: boolean): void
  /** True when the controller answers a ping that is sent now. */
  roundTrip(timeoutMs: number): Promise<boolean>
}

export const AGENT_PATH = '/v1/agent'
const SUBPROTOCOL = 'cordon.v1'
const HANDSHAKE_TIMEOUT_MS = 15_000
const CLOSE_TIMEOUT_MS = 1_000
/** Chunks of one message that wait in memory: a message of the largest size in small packets has 400. */
const BUFFERED_CHUNKS_MAX = 4_096
const MESSAGES_PER_SECOND_MAX = 2_000
/** Round trips that are awaited at once. */
const ROUND_TRIPS_MAX = 16

const GOODBYE_WORDS: Readonly<Record<string, string>> = {
  revoked: 'this agent was revoked',
  held: 'this agent is HELD until an administrator readmits it',
}

/** Resolves when the connection is over; never rejects. */
export function runSession(options: SessionOptions, signal: AbortSignal): Promise<SessionEnd> {
  return new Promise((resolve) => new Connection(options, signal, resolve))
}

class Connection implements Session {
  readonly sessionNonce = randomBytes(16).toString('hex')
  readonly #options: SessionOptions
  readonly #signal: AbortSignal
  readonly #resolve: (end: SessionEnd) => void
  readonly #socket: WebSocket
  readonly #onAbort = () => {
    // Told apart from a host that falls silent.
    if (this.#welcomed) this.write(JSON.stringify({ kind: 'stopping', reason: 'the agent was told to stop' }))
    this.end('the agent stops', false)
  }
  readonly #roundTrips = new Map<string, (answered: boolean) => void>()
  #timers: NodeJS.Timeout[] = []
  #welcomed = false
  #end: Omit<SessionEnd, 'welcomed' | 'held'> | null = null
  #held = false
  #settled = false
  #missedPongs = 0
  #second = { startedMs: 0, messages: 0 }

  constructor(options: SessionOptions, signal: AbortSignal, resolve: (end: SessionEnd) => void) {
    this.#options = options
    this.#signal = signal
    this.#resolve = resolve
    this.#socket = new WebSocket(options.url, SUBPROTOCOL, {
      ...options.tls,
      // Said again: an option left out would let NODE_TLS_REJECT_UNAUTHORIZED win.
      rejectUnauthorized: true,
      minVersion: 'TLSv1.3',
      followRedirects: false,
      perMessageDeflate: false,
      handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
      maxPayload: MESSAGE_BYTES_MAX,
      maxFragments: MESSAGE_FRAGMENTS_MAX,
      maxBufferedChunks: BUFFERED_CHUNKS_MAX,
    })
    this.#listen()
    signal.addEventListener('abort', this.#onAbort, { once: true })
    if (signal.aborted) this.#onAbort()
  }

  get queuedBytes(): number {
    return this.#socket.bufferedAmount
  }

  write(data: string | Uint8Array, done?: () => void): void {
    if (this.#end || this.#socket.readyState !== WebSocket.OPEN) return
    this.#socket.send(data, (error) => {
      if (!error) done?.()
    })
  }

  end(reason: string, backOff: boolean, closeCode = 1000, retryAfterMs = 0): void {
    if (this.#end) return
    this.#end = { reason, backOff, retryAfterMs }
    if (this.#socket.readyState === WebSocket.OPEN) {
      this.#socket.close(closeCode)
      this.#timers.push(setTimeout(() => this.#socket.terminate(), CLOSE_TIMEOUT_MS))
    } else {
      this.#socket.terminate()
    }
  }

  roundTrip(timeoutMs: number): Promise<boolean> {
    if (!this.#welcomed || this.#end || this.#roundTrips.size >= ROUND_TRIPS_MAX)
      return Promise.resolve(false)
    const token = randomBytes(16).toString('hex')
    return new Promise((resolve) => {
      const timer = setTimeout(() => answer(false), timeoutMs)
      const answer = (answered: boolean) => {
        clearTimeout(timer)
        this.#roundTrips.delete(token)
        resolve(answered)
      }
      this.#roundTrips.set(token, answer)
      this.#socket.ping(token)
    })
  }

  #listen(): void {
    const socket = this.#socket
    socket.on('open', () => this.#greet())
    socket.on('message', (data, isBinary) => this.#take(data, isBinary))
    socket.on('pong', (data) => {
      this.#alive()
      this.#roundTrips.get(data.toString('latin1'))?.(true)
    })
    socket.on('ping', () => this.#alive())
    socket.on('unexpected-response', (_request, response: IncomingMessage) => {
      const retryAfterMs = retryAfterMsOf(response.headers['retry-after'])
      response.destroy()
      this.end(reasonOfStatus(response.statusCode ?? 0), true, 1000, retryAfterMs)
    })
    socket.on('error', (error) => {
      this.#end ??= { reason: reasonOfError(error), backOff: true, retryAfterMs: 0 }
      socket.terminate()
    })
    socket.on('close', (code) => this.#settle(code))
  }

  #greet(): void {
    if (this.#socket.protocol !== SUBPROTOCOL) {
      this.end('the other end does not speak this protocol', true, 1002)
      return
    }
    this.#timers.push(
      setTimeout(() => {
        if (!this.#welcomed) this.end('the controller sent no welcome', true, 1008)
      }, HELLO_TIMEOUT_MS),
      setInterval(() => this.#ping(), this.#options.pingIntervalMs),
    )
    this.write(JSON.stringify(this.#options.hello(this.sessionNonce)))
  }

  #ping(): void {
    if (this.#missedPongs >= PONG_MISSES_MAX) {
      this.#end ??= {
        reason: 'the connection is dead: no answer to pings',
        backOff: false,
        retryAfterMs: 0,
      }
      this.#socket.terminate()
      return
    }
    this.#missedPongs += 1
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.ping()
  }

  #alive(): void {
    this.#missedPongs = 0
    this.#options.onAlive()
  }

  #take(data: RawData, isBinary: boolean): void {
    if (this.#end) return
    this.#alive()
    if (!this.#spend()) return
    if (isBinary) {
      this.#violation('a binary message', 1003)
      return
    }
    const parsed = parseMessage(CONTROLLER_MESSAGES, textOf(data))
    if (!parsed.ok) {
      this.#violation(`${parsed.error.reason}${parsed.error.path ? ` at ${parsed.error.path}` : ''}`, 1007)
      return
    }
    this.#dispatch(parsed.value)
  }

  #dispatch(message: ControllerMessage): void {
    if (message.kind === 'goodbye') {
      this.#held = message.code === 'held'
      const words = GOODBYE_WORDS[message.code] ?? `the controller said goodbye (${message.code})`
      this.end(`${words}: ${message.reason}`, message.code !== 'shutdown', 1000, message.retryAfterMs)
    } else if (message.kind === 'welcome') {
      if (this.#welcomed) {
        this.#violation('a second welcome')
        return
      }
      this.#welcomed = true
      this.#options.onWelcome(message, this)
    } else if (!this.#welcomed) {
      this.#violation(`${message.kind} before the welcome`)
    } else {
      const wrong = this.#options.onMessage(message)
      if (wrong !== null) this.#violation(wrong)
    }
  }

  #violation(what: string, closeCode = 1008): void {
    this.#options.logger.error({ what }, 'the controller broke the protocol')
    this.end(`the controller broke the protocol: ${what}`, true, closeCode)
  }

  /** False, and the end, when the controller floods. */
  #spend(): boolean {
    const nowMs = performance.now()
    if (nowMs - this.#second.startedMs > 1_000) this.#second = { startedMs: nowMs, messages: 0 }
    this.#second.messages += 1
    if (this.#second.messages <= MESSAGES_PER_SECOND_MAX) return true
    this.#violation('too many messages')
    return false
  }

  #settle(code: number): void {
    if (this.#settled) return
    this.#settled = true
    for (const timer of this.#timers) clearTimeout(timer)
    for (const answer of [...this.#roundTrips.values()]) answer(false)
    this.#signal.removeEventListener('abort', this.#onAbort)
    const end = this.#end ?? {
      reason: `the connection was closed (code ${code})`,
      backOff: !this.#welcomed,
      retryAfterMs: 0,
    }
    this.#resolve({ ...end, welcomed: this.#welcomed, held: this.#held })
  }
}

function textOf(data: RawData): string {
  if (Array.isArray(data)) return Buffer.concat(data).toString('utf8')
  return Buffer.isBuffer(data) ? data.toString('utf8') : Buffer.from(data).toString('utf8')
}
