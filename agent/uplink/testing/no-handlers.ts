import type { UplinkHandlers } from '../ports.ts'

/** Of an agent that does nothing with what it is told. */
export const NO_HANDLERS: UplinkHandlers = {
  onCommand: () => undefined,
  onCancel: () => undefined,
  onKeyset: () => undefined,
  onRenewedCertificate: () => undefined,
  onConnected: () => undefined,
  onDisconnected: () => undefined,
}
