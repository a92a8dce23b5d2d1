/**
 * One connection of one agent, from the upgrade to its end. Everything that arrives is from somebody who may
 * be hostile: whatever breaks the rules ends the connection with a reason in the log.
 *
 * Invariants: nothing but a hello is accepted before the welcome; `onDisconnected` is called once for each
 * `onHello`; after `end` nothing that still arrives has an effect.
 */
import type { WebSocket } from 'ws'
import type { Logger } from '../../shared/node/logger.ts'
import type { PeerIdentity } from '../../shared/node/tls.ts'
import { CONTROL_BYTES_MAX, PONG_MISSES_MAX } from '../../shared/protocol/limits.ts'
import { AGENT_MESSAGES, type AgentMessage, type ControllerMessage } from '../../shared/protocol/messages.ts'
import { parseMessage } from '../../shared/protocol/parse.ts'
import { PROTOCOL_VERSION } from '../../shared/protocol/version.ts'
import type { GatewayLimits, GatewayOptions, Goodbye, Hello } from './ports.ts'
import { createAllowance, type Slots } from './slots.ts'

/** How long a client has to read its goodbye and close. */
const FAREWELL_MS = 1_000
const RETRY_AFTER_MS = 5_000

export interface SessionOptions<Position>
  extends Pick<GatewayOptions<Position>, 'authorise' | 'keysetVersion' | 'batches' | 'handlers'> {
  readonly socket: WebSocket
  readonly peer: PeerIdentity
  readonly remoteAddress: string
  /** Of the TCP connection, on the clock of `performance.now`. */
  readonly acceptedMs: number
  readonly limits: GatewayLimits
  readonly slots: Slots
  readonly logger: Logger
  readonly clock: () => number
  /** The hello is accepted: takes the place of the agent's older session. */
  readonly onOpen: (session: Session) => void
  readonly onEnd: (session: Session) => void
}

export interface Session {
  readonly agentId: string
  readonly peer: PeerIdentity
  readonly remoteAddress: string
  readonly connectedMs: number
  /** Of the hello; undefined until it came. */
  readonly nonce: string | undefined
  /** False when the session is not open or the agent does not read. */
  send(message: ControllerMessage): boolean
  end(code: Goodbye['code'], reason: string, retryAfterMs?: number): void
  /** Pings, and ends a connection that is dead or whose certificate has run out. Called about every second. */
  tick(nowMs: number): void
}

