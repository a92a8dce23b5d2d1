/** What the gateway needs of the rest of the controller, and the numbers it works with. `main.ts` fills it. */
import type { TlsOptions } from 'node:tls'
import type { EventClass } from '../../shared/events/delivery-class.ts'
import type { Logger } from '../../shared/node/logger.ts'
import type { PeerIdentity } from '../../shared/node/tls.ts'
import {
  BUFFERED_BYTES_MAX,
  CREDITS_MAX,
  HELLO_TIMEOUT_MS,
  PING_INTERVAL_MS,
} from '../../shared/protocol/limits.ts'
import type { AgentMessage, ControllerMessage } from '../../shared/protocol/messages.ts'
import type { FileSink } from './file-lane.ts'

export type Hello = Extract<AgentMessage, { kind: 'hello' }>
export type Status = Extract<AgentMessage, { kind: 'status' }>
export type Goodbye = Extract<ControllerMessage, { kind: 'goodbye' }>
export type KeysetMessage = Extract<ControllerMessage, { kind: 'keyset' }>
type BatchAnswer = Extract<ControllerMessage, { kind: 'acknowledgement' | 'batchRefused' }>

/** Where batches go. `Position` is the sink's own note of the connection's place in its stream. */
export interface BatchSink<Position> {
  open(
    agentId: string,
    hello: Hello,
  ): Promise<{
    readonly position: Position
    readonly watermarks: readonly { readonly class: EventClass; readonly sequence: number }[]
  }>
  take(
    position: Position,
    frame: Uint8Array,
  ): Promise<
    | { readonly kind: 'answer'; readonly message: BatchAnswer }
    | { readonly kind: 'malformed'; readonly reason: string }
  >
}

export type Authorise = (
  certificateFingerprint: string,
  agentId: string,
) => 'ok' | 'held' | 'revoked' | 'unknown'

/** Whether the host that says hello may go on; `renew` asks it to renew its certificate at once. */
export type Admit = (
  agentId: string,
  hello: Hello,
  peer: PeerIdentity,
  remoteAddress: string,
) => { readonly kind: 'ok'; readonly renew: boolean } | { readonly kind: 'held'; readonly reason: string }

/** One of two hosts that use one identity. */
export interface Twin {
  readonly bootId: string
  readonly certificateFingerprint: string
  readonly hostName: string
  readonly address: string
}

export type RenewalOutcome =
  | { readonly kind: 'renewed'; readonly certificateChainPem: string }
  | { readonly kind: 'refused'; readonly reason: string }

/** Called on the main thread. One that throws ends the session it was called for, and is logged. */
export interface GatewayHandlers {
  /** The hello is accepted; the welcome follows. */
  onHello(agentId: string, hello: Hello, peer: PeerIdentity): void
  /** The welcome is sent: from now on `send` reaches the agent. */
  onConnected(agentId: string): void
  /** The agent is being stopped in order; the end of its connection follows. */
  onStopping(agentId: string, reason: string): void
  /** Once for each `onHello`. */
  /** `quietMs`: how long before its end the connection gave its last sign of life. */
  onDisconnected(agentId: string, reason: string, quietMs: number): void
  onStatus(agentId: string, status: Status): void
  onRenewal(agentId: string, csrPem: string, peer: PeerIdentity): Promise<RenewalOutcome> | RenewalOutcome
  onKeysetRequest(agentId: string): KeysetMessage | null
}

export interface GatewayLimits {
  /** Agents connected at once. */
  readonly sessionsMax: number
  /** Connections that have not finished their TLS handshake. */
  readonly handshakesMax: number
  /** Batches one agent may have unanswered. */
  readonly credits: number
  /** Batches of all agents that are being stored; above it sockets are not read. */
  readonly batchesMax: number
  /** From TCP accept to hello. */
  readonly helloTimeoutMs: number
  readonly pingIntervalMs: number
  /** How long the holder of an agent's place has to show that it lives when another host wants it. */
  readonly challengeMs: number
  /** Unread bytes towards an agent. */
  readonly bufferedBytesMax: number
  /** Control messages and pings an agent may send at once, and one each of these milliseconds after that. */
  readonly controlBurst: number
  readonly controlIntervalMs: number
}

export const DEFAULT_LIMITS: GatewayLimits = {
  sessionsMax: 10_000,
  handshakesMax: 256,
  credits: CREDITS_MAX,
  batchesMax: 128,
  helloTimeoutMs: HELLO_TIMEOUT_MS,
  pingIntervalMs: PING_INTERVAL_MS,
  challengeMs: 3_000,
  bufferedBytesMax: BUFFERED_BYTES_MAX,
  controlBurst: 64,
  controlIntervalMs: 500,
}

export interface GatewayOptions<Position> {
  readonly host: string
  /** 0 for a free one. */
  readonly port: number
  /** Asked at the start and every hour: the controller's certificate is renewed while it runs. */
  readonly tlsOptions: () => TlsOptions
  /** Whether this certificate may act for this agent now. Asked at upgrade and for each batch. */
  readonly authorise: Authorise
  readonly keysetVersion: () => number
  readonly batches: BatchSink<Position>
  /** Without it no file is taken. */
  readonly files?: FileSink
  readonly handlers: GatewayHandlers
  /** Everybody is admitted unless said. */
  readonly admit?: Admit
  /** Two hosts use one identity, and both are alive or come back in turns. Expected to hold the agent. */
  readonly onTwins: (agentId: string, twins: readonly Twin[], how: string) => void
  readonly logger: Logger
  readonly clock?: () => number
  /** Milliseconds on a clock that never jumps. */
  readonly monotonic?: () => number
  readonly random?: () => number
  readonly limits?: Partial<GatewayLimits>
}
