/**
 * Where audit's records come from: unicast to the audit daemon, which the agent becomes only when there is none,
 * or else the group READLOG, which hears the same but loses what is not fetched in time.
 */
import type { NetlinkHandle } from '../../native/addon.ts'
import { NETLINK_TYPES, unpackMessages } from '../netlink-messages.ts'
import type { NetlinkAddon } from '../proc-connector/connector.ts'
import { AUDIT_PROTOCOL, daemonMessage, READLOG_GROUP } from './control.ts'

const receiveBytes = 8 * 1024 ** 2
const bufferBytes = 512 * 1024
/** AUDIT_REPLACE: another program asks to be the daemon. */
const replaceRequest = 1329
/** From AUDIT_LOGIN on: also what is told to nobody here has a serial number, and is not lost. */
const records = { first: 1006, last: 2999 } as const

export interface StreamTarget {
  readonly record: (type: number, payload: Buffer) => void
  readonly overflow: () => void
  readonly unreadable: () => void
}

export interface AuditStream {
  readonly isDaemon: () => boolean
  /** Another program asked to be the daemon since the last call. */
  readonly isAskedToYield: () => boolean
  /** Becomes the daemon when there is none, and joins the group otherwise; nothing when it is so already. */
  attach(isDaemonWanted: boolean): void
  /** True when the socket was emptied. */
  drain(target: StreamTarget): { readonly found: boolean; readonly emptied: boolean }
  close(): void
}

export function createAuditStream(native: NetlinkAddon, ownPid: number): AuditStream {
  const buffer = Buffer.allocUnsafeSlow(bufferBytes)
  let handle: NetlinkHandle | null = null
  let daemon = false
  let askedToYield = false

  function becomeDaemon(): boolean {
    const socket = native.netlinkOpen(AUDIT_PROTOCOL, 0, receiveBytes)
    let errno: number | null = null
    try {
      native.netlinkSend(socket, daemonMessage(ownPid))
      // The answer is there; records that were waiting for a daemon may come with it, and are of the past.
      unpackMessages(buffer, native.netlinkDrain(socket, buffer), {
        message({ type, payload }) {
          if (type === NETLINK_TYPES.error && payload.length >= 4) errno ??= -payload.readInt32LE(0)
        },
        overflow: () => undefined,
      })
    } catch {
      errno = -1
    }
    if (errno === 0) {
      leave()
      handle = socket
      daemon = true
      return true
    }
    native.netlinkClose(socket)
    return false
  }

  /** Closing the socket makes the kernel forget its daemon only when it next sends: it is told at once. */
  function leave(): void {
    if (handle === null) return
    try {
      if (daemon) native.netlinkSend(handle, daemonMessage(0))
    } finally {
      native.netlinkClose(handle)
      handle = null
      daemon = false
    }
  }

  return {
    isDaemon: () => daemon,
    isAskedToYield() {
      const asked = askedToYield
      askedToYield = false
      return asked
    },
    attach(isDaemonWanted) {
      if (handle !== null && daemon === isDaemonWanted) return
      if (isDaemonWanted && becomeDaemon()) return
      if (handle !== null && !daemon) return
      const socket = native.netlinkOpen(AUDIT_PROTOCOL, READLOG_GROUP, receiveBytes)
      leave()
      handle = socket
    },
    drain(target) {
      if (handle === null) return { found: false, emptied: true }
      const length = native.netlinkDrain(handle, buffer)
      const whole = unpackMessages(buffer, length, {
        message({ type, payload }) {
          if (type === replaceRequest) askedToYield = true
          else if (type >= records.first && type <= records.last) target.record(type, payload)
        },
        overflow: target.overflow,
      })
      if (!whole) target.unreadable()
      return { found: length > 0, emptied: length < bufferBytes / 2 }
    },
    close: leave,
  }
}
