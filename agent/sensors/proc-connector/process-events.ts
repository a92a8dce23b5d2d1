/**
 * The messages of the kernel's process events connector (linux/cn_proc.h, linux/connector.h): the subscription
 * that is sent, and what comes back.
 */
import { NETLINK_FLAGS, NETLINK_TYPES, netlinkMessage } from '../netlink-messages.ts'

export const CONNECTOR_PROTOCOL = 11
/** CN_IDX_PROC as a mask of groups. */
export const PROCESS_EVENTS_GROUP = 1

const processIndex = 1
const processValue = 1
const kinds = { none: 0, fork: 1, exec: 2, session: 0x80, exit: 0x8000_0000 } as const
const messageHeaderBytes = 20
/** Up to the two pids that every event has; before the parent was added, an exit had four numbers. */
const eventBytesMin = 24
const fourNumbersBytes = 32
const wordSize = 4_294_967_296

interface ProcessEventBase {
  readonly cpu: number
  /** Counts the events of one cpu, of all kinds, modulo 2^32. */
  readonly sequence: number
  /** CLOCK_MONOTONIC. */
  readonly timestampNs: number
}

export type ProcessEvent = ProcessEventBase &
  (
    | { readonly kind: 'fork'; readonly pid: number; readonly thread: number; readonly parentPid: number }
    | { readonly kind: 'exec'; readonly pid: number }
    /** setsid(2). */
    | { readonly kind: 'session'; readonly pid: number }
    /** `status` as wait(2) gives it. Told for each thread; the leader's number is the pid. */
    | { readonly kind: 'exit'; readonly pid: number; readonly thread: number; readonly status: number }
    /** One that is not used here but counts in the sequence. */
    | { readonly kind: 'other' }
  )

/**
 * The kernel's answer to a subscription, which every listener hears. It has a number in the sequence like any event,
 * save on older kernels, where its cpu is none.
 */
export interface Acknowledgement extends ProcessEventBase {
  readonly kind: 'acknowledgement'
  readonly acknowledged: number
  readonly error: number
}

/** `token` comes back in the acknowledgement, one higher. */
export function subscriptionMessage(subscribe: boolean, token: number): Buffer {
  const payload = Buffer.alloc(messageHeaderBytes + 4)
  payload.writeUInt32LE(processIndex, 0)
  payload.writeUInt32LE(processValue, 4)
  payload.writeUInt32LE(token, 12)
  payload.writeUInt16LE(4, 16)
  payload.writeUInt32LE(subscribe ? 1 : 2, messageHeaderBytes)
  return netlinkMessage(NETLINK_TYPES.done, NETLINK_FLAGS.request, 0, payload)
}

/** Null for what is no process event. */
export function decodeProcessEvent(payload: Buffer): ProcessEvent | Acknowledgement | null {
  if (payload.length < messageHeaderBytes + eventBytesMin - 4) return null
  if (payload.readUInt32LE(0) !== processIndex || payload.readUInt32LE(4) !== processValue) return null
  const event = payload.subarray(messageHeaderBytes)
  const what = event.readUInt32LE(0)
  const base = {
    cpu: event.readUInt32LE(4),
    sequence: payload.readUInt32LE(8),
    timestampNs: event.readUInt32LE(8) + event.readUInt32LE(12) * wordSize,
  }
  if (what === kinds.none) {
    const acknowledged = payload.readUInt32LE(12)
    return { ...base, kind: 'acknowledgement', acknowledged, error: event.readUInt32LE(16) }
  }
  if (event.length < eventBytesMin) return null
  if (what === kinds.exec) return { ...base, kind: 'exec', pid: event.readInt32LE(20) }
  if (what === kinds.session) return { ...base, kind: 'session', pid: event.readInt32LE(20) }
  if (what !== kinds.fork && what !== kinds.exit) return { ...base, kind: 'other' }
  if (event.length < fourNumbersBytes) return null
  if (what === kinds.fork) {
    const parentPid = event.readInt32LE(20)
    return { ...base, kind: 'fork', pid: event.readInt32LE(28), thread: event.readInt32LE(24), parentPid }
  }
  const status = event.readUInt32LE(24)
  return { ...base, kind: 'exit', pid: event.readInt32LE(20), thread: event.readInt32LE(16), status }
}
