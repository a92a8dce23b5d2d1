/**
 * One connection of one agent, from the upgrade to its end. Everything that arrives is from somebody who may
 * be hostile: whatever breaks the rules ends the connection with a reason in the log.
 *
 * Invariants: nothing but a hello is accepted before the welcome; `onDisconnected` is called once for each
 * `onHello`; after `end` nothing that still arrives has an effect.
 */
import { randomBytes } from 'node:crypto'
import type { WebSocket } from 'ws'
import { isFileChunk } from '../../shared/node/file-chunk.ts'
import type { Logger } from '../../shared/node/logger.ts'
import type { PeerIdentity } from '../../shared/node/tls.ts'
import { CONTROL_BYTES_MAX, PONG_MISSES_MAX } from '../../shared/protocol/limits.ts'
import { AGENT_MESSAGES, type AgentMessage, type ControllerMessage } from '../../shared/protocol/messages.ts'
import { parseMessage } from '../../shared/protocol/parse.ts'
import { PROTOCOL_VERSION } from '../../shared/protocol/version.ts'
import { createFileLane } from './file-lane.ts'
import type { Admit, GatewayLimits, GatewayOptions, Goodbye, Hello, Twin } from './ports.ts'
import { createAllowance, type Slots } from './slots.ts'

/** How long a client has to read its goodbye and close. */
const FAREWELL_MS = 1_000
const RETRY_AFTER_MS = 5_000
/** A person has to look first. */
const HELD_RETRY_AFTER_MS = 60_000
/** Of a ping interval: how long the last ping may be unanswered. With the second's tick, 45 s in all. */
const LAST_PING_PATIENCE = 0.9

export interface SessionOptions<Position>
  extends Pick<GatewayOptions<Position>, 'authorise' | 'keysetVersion' | 'batches' | 'files' | 'handlers'> {
  readonly socket: WebSocket
  readonly peer: PeerIdentity
  readonly remoteAddress: string
  /** Of the TCP connection, on the clock of `performance.now`. */
  readonly acceptedMs: number
  readonly limits: GatewayLimits
  readonly slots: Slots
  readonly logger: Logger
  readonly clock: () => number
  readonly monotonic: () => number
  readonly admit: Admit
  /** Resolves when the agent's place is free for this session, which may have ended by then. */
  readonly claim: (session: Session, twin: Twin) => Promise<void>
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
  /** Who said hello; undefined until it was accepted. */
  readonly twin: Twin | undefined
  /** True when the other end answers a ping that is sent now, and so is alive at this moment. */
  isAlive(timeoutMs: number): Promise<boolean>
  /** False when the session is not open or the agent does not read. */
  send(message: ControllerMessage): boolean
  end(code: Goodbye['code'], reason: string, retryAfterMs?: number): void
  /** Pings, and ends a connection that is dead or whose certificate has run out. Called about every second. */
  tick(): void
}