export function createSession<Position>(options: SessionOptions<Position>): Session {
  const { socket, peer, limits, slots, clock, handlers, batches } = options
  const { agentId } = peer
  const logger = options.logger.child({ agentId, remote: options.remoteAddress })
  const allowance = createAllowance(limits.controlBurst, limits.controlIntervalMs, clock)
  const connectedMs = clock()

  let state: 'greeting' | 'opening' | 'open' | 'ended' = 'greeting'
  let hello: Hello | null = null
  let position: Position | null = null
  let unanswered = 0
  let paused = 0
  let renewing = false
  let missedPongs = 0
  let nextPingMs = connectedMs + limits.pingIntervalMs

  const write = (message: ControllerMessage): boolean => {
    if (socket.bufferedAmount > limits.bufferedBytesMax) {
      logger.warn({ bufferedBytes: socket.bufferedAmount }, 'an agent does not read what it is sent')
      cut('it does not read')
      return false
    }
    socket.send(JSON.stringify(message))
    return true
  }

  /** The end, whatever its cause: once. */
  const finish = (reason: string): boolean => {
    if (state === 'ended') return false
    state = 'ended'
    clearTimeout(helloTimer)
    options.onEnd(session)
    if (hello) call('onDisconnected', () => handlers.onDisconnected(agentId, reason))
    return true
  }

  const cut = (reason: string): void => {
    finish(reason)
    socket.terminate()
  }

  const session: Session = {
    agentId,
    peer,
    remoteAddress: options.remoteAddress,
    connectedMs,
    get nonce() {
      return hello?.sessionNonce
    },
    send: (message) => state === 'open' && write(message),
    end(code, reason, retryAfterMs = 0) {
      if (!finish(`${code}: ${reason}`)) return
      logger.info({ code, reason }, 'an agent was sent away')
      if (write({ kind: 'goodbye', code, reason: reason.slice(0, 512), retryAfterMs })) socket.close(1000)
      setTimeout(() => socket.terminate(), FAREWELL_MS).unref()
    },
    tick(nowMs) {
      if (state === 'ended') return
      if (peer.expiresAtMs <= nowMs) {
        session.end('shutdown', 'the certificate has run out: connect again with the new one')
        return
      }
      // What the agent sends waits in the socket while it is not read: its pongs too.
      if (nowMs < nextPingMs || paused > 0) return
      nextPingMs = nowMs + limits.pingIntervalMs
      if (missedPongs >= PONG_MISSES_MAX) {
        logger.info({}, 'a connection is dead')
        cut('no answer to pings')
        return
      }
      missedPongs += 1
      socket.ping()
    },
  }

  /** Calls a handler. What it throws is a fault of this program, but only this session pays. */
  const call = <Value>(name: string, run: () => Value): Value | null => {
    try {
      return run()
    } catch (error) {
      logger.error({ error: String(error), handler: name }, 'a handler of the gateway failed')
      session.end('overloaded', 'the controller could not handle this', RETRY_AFTER_MS)
      return null
    }
  }

  const open = async (message: Hello): Promise<void> => {
    if (message.protocolVersion !== PROTOCOL_VERSION) {
      session.end('protocolVersion', `this controller speaks version ${PROTOCOL_VERSION}`, 60_000)
      return
    }
    state = 'opening'
    const opened = await batches.open(agentId, message)
    // The socket may have ended meanwhile.
    if (state !== 'opening') return
    clearTimeout(helloTimer)
    hello = message
    position = opened.position
    options.onOpen(session)
    call('onHello', () => handlers.onHello(agentId, message, peer))
    if (!isOpening()) return
    state = 'open'
    write({
      kind: 'welcome',
      protocolVersion: PROTOCOL_VERSION,
      agentId,
      credits: limits.credits,
      watermarks: [...opened.watermarks],
      keysetVersion: options.keysetVersion(),
    })
    call('onConnected', () => handlers.onConnected(agentId))
  }

  /** Calls may have ended the session, which the compiler does not see. */
  const isOpening = (): boolean => state === 'opening'

  const takeBatch = async (frame: Uint8Array): Promise<void> => {
    if (state !== 'open' || position === null) {
      session.end('malformed', 'a batch before the welcome')
      return
    }
    if (options.authorise(peer.certificateFingerprint, agentId) !== 'ok') {
      session.end('revoked', 'the certificate is not valid any more')
      return
    }
    if (unanswered >= limits.credits) {
      session.end('limit', `more than ${limits.credits} batches without an answer`, RETRY_AFTER_MS)
      return
    }
    unanswered += 1
    if (!slots.tryTake()) await waitForSlot()
    try {
      if (isEnded()) return
      const taken = await batches.take(position, frame)
      unanswered -= 1
      if (taken.kind === 'malformed') session.end('malformed', taken.reason)
      else session.send(taken.message)
    } finally {
      slots.release()
    }
  }

  const isEnded = (): boolean => state === 'ended'

  const waitForSlot = async (): Promise<void> => {
    paused += 1
    socket.pause()
    await slots.take()
    paused -= 1
    if (paused === 0) socket.resume()
  }

  const renew = async (csrPem: string): Promise<void> => {
    if (renewing) return
    renewing = true
    try {
      const outcome = await handlers.onRenewal(agentId, csrPem, peer)
      if (outcome.kind === 'refused') logger.warn({ reason: outcome.reason }, 'a renewal was refused')
      else session.send({ kind: 'renewedCertificate', certificateChainPem: outcome.certificateChainPem })
    } finally {
      renewing = false
    }
  }

  const takeControl = async (message: AgentMessage): Promise<void> => {
    if (message.kind === 'hello') {
      if (state === 'greeting') await open(message)
      else session.end('malformed', 'a second hello')
      return
    }
    if (state !== 'open') {
      session.end('malformed', 'the hello is missing')
      return
    }
    switch (message.kind) {
      case 'status':
        handlers.onStatus(agentId, message)
        break
      case 'renewalRequest':
        await renew(message.csrPem)
        break
      case 'keysetRequest': {
        const keyset = handlers.onKeysetRequest(agentId)
        if (keyset) session.send(keyset)
        break
      }
    }
  }

  const takeText = async (data: Buffer): Promise<void> => {
    if (data.length > CONTROL_BYTES_MAX) {
      session.end('malformed', 'the message is too long')
      return
    }
    if (!spend()) return
    const parsed = parseMessage(AGENT_MESSAGES, data.toString('utf8'))
    if (parsed.ok) await takeControl(parsed.value)
    else
      session.end('malformed', `${parsed.error.reason}${parsed.error.path ? ` at ${parsed.error.path}` : ''}`)
  }

  /** False, and the end, when the agent sends control frames faster than it may. */
  const spend = (): boolean => {
    if (allowance.spend()) return true
    session.end('limit', 'too many messages', RETRY_AFTER_MS)
    return false
  }

  const failed = (error: unknown): void => {
    logger.error({ error: String(error) }, 'a message could not be handled')
    session.end('overloaded', 'the controller could not handle this', RETRY_AFTER_MS)
  }

  const helloLeftMs = options.acceptedMs + limits.helloTimeoutMs - performance.now()
  const helloTimer = setTimeout(() => session.end('malformed', 'no hello in time'), Math.max(0, helloLeftMs))

  socket.on('message', (data: Buffer, isBinary: boolean) => {
    if (state === 'ended') return
    missedPongs = 0
    const handled = isBinary ? takeBatch(data) : takeText(data)
    handled.catch(failed)
  })
  socket.on('pong', () => {
    missedPongs = 0
  })
  socket.on('ping', () => {
    // Answered by the library: a client that sends pings and reads no answers would fill memory.
    if (state !== 'ended' && spend() && socket.bufferedAmount > limits.bufferedBytesMax)
      cut('it does not read')
  })
  socket.on('error', (error) => {
    logger.info({ reason: error.message }, 'a connection broke the websocket protocol')
    finish(error.message)
    setTimeout(() => socket.terminate(), FAREWELL_MS).unref()
  })
  socket.on('close', (code) => {
    finish(`closed with code ${code}`)
  })

  return session
}
