/** What the uplink needs of the rest of the agent, and what it gives. `main.ts` fills it. */
import type { ConnectionOptions } from 'node:tls'
import type { Logger } from '../../shared/node/logger.ts'
import type { AgentMessage, Command, ControllerMessage } from '../../shared/protocol/messages.ts'
import type { EventBuffer } from '../buffer/buffer.ts'
import type { FileUploads } from './files.ts'
import type { SendingBuffer } from './sender.ts'

export type Hello = Extract<AgentMessage, { kind: 'hello' }>
type Status = Extract<AgentMessage, { kind: 'status' }>
type MessageOf<Kind extends ControllerMessage['kind']> = Extract<ControllerMessage, { kind: Kind }>
export type Welcome = MessageOf<'welcome'>
export type HelloFacts = Pick<Hello, 'agentVersion' | 'bootId' | 'keysetVersion' | 'inventory'>
type UplinkBuffer = SendingBuffer & Pick<EventBuffer, 'rollback' | 'resume' | 'startNewStream' | 'onRows'>

/** What one that throws or rejects did is logged; the connection goes on. */
export interface UplinkHandlers {
  /** `sessionNonce` is that of the connection it came over: live commands repeat it. */
  onCommand(command: Command, sessionNonce: string): void | Promise<void>
  onCancel(commandId: string): void | Promise<void>
  onKeyset(message: MessageOf<'keyset'>): void | Promise<void>
  onRenewedCertificate(certificateChainPem: string): void | Promise<void>
  onConnected(welcome: Welcome): void | Promise<void>
  onDisconnected(reason: string): void | Promise<void>
  /** The controller has events that this buffer never had; a new stream is begun and a tamper event tells it. */
  onWatermarkAhead?(found: { readonly class: number; readonly sequence: number; readonly last: number }): void
}

export interface UplinkOptions {
  /** `wss://host:port`; the path is added. */
  readonly gatewayUrl: string
  /** Asked before each attempt, because certificates are renewed. */
  readonly tlsOptions: () => ConnectionOptions | Promise<ConnectionOptions>
  readonly buffer: UplinkBuffer
  readonly helloFacts: () => HelloFacts
  /** Sent after each welcome and every minute. */
  readonly status: () => Status
  readonly handlers: UplinkHandlers
  /** Collected files that go over the same connection. */
  readonly files?: Omit<FileUploads, 'upload'>
  readonly logger: Logger
  readonly clock?: () => number
  readonly random?: () => number
  readonly pingIntervalMs?: number
  readonly backoffMinMs?: number
  readonly backoffMaxMs?: number
  readonly statusIntervalMs?: number
  /** Pause after a batch was first refused; four times as long after the second time. */
  readonly refusalPauseMs?: number
  readonly coalesceMs?: number
  readonly answerTimeoutMs?: number
}

export interface UplinkState {
  readonly phase: 'stopped' | 'connecting' | 'connected' | 'waiting'
  /** Milliseconds since 1970. */
  readonly sinceMs: number
  /** Why the last connection ended or the last attempt failed, in words; null when none did. */
  readonly lastError: string | null
  readonly lastErrorMs: number | null
  readonly nextAttemptMs: number | null
  /** Attempts since the last welcome. */
  readonly attempts: number
  /** When the controller last said anything. */
  readonly lastHeardMs: number | null
  readonly inFlight: number
  readonly sentBatches: number
  readonly sessionNonce: string | null
  /** The controller hears neither this host nor another with its identity, until a person has looked. */
  readonly held: boolean
}

export interface Uplink {
  /** Stays connected until `signal` aborts. Never rejects for what a network or a controller does. */
  run(signal: AbortSignal): Promise<void>
  /** False when there is no connection: the caller keeps what matters. */
  send(message: Exclude<AgentMessage, { kind: 'hello' }>): boolean
  state(): UplinkState
  /** Ends the connection, or the pause before the next attempt, and dials anew: for a new certificate. */
  reconnect(reason: string): void
  /** True when the controller answers now, over the authenticated connection. */
  roundTrip(timeoutMs: number): Promise<boolean>
}
