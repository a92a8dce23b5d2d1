/** Whether this host tells the agent its process events, and if not, why. */
import { type NetlinkAddon, openConnector } from './connector.ts'

export type ProcConnectorProbe = { readonly ok: true } | { readonly ok: false; readonly reason: string }

/** Subscribes and leaves again. Never throws. */
export function probeProcConnector(native: NetlinkAddon): ProcConnectorProbe {
  try {
    const states = { readStat: () => null, listStats: () => new Map() }
    openConnector({ native, states }).close()
    return { ok: true }
  } catch (error) {
    return { ok: false, reason: explain(error) }
  }
}

function explain(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error)
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  if (code === 'EPROTONOSUPPORT') {
    return 'the kernel has no process events connector (CONFIG_CONNECTOR, CONFIG_PROC_EVENTS)'
  }
  if (code === 'EPERM') return 'the agent lacks CAP_NET_ADMIN for process events: run it as root'
  if (code === 'ECONNREFUSED') {
    return 'process events are told only in the first network namespace, and the agent is in another one'
  }
  return text
}
