/** Whether this host lets the agent use its audit, and if not, why. */
import { NETLINK_TYPES, unpackMessages } from '../netlink-messages.ts'
import type { NetlinkAddon } from '../proc-connector/connector.ts'
import { probeProcConnector } from '../proc-connector/probe.ts'
import { AUDIT_PROTOCOL, type AuditStatus, decodeStatus, STATUS_REQUEST } from './control.ts'
import { refusalOf } from './state.ts'

export type AuditProbe =
  /** What to know about how it works here, such as that the host's audit daemon gets the records too. */
  { readonly ok: true; readonly reason: string } | { readonly ok: false; readonly reason: string }

const bufferBytes = 64 * 1024
const looksMax = 500
const permissionDenied = 1
const connectionRefused = 111
const notInContainers = 'audit cannot be controlled from a container: run the agent on the host itself'

/** Asks for audit's state and changes nothing. Never throws. Waits half a second at most. */
export function probeAudit(native: NetlinkAddon): AuditProbe {
  const events = probeProcConnector(native)
  if (!events.ok) return events
  let status: AuditStatus
  try {
    status = readStatus(native)
  } catch (error) {
    return { ok: false, reason: explain(error) }
  }
  const refusal = refusalOf(status)
  if (refusal !== null) return { ok: false, reason: refusal }
  return { ok: true, reason: describe(status) }
}

function describe(status: AuditStatus): string {
  const texts = ["every exec with its arguments, exits, connections and more, by the kernel's audit"]
  if (status.pid !== 0) texts.push(`the host's audit daemon (pid ${status.pid}) gets the records too`)
  if (status.enabled === 0) {
    texts.push('audit was off: of programs that run already, only what they start may be seen')
  }
  return texts.join('; ')
}

/** The answer comes from a thread of the kernel's, some microseconds after the question. */
function readStatus(native: NetlinkAddon): AuditStatus {
  const handle = native.netlinkOpen(AUDIT_PROTOCOL, 0, bufferBytes)
  try {
    native.netlinkSend(handle, STATUS_REQUEST.message)
    const buffer = Buffer.allocUnsafe(bufferBytes)
    const pause = new Int32Array(new SharedArrayBuffer(4))
    let status: AuditStatus | null = null
    for (let look = 0; look < looksMax && status === null; look++) {
      unpackMessages(buffer, native.netlinkDrain(handle, buffer), {
        message({ type, payload }) {
          if (type === STATUS_REQUEST.type) status ??= decodeStatus(payload)
          else if (type === NETLINK_TYPES.error && payload.length >= 4) refuse(-payload.readInt32LE(0))
        },
        overflow: () => undefined,
      })
      if (status === null) Atomics.wait(pause, 0, 0, 1)
    }
    if (status === null) throw new Error("the kernel's audit does not answer")
    return status
  } finally {
    native.netlinkClose(handle)
  }
}

function refuse(errno: number): void {
  if (errno === 0) return
  if (errno === connectionRefused) throw new Error(notInContainers)
  throw new Error(
    errno === permissionDenied
      ? 'the agent may not control audit: run it as root (CAP_AUDIT_CONTROL), outside of containers'
      : `the kernel's audit refuses to tell its state (error ${errno})`,
  )
}

function explain(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  if (code === 'EPROTONOSUPPORT') {
    return 'the kernel has no audit (CONFIG_AUDIT), or it is off for this boot (audit=0)'
  }
  if (code === 'ECONNREFUSED') return notInContainers
  return error instanceof Error ? error.message : String(error)
}
