/** What the isolation of a host needs of the agent around it, and what it gives. */
import type { Logger } from '../../../shared/node/logger.ts'
import type { IsolationStatus } from '../../../shared/protocol/messages.ts'
import type { ApplyResult, ProbeResult, Proof } from '../action.ts'
import type { Permission } from '../interlock.ts'
import type { CodeAnswer } from './break-glass.ts'
import type { Resolved } from './controllers.ts'
import type { Firewall } from './firewall.ts'
import type { BootClock } from './lease.ts'
import type { Endpoint } from './ruleset.ts'

export interface IsolationOptions {
  readonly stateFolder: string
  readonly firewall: Firewall
  readonly permission: () => Permission
  readonly networkNamespace: () => string
  readonly resolveControllers: () => Promise<Resolved>
  readonly ownAddresses: () => readonly string[]
  /** True when the controller answers a ping that is sent now, over the authenticated connection. */
  readonly roundTrip: (timeoutMs: number) => Promise<boolean>
  /** Dials the controller anew. */
  readonly reconnect: (reason: string) => void
  /** Resolves when the controller has the receipt of the command, with false when that takes too long. */
  readonly receiptSent: (signal: AbortSignal) => Promise<boolean>
  readonly bootClock: () => BootClock
  readonly clock: () => number
  /** Tells durably that what the command had done was taken back. */
  readonly reverted: (commandId: string, reason: string, proof: Proof) => void
  readonly tampered: (reason: string) => void
  readonly changed: () => void
  readonly logger: Logger
  readonly confirmWithinMs?: number
  /** How often the rules in the kernel are looked at while they are in force. */
  readonly lookEveryMs?: number
}

export interface IsolateRequest {
  readonly commandId: string
  readonly leaseMs: number | null
  readonly breakGlassHash: string | null
}

export interface Isolation {
  /** `possible` is of the last look at it: at the start, and before each isolation. */
  status(): IsolationStatus
  /** The addresses that can be dialled; null: any. */
  reachable(): readonly Endpoint[] | null
  isolate(request: IsolateRequest, signal: AbortSignal): Promise<ApplyResult>
  /** Waits until the isolation of that command is confirmed or taken back, then looks at the kernel. */
  settled(commandId: string, signal: AbortSignal): Promise<ProbeResult>
  release(reason: string): Promise<ApplyResult>
  released(): Promise<ProbeResult>
  /** What was typed on the host. */
  breakGlass(code: string): Promise<CodeAnswer>
  /** Takes up what the record says, then keeps it until `signal` aborts; what is in force stays in force. */
  run(signal: AbortSignal): Promise<void>
}
