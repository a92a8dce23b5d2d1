/**
 * The HTTPS server in front of the sessions: TLS with client certificates, and the one upgrade it grants. It
 * holds the numbers of those who are not known yet: handshakes, headers, time.
 */
import type { IncomingMessage } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { TlsOptions } from 'node:tls'
import { type WebSocket, WebSocketServer } from 'ws'
import type { Logger } from '../../shared/node/logger.ts'
import { type PeerIdentity, peerIdentity } from '../../shared/node/tls.ts'
import { MESSAGE_BYTES_MAX, MESSAGE_FRAGMENTS_MAX } from '../../shared/protocol/limits.ts'
import type { Authorise, GatewayLimits } from './ports.ts'

export const AGENT_PATH = '/v1/agent'
export const AGENT_SUBPROTOCOL = 'cordon.v1'

const HEADER_BYTES_MAX = 8 * 1024
const HEADERS_MAX = 64
const RETRY_AFTER_SECONDS = 30
const REFUSAL_LINGER_MS = 1_000

export interface FrontDoorOptions {
  readonly tlsOptions: TlsOptions
  readonly limits: GatewayLimits
  readonly authorise: Authorise
  /** Connections that were let in and live. */
  readonly sessionCount: () => number
  /** `acceptedMs` is on the clock of `performance.now`. */
  readonly onSocket: (
    socket: WebSocket,
    peer: PeerIdentity,
    remoteAddress: string,
    acceptedMs: number,
  ) => void
  readonly random: () => number
  readonly logger: Logger
}

/** The caller listens on it and closes it. */
export function createFrontDoor(options: FrontDoorOptions): Server {
  const { limits, logger } = options
  const server = createServer(
    {
      ...options.tlsOptions,
      handshakeTimeout: limits.helloTimeoutMs,
      maxHeaderSize: HEADER_BYTES_MAX,
      keepAlive: true,
      noDelay: true,
    },
    (request, response) => {
      const known = request.url === AGENT_PATH
      response.writeHead(known ? 426 : 404, {
        connection: 'close',
        ...(known ? { upgrade: 'websocket' } : {}),
      })
      response.end()
    },
  )
  server.maxHeadersCount = HEADERS_MAX
  server.maxConnections = limits.sessionsMax + limits.handshakesMax
  const strangers = watchStrangers(server, limits, logger)

  const sockets = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: MESSAGE_BYTES_MAX,
    maxFragments: MESSAGE_FRAGMENTS_MAX,
    handleProtocols: () => AGENT_SUBPROTOCOL,
  })
  sockets.on('wsClientError', (error, socket, request) => {
    logger.info({ reason: error.message, remote: request.socket.remoteAddress }, 'an upgrade was refused')
    refuse(socket, '400 Bad Request')
  })

  server.on('upgrade', (request, socket, head) => {
    socket.on('error', () => socket.destroy())
    const remoteAddress = request.socket.remoteAddress ?? 'gone'
    const admitted = admit(request, options)
    if (!admitted.ok) {
      logger.info({ reason: admitted.reason, remote: remoteAddress }, 'an upgrade was refused')
      refuse(socket, admitted.status, admitted.headers)
      return
    }
    sockets.handleUpgrade(request, socket, head, (webSocket) => {
      options.onSocket(webSocket, admitted.peer, remoteAddress, strangers.admitted(request.socket))
    })
  })
  server.on('clientError', (error, socket) => {
    logger.info({ reason: error.message }, 'a connection sent no proper request')
    socket.destroy()
  })
  return server
}

type Admission =
  | { readonly ok: true; readonly peer: PeerIdentity }
  | {
      readonly ok: false
      readonly status: string
      readonly reason: string
      readonly headers?: readonly string[]
    }

