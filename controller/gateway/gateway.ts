/**
 * Where agents connect: one live session per agent, known by its certificate alone. Hands batches to ingest
 * and messages to handlers, brings messages to agents, and ends sessions at once when their right ends.
 */
import type { AddressInfo } from 'node:net'
import { aborted, runEvery, runTogether } from '../../shared/node/loop.ts'
import type { ControllerMessage } from '../../shared/protocol/messages.ts'
import { createFrontDoor } from './front-door.ts'
import { DEFAULT_LIMITS, type GatewayLimits, type GatewayOptions, type Goodbye, type Twin } from './ports.ts'
import { createSession, type Session } from './session.ts'
import { createSlots } from './slots.ts'
import { createTwinWatch } from './twin-watch.ts'

const TICK_MS = 1_000
const TLS_RELOAD_MS = 3_600_000
const SHUTDOWN_RETRY_MS = 2_000

export interface SessionInfo {
  readonly agentId: string
  readonly certificateFingerprint: string
  readonly remoteAddress: string
  readonly connectedMs: number
}

export interface Gateway {
  /** Listens until `signal` aborts; resolves when every connection is closed. Rejects when it cannot listen. */
  run(signal: AbortSignal): Promise<void>
  /** Resolves when `run` listens. */
  readonly listening: Promise<AddressInfo>
  /** The address it listens on, or null when it does not. */
  address(): AddressInfo | null
  /** False when the agent has no live session, or does not read what it is sent. */
  send(agentId: string, message: ControllerMessage): boolean
  sessions(): readonly SessionInfo[]
  /** The nonce of the agent's live session. */
  nonceOf(agentId: string): string | undefined
  /** Ends the agent's sessions at once, those that have not said hello too. */
  disconnect(agentId: string, code: Goodbye['code'], reason: string, retryAfterMs?: number): void
}

export function createGateway<Position>(options: GatewayOptions<Position>): Gateway {
  const limits: GatewayLimits = { ...DEFAULT_LIMITS, ...options.limits }
  const clock = options.clock ?? Date.now
  const monotonic = options.monotonic ?? (() => performance.now())
  const random = options.random ?? Math.random
  const { logger } = options
  const slots = createSlots(limits.batchesMax)
  /** All connections, and those of them that said hello. */
  const connections = new Set<Session>()
  const live = new Map<string, Session>()
  const twins = createTwinWatch({ limits, monotonic, onTwins: options.onTwins })
  const listening = Promise.withResolvers<AddressInfo>()
  listening.promise.catch(() => undefined)
  let address: AddressInfo | null = null

  const takePlace = (session: Session): void => {
    const older = live.get(session.agentId)
    live.set(session.agentId, session)
    older?.end('replaced', 'the agent connected again')
  }
  const admit = options.admit ?? (() => ({ kind: 'ok' as const, renew: false }))
  const leave = (session: Session): void => {
    connections.delete(session)
    if (live.get(session.agentId) === session) live.delete(session.agentId)
  }

  const run = async (signal: AbortSignal): Promise<void> => {
    const server = createFrontDoor({
      tlsOptions: options.tlsOptions(),
      limits,
      authorise: options.authorise,
      sessionCount: () => connections.size,
      onSocket: (socket, peer, remoteAddress, acceptedMs) => {
        const whose = { socket, peer, remoteAddress, acceptedMs }
        const claim = (session: Session, twin: Twin) => twins.claim(session, twin, live.get(session.agentId))
        const shared = { limits, slots, clock, monotonic, admit, claim, onOpen: takePlace, onEnd: leave }
        const session = createSession({ ...options, ...whose, ...shared })
        connections.add(session)
        if (signal.aborted) session.end('shutdown', 'the controller stops')
      },
      random,
      logger,
    })
    try {
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject)
        server.listen(options.port, options.host, () => {
          server.off('error', reject)
          resolve()
        })
      })
    } catch (error) {
      listening.reject(error)
      throw error
    }
    const bound = server.address()
    if (bound === null || typeof bound === 'string') throw new Error('the gateway listens on no port')
    address = bound
    listening.resolve(bound)
    logger.info({ address: bound.address, port: bound.port }, 'the gateway listens for agents')
    // Accepting can fail for a while (too many open files); the agents come again.
    server.on('error', (error) => logger.error({ error: error.message }, 'the gateway could not accept'))
    try {
      await runTogether(signal, [
        aborted,
        (stop) =>
          runEvery(TICK_MS, stop, () => {
            for (const session of connections) session.tick()
            twins.forget()
          }),
        async function renewTls(stop) {
          let first = true
          await runEvery(TLS_RELOAD_MS, stop, () => {
            if (!first) server.setSecureContext(options.tlsOptions())
            first = false
          })
        },
      ])
    } finally {
      address = null
      for (const session of [...connections]) {
        // Jitter, because a controller restart is met by every agent at once.
        const retryAfterMs = Math.floor(SHUTDOWN_RETRY_MS * random())
        session.end('shutdown', 'the controller stops', retryAfterMs)
      }
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      server.closeIdleConnections()
      const force = setTimeout(() => server.closeAllConnections(), SHUTDOWN_RETRY_MS)
      await closed
      clearTimeout(force)
    }
  }

  return {
    run,
    listening: listening.promise,
    address: () => address,
    send: (agentId, message) => live.get(agentId)?.send(message) ?? false,
    sessions: () =>
      [...live.values()].map(({ agentId, peer, remoteAddress, connectedMs }) => ({
        agentId,
        certificateFingerprint: peer.certificateFingerprint,
        remoteAddress,
        connectedMs,
      })),
    nonceOf: (agentId) => live.get(agentId)?.nonce,
    disconnect(agentId, code, reason, retryAfterMs = 0) {
      for (const session of [...connections]) {
        if (session.agentId === agentId) session.end(code, reason, retryAfterMs)
      }
    },
  }
}
