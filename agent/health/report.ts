/** What `cordon-agent status` shows: one object, made by the running agent. */
import type { SensorStatus } from '../../shared/protocol/messages.ts'

export interface StatusReport {
  readonly running: true
  readonly pid: number
  readonly version: string
  readonly agentId: string
  readonly fleet: string
  readonly startedAt: string
  readonly bootId: string
  readonly sensors: readonly SensorStatus[]
  /** File systems that refuse to be watched, with the kernel's words. */
  readonly refusedMounts: readonly { readonly mountPoint: string; readonly reason: string }[]
  readonly events: {
    readonly added: number
    readonly buffered: number
    readonly bufferedBytes: number
    readonly dropped: number
    readonly trouble: string | null
  }
  readonly scanner: {
    readonly state: string
    readonly engine: string
    readonly isolation: readonly string[]
    readonly scanned: number
    readonly skipped: number
    readonly restarts: number
    readonly queued: number
    readonly ruleProblems: readonly string[]
  }
  readonly connection: {
    readonly state: string
    readonly gatewayUrl: string
    readonly detail: string
  }
  readonly certificate: { readonly expiresAt: string; readonly keysetVersion: number }
  readonly interlock: string
  readonly residentBytes: number
}