function admit(request: IncomingMessage, options: FrontDoorOptions): Admission {
  const refused = (status: string, reason: string, headers: readonly string[] = []): Admission => ({
    ok: false,
    status,
    reason,
    headers,
  })
  if (request.url !== AGENT_PATH) return refused('404 Not Found', 'another path')
  if (request.headers.upgrade?.toLowerCase() !== 'websocket') {
    return refused('426 Upgrade Required', 'an upgrade to something else', ['Upgrade: websocket'])
  }
  const offered = (request.headers['sec-websocket-protocol'] ?? '').split(',').map((name) => name.trim())
  if (!offered.includes(AGENT_SUBPROTOCOL)) return refused('400 Bad Request', 'another subprotocol')
  const peer = peerIdentity(request.socket)
  if (!peer.ok) return refused('403 Forbidden', peer.reason)
  const { agentId, certificateFingerprint } = peer.identity
  let standing: ReturnType<Authorise>
  try {
    standing = options.authorise(certificateFingerprint, agentId)
  } catch (error) {
    // It writes when it sees a certificate for the first time, which a full disk does not take.
    options.logger.error({ error: String(error) }, 'a certificate could not be looked up')
    return refused('503 Service Unavailable', 'the controller cannot store anything', [
      `Retry-After: ${RETRY_AFTER_SECONDS}`,
    ])
  }
  // One that is held is let in to be told so.
  if (standing !== 'ok' && standing !== 'held') {
    return refused('403 Forbidden', `the certificate of agent ${agentId} is ${standing}`)
  }
  if (options.sessionCount() >= options.limits.sessionsMax) {
    // Jitter, because those who were refused together come back together.
    const seconds = Math.ceil(RETRY_AFTER_SECONDS * (0.5 + options.random()))
    return refused('503 Service Unavailable', 'too many agents are connected', [`Retry-After: ${seconds}`])
  }
  return { ok: true, peer: peer.identity }
}

function refuse(socket: Duplex, status: string, headers: readonly string[] = []): void {
  const lines = [`HTTP/1.1 ${status}`, 'Connection: close', 'Content-Length: 0', ...headers]
  socket.once('finish', () => socket.destroy())
  socket.end(`${lines.join('\r\n')}\r\n\r\n`)
  // One that does not read its refusal does not stay for it.
  setTimeout(() => socket.destroy(), REFUSAL_LINGER_MS).unref()
}

/**
 * Connections from TCP accept to upgrade. Handshakes cost a signature each: those past the limit are dropped
 * before they cost one. And one deadline holds for all of it, so that slow steps do not add up.
 */
function watchStrangers(server: Server, limits: GatewayLimits, logger: Logger) {
  const inHandshake = new Set<string>()
  const accepted = new Map<string, { readonly atMs: number; readonly deadline: NodeJS.Timeout }>()
  // The TLS socket wraps the accepted one; what both know is the address at the other end.
  const keyOf = (socket: Socket) => `${socket.remoteAddress} ${socket.remotePort}`
  const forget = (key: string): number => {
    const stranger = accepted.get(key)
    clearTimeout(stranger?.deadline)
    accepted.delete(key)
    inHandshake.delete(key)
    return stranger?.atMs ?? performance.now()
  }
  server.on('connection', (socket: Socket) => {
    if (inHandshake.size >= limits.handshakesMax) {
      logger.warn({ handshakesMax: limits.handshakesMax }, 'too many connections at once: one was dropped')
      socket.destroy()
      return
    }
    const key = keyOf(socket)
    const deadline = setTimeout(() => {
      logger.info({ remote: socket.remoteAddress }, 'a connection came to nothing in time')
      socket.destroy()
    }, limits.helloTimeoutMs)
    inHandshake.add(key)
    accepted.set(key, { atMs: performance.now(), deadline })
    socket.once('close', () => forget(key))
  })
  server.on('secureConnection', (socket) => inHandshake.delete(keyOf(socket)))
  server.on('tlsClientError', (error, socket) => {
    logger.info({ reason: error.message, remote: socket.remoteAddress }, 'a TLS handshake failed')
    socket.destroy()
  })
  return {
    /** The connection is a session now. Returns when it was accepted. */
    admitted: (socket: Socket): number => forget(keyOf(socket)),
  }
}
