/** Isolation joined with this very host: its nft, its devices, its clocks, and the rest of the agent. */
import { networkInterfaces } from 'node:os'
import type { CordonEvent } from '../../../shared/events/event.ts'
import type { Logger } from '../../../shared/node/logger.ts'
import { pause } from '../../../shared/node/loop.ts'
import {
  createProgramRunner,
  hasVlanDevices,
  listNetworkDevices,
} from '../../platform/linux/firewall-programs.ts'
import { readBootId, readNetworkNamespace, readUptimeMs } from '../../platform/linux/host.ts'
import { cut, type Proof } from '../action.ts'
import { createAlerts } from '../alerts.ts'
import type { Interlock } from '../interlock.ts'
import type { ActionStateEvent, Journal } from '../journal.ts'
import { resolveControllers } from './controllers.ts'
import { createFirewall, type Firewall } from './firewall.ts'
import { createIsolation } from './isolation.ts'
import type { BootClock } from './lease.ts'
import type { Isolation } from './ports.ts'
import { permitsLifting } from './restore.ts'

const RECEIPT_MS = 3_000
const RECEIPT_LOOK_MS = 50

/** The buffer, by class: the newest row, and the newest that the controller has. */
interface Delivered {
  flush(): void
  watermarks(): readonly { readonly class: number; readonly last: number; readonly acknowledged: number }[]
}

/** The authenticated connection to the controller. */
interface Line {
  roundTrip(timeoutMs: number): Promise<boolean>
  reconnect(reason: string): void
}

export interface HostIsolationOptions {
  readonly stateFolder: string
  readonly interlock: Pick<Interlock, 'permitsIsolation'>
  readonly gatewayUrl: string
  readonly confirmWithinMs: number
  readonly buffer: Delivered
  readonly journal: Pick<Journal, 'present' | 'reach'>
  /** Joined after this one was made. */
  readonly uplink: () => Line
  readonly emit: (event: CordonEvent) => void
  readonly changed: () => void
  readonly clock: () => number
  readonly logger: Logger
}

export function createHostIsolation(options: HostIsolationOptions): Isolation {
  const { stateFolder, interlock, buffer, journal, uplink, emit, clock, logger } = options
  const alerts = createAlerts(emit, clock)
  return createIsolation({
    stateFolder,
    firewall: createHostFirewall(stateFolder, interlock),
    permission: () => interlock.permitsIsolation(readNetworkNamespace()),
    networkNamespace: readNetworkNamespace,
    resolveControllers: () => resolveControllers(options.gatewayUrl),
    ownAddresses: () =>
      Object.values(networkInterfaces())
        .flat()
        .flatMap((one) => (one === undefined ? [] : [one.address])),
    roundTrip: (timeoutMs) => uplink().roundTrip(timeoutMs),
    reconnect: (reason) => uplink().reconnect(reason),
    receiptSent: (signal) => receiptSent(buffer, signal),
    bootClock: hostBootClock,
    clock,
    reverted(commandId, reason, proof) {
      const present = journal.present(commandId)
      if (present) journal.reach(commandId, 'reverted', reason, proof)
      // A journal that was lost since knows nothing of it; the controller does.
      else emit(revertedEvent(commandId, reason, proof, clock()))
    },
    tampered(reason) {
      logger.warn({ reason }, 'isolation was touched')
      alerts.raise(reason)
    },
    changed: options.changed,
    logger,
    confirmWithinMs: options.confirmWithinMs,
  })
}

/** The firewall of the namespace that this process is in; every run of nft asks the interlock first. */
export function createHostFirewall(
  stateFolder: string,
  interlock: Pick<Interlock, 'permitsIsolation'>,
): Firewall {
  return createFirewall({
    run: createProgramRunner(),
    listDevices: () => listNetworkDevices(),
    hasVlanDevices,
    permission(use) {
      const networkNamespace = readNetworkNamespace()
      const isolating = interlock.permitsIsolation(networkNamespace)
      return use === 'isolate' ? isolating : permitsLifting(stateFolder, networkNamespace, isolating)
    },
  })
}

export function hostBootClock(): BootClock {
  return { bootId: readBootId(), bootMs: readUptimeMs() }
}

/** Waits until the controller has all that is told of commands so far. */
async function receiptSent(buffer: Delivered, signal: AbortSignal): Promise<boolean> {
  buffer.flush()
  const critical = () => buffer.watermarks().find((mark) => mark.class === 0)
  const wanted = critical()?.last ?? 0
  const untilMs = performance.now() + RECEIPT_MS
  while (!signal.aborted && performance.now() < untilMs) {
    if ((critical()?.acknowledged ?? 0) >= wanted) return true
    await pause(RECEIPT_LOOK_MS, signal)
  }
  return false
}

function revertedEvent(commandId: string, reason: string, proof: Proof, nowMs: number): ActionStateEvent {
  return {
    '@timestamp': new Date(nowMs).toISOString(),
    'event.kind': 'event',
    'event.category': 'host',
    'event.type': 'change',
    'event.action': 'action-state',
    'cordon.command.id': commandId,
    'cordon.command.action': 'isolateHost',
    'cordon.command.state': 'reverted',
    'event.reason': cut(reason),
    'cordon.command.proof': proof,
  }
}
