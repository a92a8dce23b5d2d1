/**
 * A subscription to the kernel's process events (NETLINK_CONNECTOR, CN_IDX_PROC): forks, execs and exits with
 * the names of their processes, and how many events were lost. What they run is for others to find out.
 */
import { readFileSync } from 'node:fs'
import type { NativeAddon, NetlinkHandle } from '../../native/addon.ts'
import { unpackMessages } from '../netlink-messages.ts'
import type { ExitRecord, ForkRecord, LossRecord, ProcessKey } from '../records.ts'
import {
  CONNECTOR_PROTOCOL,
  decodeProcessEvent,
  PROCESS_EVENTS_GROUP,
  type ProcessEvent,
  subscriptionMessage,
} from './process-events.ts'
import { createProcessLives, type ProcessLives, type ProcessStates } from './process-lives.ts'
import { createSequenceGaps } from './sequence-gaps.ts'

const source = 'proc-connector'
const receiveBytes = 4 * 1024 ** 2
const bufferBytes = 256 * 1024
const roundsMax = 64
const nanosecondsPerTick = 10_000_000
const ackBatchesMax = 64

export type NetlinkAddon = Pick<NativeAddon, 'netlinkOpen' | 'netlinkSend' | 'netlinkDrain' | 'netlinkClose'>

export interface ConnectorOptions {
  readonly native: NetlinkAddon
  readonly states: ProcessStates
  /** Wall clock in milliseconds. */
  readonly clock?: () => number
  /** CLOCK_MONOTONIC in nanoseconds, the clock of the events. */
  readonly monotonicNs?: () => number
}

export interface ExecObservation {
  readonly timestampMs: number
  readonly process: ProcessKey
  readonly parent: ProcessKey
}

export interface ConnectorTarget {
  readonly fork: (record: ForkRecord) => void
  readonly exec: (observation: ExecObservation) => void
  readonly exit: (record: ExitRecord) => void
  readonly loss: (record: LossRecord) => void
}

export interface Connector {
  readonly lives: Pick<ProcessLives, 'keyOf' | 'parentOf' | 'sessionOf'>
  /** Hands up, in order, what came since the last call. True when something was told. */
  fetch(target: ConnectorTarget): boolean
  /** Fetches the rest and tells of losses that no later event shows. */
  finish(target: ConnectorTarget): void
  close(): void
}

/** Throws when the kernel does not take the subscription. */
export function openConnector(options: ConnectorOptions): Connector {
  const { native, states, clock = Date.now, monotonicNs = () => Number(process.hrtime.bigint()) } = options
  const handle = native.netlinkOpen(CONNECTOR_PROTOCOL, PROCESS_EVENTS_GROUP, receiveBytes)
  const buffer = Buffer.allocUnsafeSlow(bufferBytes)
  const sleep = createSleepClock(monotonicNs)
  const lives = createProcessLives(states, (timestampNs) =>
    Math.floor((timestampNs + sleep.sleptNs()) / nanosecondsPerTick),
  )
  const gaps = createSequenceGaps()
  const wallOffset = createWallOffset(clock, monotonicNs)
  let overflowed = false
  try {
    subscribe(native, handle, buffer)
    lives.load()
  } catch (error) {
    native.netlinkClose(handle)
    throw error
  }

  function readBatch(length: number, target: ConnectorTarget): ProcessEvent[] {
    const events: ProcessEvent[] = []
    let missing = 0
    const whole = unpackMessages(buffer, length, {
      message({ payload }) {
        const event = decodeProcessEvent(payload)
        if (event === null) return
        missing += gaps.add(event.cpu, event.sequence)
        if (event.kind !== 'acknowledgement') events.push(event)
      },
      overflow() {
        overflowed = true
      },
    })
    if (missing > 0) {
      overflowed = false
      target.loss({ kind: 'loss', timestampMs: clock(), source, count: missing })
    }
    if (!whole)
      target.loss({ kind: 'loss', timestampMs: clock(), source: `${source}:unreadable`, count: null })
    return events
  }

  function fetch(target: ConnectorTarget): boolean {
    sleep.sample()
    const wallOffsetMs = wallOffset()
    let found = false
    for (let round = 0; round < roundsMax; round++) {
      const length = native.netlinkDrain(handle, buffer)
      if (length === 0) break
      found = tellEvents(readBatch(length, target), lives, wallOffsetMs, target) || found
      if (length < bufferBytes / 2) break
    }
    return found
  }

  return {
    lives,
    fetch,
    finish(target) {
      fetch(target)
      if (overflowed) target.loss({ kind: 'loss', timestampMs: clock(), source, count: null })
      overflowed = false
    },
    close() {
      try {
        native.netlinkSend(handle, subscriptionMessage(false, 0))
      } catch {
        // The kernel forgets a closed socket by itself (from Linux 6.6); before, it tells its events to nobody.
      }
      native.netlinkClose(handle)
    },
  }
}