export function createSession<Position>(options: SessionOptions<Position>): Session {
  const { socket, peer, limits, slots, clock, monotonic, handlers, batches } = options
  const { agentId } = peer
  const logger = options.logger.child({ agentId, remote: options.remoteAddress })
  const allowance = createAllowance(limits.controlBurst, limits.controlIntervalMs, monotonic)
  const connectedMs = clock()

  let state: 'greeting' | 'opening' | 'open' | 'ended' = 'greeting'
  let hello: Hello | null = null
  let position: Position | null = null
  let unanswered = 0
  let paused = 0
  let renewing = false
  let missedPongs = 0
  let heardMs = monotonic()
  let pingedMs = heardMs
  const challenges = new Map<string, (alive: boolean) => void>()

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
    fileLane.closed()
    for (const answer of [...challenges.values()]) answer(false)
    const quietMs = monotonic() - heardMs
    if (hello) call('onDisconnected', () => handlers.onDisconnected(agentId, reason, quietMs))
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
    get twin() {
      return hello ? twinOf(hello) : undefined
    },
    isAlive(timeoutMs) {
      if (state === 'ended') return Promise.resolve(false)
      // A fresh word, because an answer to an earlier ping may have been on its way for long.
      const word = randomBytes(16).toString('hex')
      return new Promise((resolve) => {
        const answer = (alive: boolean) => {
          clearTimeout(timer)
          challenges.delete(word)
          resolve(alive)
        }
        const timer = setTimeout(() => answer(false), timeoutMs)
        challenges.set(word, answer)
        socket.ping(word)
      })
    },
    send: (message) => state === 'open' && write(message),
    end(code, reason, retryAfterMs = 0) {
      if (!finish(`${code}: ${reason}`)) return
      logger.info({ code, reason }, 'an agent was sent away')
      if (write({ kind: 'goodbye', code, reason: reason.slice(0, 512), retryAfterMs })) socket.close(1000)
      setTimeout(() => socket.terminate(), FAREWELL_MS).unref()
    },
    tick() {
      if (state === 'ended') return
      if (peer.expiresAtMs <= clock()) {
        session.end('shutdown', 'the certificate has run out: connect again with the new one')
        return
      }
      const isLast = missedPongs >= PONG_MISSES_MAX
      const patienceMs = limits.pingIntervalMs * (isLast ? LAST_PING_PATIENCE : 1)
      const nowMs = monotonic()
      // What the agent sends waits in the socket while it is not read: its pongs too.
      if (nowMs - pingedMs < patienceMs || paused > 0) return
      if (isLast) {
        logger.info({}, 'a connection is dead')
        cut('no answer to pings')
        return
      }
      pingedMs = nowMs
      missedPongs += 1
      socket.ping()
    },
  }

  const heard = (): void => {
    missedPongs = 0
    heardMs = monotonic()
  }

  const twinOf = (message: Hello): Twin => ({
    bootId: message.bootId,
    certificateFingerprint: peer.certificateFingerprint,
    hostName: message.inventory.hostName,
    address: options.remoteAddress,
  })

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
    const admission = options.admit(agentId, message, peer, options.remoteAddress)
    if (admission.kind === 'held') {
      session.end('held', admission.reason, HELD_RETRY_AFTER_MS)
      return
    }
    await options.claim(session, twinOf(message))
    if (!isOpening()) return
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
      ...(admission.renew ? { renew: true as const } : {}),
    })
    call('onConnected', () => handlers.onConnected(agentId))
  }

  /** Calls may have ended the session, which the compiler does not see. */
  const isOpening = (): boolean => state === 'opening'

  /** False, and the end, when the welcome has not been said or the right to speak has ended since. */
  const mayGoOn = (): boolean => {
    const standing = state === 'open' ? options.authorise(peer.certificateFingerprint, agentId) : null
    if (standing === null) session.end('malformed', 'a batch or file before the welcome')
    else if (standing === 'held') {
      session.end('held', 'two hosts use this agent’s identity', HELD_RETRY_AFTER_MS)
    } else if (standing !== 'ok') session.end('revoked', 'the certificate is not valid any more')
    return standing === 'ok'
  }
  const fileLane = createFileLane({
    files: options.files,
    agentId,
    mayGoOn,
    end: (code, reason) => session.end(code, reason, RETRY_AFTER_MS),
    send: (message) => session.send(message),
  })

  const takeBatch = async (frame: Uint8Array): Promise<void> => {
    if (!mayGoOn() || position === null) return
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

  const takeBinary = (frame: Uint8Array): Promise<void> =>
    isFileChunk(frame) ? fileLane.take(frame) : takeBatch(frame)

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
      case 'fileOffer':
        await fileLane.offer(message)
        break
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
      case 'stopping':
        handlers.onStopping(agentId, message.reason)
        break
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
    heard()
    const handled = isBinary ? takeBinary(data) : takeText(data)
    handled.catch(failed)
  })
  socket.on('pong', (data: Buffer) => {
    heard()
    challenges.get(data.toString('latin1'))?.(true)
  })
  socket.on('ping', () => {
    heard()
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
