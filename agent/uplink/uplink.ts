/**
 * The agent's line to its controller: dials, greets, sends what the buffer holds, hands on what the controller
 * says, and dials again when the line breaks. It believes the controller's certificate and nothing else;
 * commands are verified by whoever takes them.
 */
import { createBackoff } from '../../shared/node/backoff.ts'
import { pause } from '../../shared/node/loop.ts'
import { BACKOFF_MAX_MS, BACKOFF_MIN_MS, PING_INTERVAL_MS } from '../../shared/protocol/limits.ts'
import type { AgentMessage, ControllerMessage } from '../../shared/protocol/messages.ts'
import { PROTOCOL_VERSION } from '../../shared/protocol/version.ts'
import type { Hello, Uplink, UplinkOptions, UplinkState, Welcome } from './ports.ts'
import { reasonOfError } from './reasons.ts'
import { createRefusals } from './refusals.ts'
import { createSender, type Sender } from './sender.ts'
import { AGENT_PATH, runSession, type Session, type SessionEnd } from './session.ts'

export type { UplinkState } from './ports.ts'

const STATUS_INTERVAL_MS = 60_000
const REFUSAL_PAUSE_MS = 1_000
/** A controller that tells of higher watermarks again and again must not fill the disk with set-aside files. */
const NEW_STREAM_INTERVAL_MS = 3_600_000

export function createUplink(options: UplinkOptions): Uplink {
  return new ControllerLine(options)
}

class ControllerLine implements Uplink {
  readonly #options: UplinkOptions
  readonly #url: string
  readonly #clock: () => number
  readonly #random: () => number
  readonly #backoff: ReturnType<typeof createBackoff>
  readonly #refusals: ReturnType<typeof createRefusals>
  #session: Session | null = null
  #sender: Sender | null = null
  #phase: UplinkState['phase'] = 'stopped'
  #sinceMs: number
  #lastError: { readonly reason: string; readonly atMs: number } | null = null
  #nextAttemptMs: number | null = null
  #attempts = 0
  #lastHeardMs: number | null = null
  #sentBatches = 0
  #newStreamMs = Number.NEGATIVE_INFINITY
  #held = false
  #pausing: AbortController | null = null