/** True when there was something to tell. */
function tellEvents(
  events: readonly ProcessEvent[],
  lives: ProcessLives,
  wallOffsetMs: number,
  target: ConnectorTarget,
): boolean {
  let told = false
  const gone = new Set<number>()
  for (const event of events) if (event.kind === 'exit' && event.pid === event.thread) gone.add(event.pid)
  for (const event of events) {
    const timestampMs = Math.round(event.timestampNs / 1_000_000 + wallOffsetMs)
    if (event.kind === 'fork') {
      const key = lives.fork(event, !gone.has(event.pid))
      if (key) {
        told = true
        target.fork({ kind: 'fork', timestampMs, process: key, parent: lives.parentOf(key.pid) })
      }
    } else if (event.kind === 'exec') {
      const key = lives.exec(event)
      told = true
      target.exec({ timestampMs, process: key, parent: lives.parentOf(key.pid) })
    } else if (event.kind === 'session') {
      lives.beginSession(event.pid)
    } else if (event.kind === 'exit') {
      const over = lives.exit(event)
      if (over) {
        told = true
        target.exit({ kind: 'exit', timestampMs, process: over.key, ...exitStatus(over.status) })
      }
    }
  }
  return told
}

/** A status of wait(2): the signal is in the low seven bits, the code in the next byte. */
function exitStatus(status: number): Pick<ExitRecord, 'exitCode' | 'signal'> {
  const signal = status & 0x7f
  return signal === 0 ? { exitCode: (status >>> 8) & 0xff, signal: null } : { exitCode: null, signal }
}

/** Asks for the events and waits for the answer, which is there when the request was sent. */
function subscribe(native: NetlinkAddon, handle: NetlinkHandle, buffer: Buffer): void {
  const token = Math.floor(Math.random() * 0x7fff_ffff)
  native.netlinkSend(handle, subscriptionMessage(true, token))
  let error: number | null = null
  for (let batch = 0; batch < ackBatchesMax && error === null; batch++) {
    const length = native.netlinkDrain(handle, buffer)
    if (length === 0) break
    unpackMessages(buffer, length, {
      message({ payload }) {
        const event = decodeProcessEvent(payload)
        if (event?.kind === 'acknowledgement' && event.acknowledged === token + 1) error = event.error
      },
      overflow: () => undefined,
    })
  }
  if (error === null) {
    throw new Error('the kernel tells its process events only in the first pid and user namespace')
  }
  if (error !== 0) throw new Error(`the kernel refuses its process events (error ${error})`)
}

/**
 * How long the machine slept since boot: start times count that, the events' clock does not. /proc/uptime is cut
 * to ticks, so each look tells a lower bound, and the highest of many comes close. It never shrinks.
 */
function createSleepClock(monotonicNs: () => number) {
  let sleptNs = 0
  let nextNs = 0
  return {
    sleptNs: () => sleptNs,
    sample() {
      const beforeNs = monotonicNs()
      if (beforeNs < nextNs) return
      nextNs = beforeNs + 1e9
      const uptimeNs = Number(readFileSync('/proc/uptime', 'latin1').split(' ')[0]) * 1e9
      if (Number.isFinite(uptimeNs)) sleptNs = Math.max(sleptNs, uptimeNs - monotonicNs())
    },
  }
}

/** A clock that was set, and not only read between two of its milliseconds. */
const clockStepMs = 2

/**
 * Wall clock minus the events' clock. The wall clock is cut to milliseconds, so the highest of many looks comes
 * closest; and it stays the same from look to look, or events of different looks would change their order.
 */
function createWallOffset(clock: () => number, monotonicNs: () => number) {
  let offsetMs = Number.NEGATIVE_INFINITY
  return () => {
    const nowMs = clock() - monotonicNs() / 1_000_000
    offsetMs = offsetMs - nowMs > clockStepMs ? nowMs : Math.max(offsetMs, nowMs)
    return offsetMs
  }
}
