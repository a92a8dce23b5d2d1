import { expect, test } from 'vitest'
import type { NetlinkHandle } from '../../native/addon.ts'
import { netlinkMessage } from '../netlink-messages.ts'
import type { NetlinkAddon } from '../proc-connector/connector.ts'
import { AUDIT_PROTOCOL } from './control.ts'
import { probeAudit } from './probe.ts'

const status = (values: readonly number[]) => {
  const payload = Buffer.alloc(44)
  values.forEach((value, index) => {
    payload.writeUInt32LE(value, 4 * index)
  })
  return netlinkMessage(1000, 0, 1, payload)
}
const refused = (errno: number) => {
  const payload = Buffer.alloc(20)
  payload.writeInt32LE(-errno, 0)
  return netlinkMessage(2, 0, 1, payload)
}

/** A kernel that takes every subscription to process events and answers audit's question with `answer`. */
function kernelThatAnswers(answer: Buffer | null): NetlinkAddon {
  const waiting = new Map<NetlinkHandle, Buffer>()
  const protocols = new Map<NetlinkHandle, number>()
  return {
    netlinkOpen(protocol) {
      const handle = {} as NetlinkHandle
      protocols.set(handle, protocol)
      return handle
    },
    netlinkSend(handle, message) {
      if (protocols.get(handle) === AUDIT_PROTOCOL) {
        if (answer) waiting.set(handle, answer)
        return
      }
      // The acknowledgement: PROC_EVENT_NONE, one higher, without an error.
      const acknowledged = Buffer.concat([message.subarray(0, 36), Buffer.alloc(40)])
      acknowledged.writeUInt32LE(message.readUInt32LE(28) + 1, 28)
      waiting.set(handle, acknowledged)
    },
    netlinkDrain(handle, buffer) {
      const message = waiting.get(handle)
      waiting.delete(handle)
      if (message === undefined) return 0
      buffer.writeUInt32LE(message.length, 0)
      message.copy(buffer, 4)
      return 4 + message.length
    },
    netlinkClose: (handle) => protocols.delete(handle),
  }
}

test('a host with audit on and no daemon is fit', () => {
  expect(probeAudit(kernelThatAnswers(status([0, 1, 1, 0])))).toEqual({
    ok: true,
    reason: expect.not.stringContaining('daemon'),
  })
})

test('what works worse here is told', () => {
  expect(probeAudit(kernelThatAnswers(status([0, 0, 1, 321])))).toMatchObject({
    ok: true,
    reason: expect.stringMatching(/daemon \(pid 321\).*audit was off/),
  })
})

test.each([
  ['locked settings', status([0, 2, 1, 0]), 'locked until the next boot'],
  ['a host that panics', status([0, 1, 2, 0]), 'auditctl -f 1'],
  ['no right', refused(1), 'CAP_AUDIT_CONTROL'],
  ['a container', refused(111), 'container'],
  ['another error', refused(22), 'error 22'],
  ['a cut answer', netlinkMessage(1000, 0, 1, Buffer.alloc(12)), 'does not answer'],
  ['silence', null, 'does not answer'],
])('%s is a reason', (_, answer, reason) => {
  expect(probeAudit(kernelThatAnswers(answer))).toMatchObject({
    ok: false,
    reason: expect.stringContaining(reason),
  })
})

test.each([
  ['EPROTONOSUPPORT', 'CONFIG_CONNECTOR'],
  ['EPERM', 'CAP_NET_ADMIN'],
])('a socket that is refused with %s is a reason', (code, reason) => {
  const unwilling: NetlinkAddon = {
    ...kernelThatAnswers(null),
    netlinkOpen() {
      throw Object.assign(new Error(code), { code })
    },
  }
  expect(probeAudit(unwilling)).toMatchObject({ ok: false, reason: expect.stringContaining(reason) })
})
