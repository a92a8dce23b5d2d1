/**
 * Requests to the kernel's audit over netlink (linux/audit.h), each with its acknowledgement. Answers to questions
 * come from a thread of the kernel's a moment later, so asking is asynchronous; all waits have an end.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { NetlinkHandle } from '../../native/addon.ts'
import { NETLINK_FLAGS, NETLINK_TYPES, netlinkMessage, unpackMessages } from '../netlink-messages.ts'
import type { NetlinkAddon } from '../proc-connector/connector.ts'

export const AUDIT_PROTOCOL = 9
/** AUDIT_NLGRP_READLOG as a mask of groups. */
export const READLOG_GROUP = 1

const requests = { get: 1000, set: 1001, addRule: 1011, deleteRule: 1012, listRules: 1013 } as const
const statusBytesMin = 32
const statusBytes = 44
/** Bits that say which values of a status are meant. */
const statusBits = { enabled: 1, pid: 4, backlogLimit: 0x10, backlogWaitTime: 0x20 } as const
const bufferBytes = 128 * 1024
const receiveBytes = 2 * 1024 ** 2
const rulesMax = 8_192
const answerWaitMs = 3_000
const answerPauseMs = 2

export interface AuditStatus {
  /** 0: off, 1: on, 2: on and locked until the next boot. */
  readonly enabled: number
  /** What happens when a message is lost: 0 nothing, 1 a line in the kernel's log, 2 the host panics. */
  readonly failure: number
  /** Of the audit daemon; 0: there is none. */
  readonly pid: number
  /** Messages per second; 0: no limit. */
  readonly rateLimit: number
  /** Messages that wait at most; 0: no limit. */
  readonly backlogLimit: number
  /** Messages lost since boot, modulo 2^32. */
  readonly lost: number
  readonly backlog: number
  /** Ticks for which programs wait when the backlog is full; null before Linux 3.14. */
  readonly backlogWaitTime: number | null
}

export type StatusChange = Partial<
  Pick<AuditStatus, 'enabled' | 'pid' | 'backlogLimit'> & { readonly backlogWaitTime: number }
>

export class AuditRefused extends Error {
  readonly errno: number
  constructor(request: string, errno: number) {
    super(`the kernel's audit refuses ${request} (error ${errno})`)
    this.name = 'AuditRefused'
    this.errno = errno
  }
}

export interface AuditControl {
  status(): Promise<AuditStatus>
  set(change: StatusChange): Promise<void>
  addRule(rule: Buffer): Promise<void>
  deleteRule(rule: Buffer): Promise<void>
  /** Rules as the kernel lists them, which is how it takes them for deletion. */
  listRules(): Promise<Buffer[]>
  close(): void
}

/** Throws when the kernel has no audit. */
export function openAuditControl(native: NetlinkAddon): AuditControl {
  const handle = native.netlinkOpen(AUDIT_PROTOCOL, 0, receiveBytes)
  const ask = createAsking(native, handle)
  return {
    async status() {
      let status: AuditStatus | null = null
      await ask('its state', requests.get, Buffer.alloc(0), (type, payload) => {
        if (type === requests.get) status = decodeStatus(payload)
        return status !== null
      })
      if (status === null) throw new Error("the kernel's audit tells no state")
      return status
    },
    async set(change) {
      await ask('a setting', requests.set, encodeStatus(change))
    },
    async addRule(rule) {
      await ask('a rule', requests.addRule, rule)
    },
    async deleteRule(rule) {
      await ask('to delete a rule', requests.deleteRule, rule)
    },
    async listRules() {
      const rules: Buffer[] = []
      await ask('the list of rules', requests.listRules, Buffer.alloc(0), (type, payload) => {
        if (type === requests.listRules && rules.length < rulesMax) rules.push(Buffer.from(payload))
        return type === NETLINK_TYPES.done
      })
      return rules
    },
    close: () => native.netlinkClose(handle),
  }
}

type Answer = (type: number, payload: Buffer) => boolean

function createAsking(native: NetlinkAddon, handle: NetlinkHandle) {
  const buffer = Buffer.allocUnsafeSlow(bufferBytes)
  let lastSequence = 0
  // One request at a time: the answers of two would be mixed up in one queue.
  let before: Promise<unknown> = Promise.resolve()

  /** `answer` takes what comes until it returns true; without it, the acknowledgement is all. */
  async function one(request: string, type: number, payload: Buffer, answer: Answer | undefined) {
    const sequence = ++lastSequence
    let acknowledged = false
    let answered = answer === undefined
    let errno = 0
    native.netlinkSend(handle, netlinkMessage(type, NETLINK_FLAGS.requestAcknowledged, sequence, payload))
    const deadlineMs = performance.now() + answerWaitMs
    for (;;) {
      const length = native.netlinkDrain(handle, buffer)
      unpackMessages(buffer, length, {
        message(message) {
          if (message.sequence !== sequence) return
          if (message.type === NETLINK_TYPES.error && message.payload.length >= 4) {
            acknowledged = true
            errno = -message.payload.readInt32LE(0)
          } else if (!answered && answer) answered = answer(message.type, message.payload)
        },
        overflow: () => undefined,
      })
      if (errno !== 0) throw new AuditRefused(request, errno)
      if (acknowledged && answered) return
      if (performance.now() > deadlineMs) throw new Error(`the kernel's audit does not answer for ${request}`)
      if (length === 0) await sleep(answerPauseMs)
    }
  }

  return (request: string, type: number, payload: Buffer, answer?: Answer): Promise<void> => {
    const done = before.then(() => one(request, type, payload, answer))
    before = done.catch(() => undefined)
    return done
  }
}

export function decodeStatus(payload: Buffer): AuditStatus | null {
  if (payload.length < statusBytesMin) return null
  const word = (index: number) => payload.readUInt32LE(4 * index)
  return {
    enabled: word(1),
    failure: word(2),
    pid: word(3),
    rateLimit: word(4),
    backlogLimit: word(5),
    lost: word(6),
    backlog: word(7),
    backlogWaitTime: payload.length >= 40 ? word(9) : null,
  }
}

function encodeStatus(change: StatusChange): Buffer {
  const payload = Buffer.alloc(statusBytes)
  let mask = 0
  const put = (index: number, bit: number, value: number | undefined) => {
    if (value === undefined) return
    mask |= bit
    payload.writeUInt32LE(value, 4 * index)
  }
  put(1, statusBits.enabled, change.enabled)
  put(3, statusBits.pid, change.pid)
  put(5, statusBits.backlogLimit, change.backlogLimit)
  put(9, statusBits.backlogWaitTime, change.backlogWaitTime)
  payload.writeUInt32LE(mask, 0)
  return payload
}

/** Asks for the state, whose answer is a message of the same type. */
export const STATUS_REQUEST = { type: requests.get, message: statusRequest() } as const

function statusRequest(): Buffer {
  return netlinkMessage(requests.get, NETLINK_FLAGS.request, 1, Buffer.alloc(0))
}

/** Makes the sender of this message the audit daemon, whose socket all records go to. */
export function daemonMessage(pid: number): Buffer {
  return netlinkMessage(requests.set, NETLINK_FLAGS.requestAcknowledged, 1, encodeStatus({ pid }))
}