  constructor(options: UplinkOptions) {
    this.#options = options
    this.#url = endpointOf(options.gatewayUrl)
    this.#clock = options.clock ?? Date.now
    this.#random = options.random ?? Math.random
    this.#backoff = createBackoff(
      options.backoffMinMs ?? BACKOFF_MIN_MS,
      options.backoffMaxMs ?? BACKOFF_MAX_MS,
      this.#random,
    )
    this.#refusals = createRefusals(options.refusalPauseMs ?? REFUSAL_PAUSE_MS)
    this.#sinceMs = this.#clock()
  }

  async run(signal: AbortSignal): Promise<void> {
    const stopListening = this.#options.buffer.onRows(() => this.#sender?.wake())
    while (!signal.aborted) {
      this.#enter('connecting')
      this.#attempts += 1
      const end = await this.#connect(signal)
      this.#afterSession(end)
      if (signal.aborted) break
      const pauseMs = this.#pauseAfter(end)
      this.#nextAttemptMs = this.#clock() + pauseMs
      this.#enter('waiting')
      this.#pausing = new AbortController()
      await pause(pauseMs, AbortSignal.any([signal, this.#pausing.signal]))
      this.#pausing = null
      this.#nextAttemptMs = null
    }
    stopListening()
    this.#enter('stopped')
  }

  send(message: Exclude<AgentMessage, { kind: 'hello' }>): boolean {
    if (!this.#session || this.#phase !== 'connected') return false
    this.#session.write(JSON.stringify(message))
    return true
  }

  state(): UplinkState {
    return {
      phase: this.#phase,
      sinceMs: this.#sinceMs,
      lastError: this.#lastError?.reason ?? null,
      lastErrorMs: this.#lastError?.atMs ?? null,
      nextAttemptMs: this.#nextAttemptMs,
      attempts: this.#attempts,
      lastHeardMs: this.#lastHeardMs,
      inFlight: this.#sender?.inFlight ?? 0,
      sentBatches: this.#sentBatches + (this.#sender?.sentBatches ?? 0),
      sessionNonce: this.#session?.sessionNonce ?? null,
      held: this.#held,
    }
  }

  reconnect(reason: string): void {
    this.#session?.end(reason, false)
    this.#pausing?.abort()
  }

  roundTrip(timeoutMs: number): Promise<boolean> {
    return this.#session?.roundTrip(timeoutMs) ?? Promise.resolve(false)
  }

  async #connect(signal: AbortSignal): Promise<SessionEnd> {
    let statusTimer: NodeJS.Timeout | undefined
    try {
      const tls = await this.#options.tlsOptions()
      return await runSession(
        {
          url: this.#url,
          tls,
          hello: (sessionNonce) => this.#hello(sessionNonce),
          onWelcome: (welcome, session) => {
            this.#welcome(welcome, session)
            statusTimer = setInterval(
              () => this.#sendStatus(),
              this.#options.statusIntervalMs ?? STATUS_INTERVAL_MS,
            )
          },
          onMessage: (message) => this.#take(message),
          onAlive: () => {
            this.#lastHeardMs = this.#clock()
          },
          pingIntervalMs: this.#options.pingIntervalMs ?? PING_INTERVAL_MS,
          logger: this.#options.logger,
        },
        signal,
      )
    } catch (error) {
      const reason = reasonOfError(error)
      return { reason, welcomed: false, held: false, backOff: true, retryAfterMs: 0 }
    } finally {
      clearInterval(statusTimer)
    }
  }

  #afterSession(end: SessionEnd): void {
    const wasConnected = this.#phase === 'connected'
    this.#sender?.stop()
    this.#sentBatches += this.#sender?.sentBatches ?? 0
    this.#sender = null
    this.#session = null
    this.#options.files?.disconnected()
    this.#options.buffer.rollback()
    this.#lastError = { reason: end.reason, atMs: this.#clock() }
    // A controller that cannot be reached says nothing about it.
    if (end.held) this.#held = true
    this.#options.logger.warn({ reason: end.reason }, 'no connection to the controller')
    if (wasConnected) this.#call('onDisconnected', () => this.#options.handlers.onDisconnected(end.reason))
  }

  #pauseAfter(end: SessionEnd): number {
    if (end.welcomed && !end.backOff) this.#backoff.reset()
    // A quarter more at random, or every agent of a controller that asked for peace comes back at once.
    const askedMs = end.retryAfterMs * (1 + this.#random() / 4)
    return Math.max(this.#backoff.next(), Math.floor(askedMs))
  }

  #enter(phase: UplinkState['phase']): void {
    this.#phase = phase
    this.#sinceMs = this.#clock()
  }

  #hello(sessionNonce: string): Hello {
    const { agentVersion, bootId, keysetVersion, inventory } = this.#options.helloFacts()
    return {
      kind: 'hello',
      protocolVersion: PROTOCOL_VERSION,
      agentVersion,
      bootId,
      sessionNonce,
      keysetVersion,
      streamId: this.#options.buffer.streamId,
      watermarks: this.#options.buffer.watermarks().map((mark) => ({ ...mark })),
      inventory,
    }
  }

  #welcome(welcome: Welcome, session: Session): void {
    const { buffer, handlers, logger } = this.#options
    if (welcome.protocolVersion !== PROTOCOL_VERSION) {
      session.end(`the controller speaks protocol version ${welcome.protocolVersion}`, true)
      return
    }
    const resumed = buffer.resume(welcome.watermarks)
    if (resumed.kind === 'ahead') {
      const { class: eventClass, sequence, last } = resumed
      this.#call('onWatermarkAhead', () => handlers.onWatermarkAhead?.({ class: eventClass, sequence, last }))
      this.#beginNewStream(session, eventClass, sequence, last)
      return
    }
    this.#session = session
    this.#attempts = 0
    this.#held = false
    this.#enter('connected')
    this.#sender = createSender({
      buffer,
      credits: welcome.credits,
      refusals: this.#refusals,
      write: (frame, done) => session.write(frame, done),
      queuedBytes: () => session.queuedBytes,
      reconnect: (reason, kind) => session.end(reason, kind === 'backOff'),
      logger,
      ...(this.#options.coalesceMs === undefined ? {} : { coalesceMs: this.#options.coalesceMs }),
      ...(this.#options.answerTimeoutMs === undefined
        ? {}
        : { answerTimeoutMs: this.#options.answerTimeoutMs }),
    })
    this.#sendStatus()
    this.#sender.wake()
    logger.info({ credits: welcome.credits }, 'connected to the controller')
    this.#call('onConnected', () => handlers.onConnected(welcome))
    this.#options.files?.connected({
      offer: (message) => session.write(JSON.stringify(message)),
      write: (frame, done) => session.write(frame, done),
      get queuedBytes() {
        return session.queuedBytes
      },
    })
  }

  #beginNewStream(session: Session, eventClass: number, sequence: number, last: number): void {
    const reason = `the controller has class ${eventClass} up to ${sequence}, this buffer only up to ${last}: it was rolled back, or the agent's identity is used twice`
    // Monotonic: a clock that was set back must not keep the buffer from beginning anew for days.
    const nowMs = performance.now()
    if (nowMs - this.#newStreamMs < NEW_STREAM_INTERVAL_MS) {
      session.end(`${reason} (again; the buffer is kept)`, true)
      return
    }
    this.#newStreamMs = nowMs
    this.#options.buffer.startNewStream(reason)
    session.end(reason, false)
  }

  #take(message: Exclude<ControllerMessage, { kind: 'welcome' | 'goodbye' }>): string | null {
    const { handlers } = this.#options
    switch (message.kind) {
      case 'acknowledgement':
        return this.#sender?.acknowledged(message) ?? null
      case 'batchRefused':
        return this.#sender?.refused(message) ?? null
      case 'fileProgress':
        return this.#options.files?.progress(message) ?? null
      case 'fileRefused':
        return this.#options.files?.refused(message) ?? null
      case 'command':
        this.#call('onCommand', () => handlers.onCommand(message, this.#session?.sessionNonce ?? ''))
        return null
      case 'cancelCommand':
        this.#call('onCancel', () => handlers.onCancel(message.commandId))
        return null
      case 'keyset':
        this.#call('onKeyset', () => handlers.onKeyset(message))
        return null
      case 'renewedCertificate':
        this.#call('onRenewedCertificate', () => handlers.onRenewedCertificate(message.certificateChainPem))
        return null
    }
  }

  #sendStatus(): void {
    this.#call('status', () => {
      this.send(this.#options.status())
    })
  }

  /** Handlers are other rooms' code: their faults do not cost the connection. */
  #call(name: string, run: () => void | Promise<void>): void {
    const failed = (error: unknown) =>
      this.#options.logger.error({ handler: name, error: String(error) }, 'a handler of the uplink failed')
    try {
      run()?.catch(failed)
    } catch (error) {
      failed(error)
    }
  }
}

/** Throws for an address that no agent may dial. */
function endpointOf(gatewayUrl: string): string {
  const url = new URL(AGENT_PATH, gatewayUrl)
  if (url.protocol === 'https:') url.protocol = 'wss:'
  if (url.protocol !== 'wss:')
    throw new Error(`the controller's address must begin with wss://, not ${url.protocol}//`)
  return url.href
}
