/**
 * Makes one record of each outbound connection. The kernel tells the attempt in the process that connects and the
 * outcome whenever the network knows it; in between the connection waits here, for a bounded time and number.
 */

import { addressText } from '../address-text.ts'
import type { ConnectRecord, ProcessKey } from '../records.ts'

/** One step of a connection, as the kernel programs tell it. */
export interface ConnectionObservation {
  readonly stage: 'attempt' | 'outcome'
  /** Of an outcome: whether the connection was established. */
  readonly connected: boolean
  /** Of an outcome: whether its attempt was handed up too. */
  readonly attemptTold: boolean
  /** With `attemptedNs`, names the attempt. */
  readonly socket: number
  /** Monotonic clock. */
  readonly attemptedNs: number
  readonly timestampMs: number
  readonly process: ProcessKey
  /** AF_INET (2) or AF_INET6 (10). */
  readonly family: number
  readonly sourcePort: number
  readonly destinationPort: number
  /** Source and destination, 16 bytes each. */
  readonly addresses: Buffer
}

export interface ConnectionOutcomes {
  add(observation: ConnectionObservation): void
  /** Tells what has waited too long as `unknown`. */
  tellOverdue(nowNs: number): void
  /** Tells all that waits, at the end. */
  tellAll(): void
}

interface Options {
  readonly add: (record: ConnectRecord) => void
  readonly waitNs?: number
  readonly pendingMax?: number
}

export function createConnectionOutcomes(options: Options): ConnectionOutcomes {
  const { add, waitNs = 1e9, pendingMax = 4_096 } = options
  // In the order of the attempts, because each is put in last and its time never changes.
  const pending = new Map<number, ConnectionObservation>()

  const tell = (observation: ConnectionObservation, outcome: ConnectRecord['outcome']) => {
    add(connectRecord(observation, outcome))
  }
  const begin = (attempt: ConnectionObservation) => {
    const earlier = pending.get(attempt.socket)
    if (earlier !== undefined) {
      pending.delete(attempt.socket)
      tell(earlier, 'unknown')
    }
    if (pending.size >= pendingMax) tell(attempt, 'unknown')
    else pending.set(attempt.socket, attempt)
  }
  const end = (outcome: ConnectionObservation) => {
    const attempt = pending.get(outcome.socket)
    if (attempt?.attemptedNs === outcome.attemptedNs) pending.delete(outcome.socket)
    // It was told as unknown already, because it took too long or there were too many.
    else if (outcome.attemptTold) return
    tell(outcome, outcome.connected ? 'success' : 'failure')
  }

  return {
    add: (observation) => (observation.stage === 'attempt' ? begin(observation) : end(observation)),
    tellOverdue(nowNs) {
      for (const [socket, attempt] of pending) {
        if (nowNs - attempt.attemptedNs < waitNs) return
        pending.delete(socket)
        tell(attempt, 'unknown')
      }
    },
    tellAll() {
      for (const attempt of pending.values()) tell(attempt, 'unknown')
      pending.clear()
    },
  }
}

function connectRecord(observation: ConnectionObservation, outcome: ConnectRecord['outcome']): ConnectRecord {
  return {
    kind: 'connect',
    timestampMs: observation.timestampMs,
    process: observation.process,
    outcome,
    sourceAddress: addressText(observation.family, observation.addresses.subarray(0, 16)),
    sourcePort: observation.sourcePort,
    destinationAddress: addressText(observation.family, observation.addresses.subarray(16, 32)),
    destinationPort: observation.destinationPort,
  }
}
