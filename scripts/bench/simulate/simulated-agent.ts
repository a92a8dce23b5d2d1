/**
 * An agent without a host: the product's own connection (dialling, TLS, hello, credits, goodbyes) and back-off,
 * with prepared frames in place of a buffer. What is not acknowledged is sent again after a reconnect.
 */

import { AGENT_PATH, runSession, type Session, type SessionEnd } from '../../../agent/uplink/session.ts'
import { createBackoff } from '../../../shared/node/backoff.ts'
import type { Logger } from '../../../shared/node/logger.ts'
import { pause } from '../../../shared/node/loop.ts'
import { controllerFacingTlsOptions } from '../../../shared/node/tls.ts'
import { BACKOFF_MAX_MS, BACKOFF_MIN_MS, PING_INTERVAL_MS } from '../../../shared/protocol/limits.ts'
import type { ControllerMessage } from '../../../shared/protocol/messages.ts'
import { PROTOCOL_VERSION } from '../../../shared/protocol/version.ts'
import type { PreparedFrame } from './frames.ts'

export interface FleetMember {
  readonly agentId: string
  readonly keyPem: string
  readonly certificateChainPem: string
}

export interface SimulatedAgentOptions {
  readonly member: FleetMember
  readonly number: number
  readonly frames: readonly PreparedFrame[]
  /** Unanswered batches at once, below what the controller allows. */
  readonly inFlightMax: number
  readonly gatewayUrl: string
  readonly rootPem: string
  readonly serverName: string
  readonly onWelcome: () => void
  readonly onEnd: (end: SessionEnd) => void
  readonly onAcknowledged: (rows: number, latencyMs: number) => void
  readonly onRefused: (reason: string) => void
  readonly logger: Logger
}

export interface SimulatedAgent {
  run(signal: AbortSignal): Promise<void>
  /** Lets this many more batches go out; all of them when it is infinite. */
  allow(batches: number): void
  /** Lets nothing more go out. */
  hold(): void
  readonly inFlight: number
  /** Sequence up to which everything was acknowledged, by class. */
  acknowledged(): Readonly<Record<number, number>>
  readonly framesLeft: number
}

interface Sent {
  readonly frame: PreparedFrame
  readonly atMs: number
}

export function createSimulatedAgent(options: SimulatedAgentOptions): SimulatedAgent {
  const { member, frames } = options
  const acknowledged: Record<number, number> = {}
  const backoff = createBackoff(BACKOFF_MIN_MS, BACKOFF_MAX_MS)
  let session: Session | null = null
  let credits = 0
  let allowed = 0
  let next = 0
  let sent: Sent[] = []

  const isStored = (frame: PreparedFrame) => frame.last <= (acknowledged[frame.class] ?? 0)

  const send = (): void => {
    const most = Math.min(credits, options.inFlightMax)
    while (session && allowed > 0 && sent.length < most) {
      const frame = frames[next]
      if (!frame) return
      next += 1
      if (isStored(frame)) continue
      allowed -= 1
      sent.push({ frame, atMs: performance.now() })
      session.write(frame.bytes)
    }
  }

  const acknowledge = (eventClass: number, sequence: number): void => {
    const index = sent.findIndex(({ frame }) => frame.class === eventClass && frame.last <= sequence)
    const [answered] = index < 0 ? [] : sent.splice(index, 1)
    acknowledged[eventClass] = Math.max(acknowledged[eventClass] ?? 0, sequence)
    if (answered) {
      const { frame, atMs } = answered
      options.onAcknowledged(frame.last - frame.first + 1, performance.now() - atMs)
    }
    send()
  }

  const take = (message: Exclude<ControllerMessage, { kind: 'welcome' | 'goodbye' }>): null => {
    if (message.kind === 'acknowledgement') acknowledge(message.class, message.sequence)
    if (message.kind === 'batchRefused') options.onRefused(`${message.code}: ${message.reason}`)
    return null
  }

  const greet = (welcome: Extract<ControllerMessage, { kind: 'welcome' }>, opened: Session): void => {
    for (const mark of welcome.watermarks) {
      acknowledged[mark.class] = Math.max(acknowledged[mark.class] ?? 0, mark.sequence)
    }
    session = opened
    credits = welcome.credits
    backoff.reset()
    options.onWelcome()
    send()
  }

  const connect = (signal: AbortSignal): Promise<SessionEnd> =>
    runSession(
      {
        url: `${options.gatewayUrl}${AGENT_PATH}`,
        tls: controllerFacingTlsOptions(member, options.rootPem, options.serverName),
        hello: (sessionNonce) => ({
          kind: 'hello',
          protocolVersion: PROTOCOL_VERSION,
          agentVersion: 'simulated',
          bootId: member.agentId,
          sessionNonce,
          keysetVersion: 1,
          streamId: member.agentId,
          watermarks: watermarksOf(frames, acknowledged),
          inventory: inventoryOf(options.number),
        }),
        onWelcome: greet,
        onMessage: take,
        onAlive: () => undefined,
        pingIntervalMs: PING_INTERVAL_MS,
        logger: options.logger,
      },
      signal,
    )

  return {
    async run(signal) {
      while (!signal.aborted) {
        const end = await connect(signal)
        session = null
        // What was not answered may be stored or not: the next welcome tells.
        allowed += sent.length
        sent = []
        next = 0
        options.onEnd(end)
        // As the product's uplink waits: a quarter more at random than the controller asks for.
        const askedMs = end.retryAfterMs * (1 + Math.random() / 4)
        await pause(Math.max(backoff.next(), askedMs), signal)
      }
    },
    allow(batches) {
      allowed += batches
      send()
    },
    hold() {
      allowed = 0
    },
    get inFlight() {
      return sent.length
    },
    acknowledged: () => ({ ...acknowledged }),
    get framesLeft() {
      return frames.length - next
    },
  }
}

function watermarksOf(frames: readonly PreparedFrame[], acknowledged: Readonly<Record<number, number>>) {
  return [...new Set(frames.map((frame) => frame.class))].map((eventClass) => ({
    class: eventClass,
    first: 1,
    last: frames.findLast((frame) => frame.class === eventClass)?.last ?? 0,
    acknowledged: acknowledged[eventClass] ?? 0,
  }))
}

function inventoryOf(number: number) {
  return {
    hostName: `simulated-${number}`,
    operatingSystem: 'Debian GNU/Linux',
    operatingSystemVersion: '12',
    kernel: '6.1.0',
    architecture: 'x64',
    cpuModel: 'simulated',
    cpuCount: 2,
    memoryBytes: 2 ** 31,
    addresses: [`10.${(number >> 8) & 255}.${number & 255}.7`],
  }
}
