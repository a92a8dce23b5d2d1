/** What `cordon-agent status` shows: one object, made by the running agent. */

import type { IsolationStatus, SensorStatus } from '../../shared/protocol/messages.ts'
import type { RowCoverage } from '../sensors/telemetry/coverage.ts'

export interface StatusReport {
  readonly running: true
  readonly pid: number
  readonly version: string
  readonly agentId: string
  readonly fleet: string
  readonly startedAt: string
  readonly bootId: string
  readonly sensors: readonly SensorStatus[]
  /** The rows of the EDR Telemetry Project's table, and what of each is seen here. */
  readonly telemetry: readonly RowCoverage[]
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
    readonly budget: {
      /** Of one core. */
      readonly share: number
      /** CPU time. */
      readonly usedLastMinuteMs: number
      readonly oldestWaitMs: number
    }
  }
  readonly connection: {
    readonly state: string
    readonly gatewayUrl: string
    readonly detail: string
    readonly held: boolean
  }
  readonly certificate: {
    readonly expiresAt: string
    /** How far the renewal of a certificate that ran out is; null when none is under way. */
    readonly renewal: string | null
    readonly keysetVersion: number
  }
  readonly interlock: string
  readonly networkIsolation: IsolationStatus
  /** What operators had this host leave out and keep; null: no lists are in force. */
  readonly telemetryLists: {
    readonly rules: number
    readonly sha256: string
    readonly commandId: string
    readonly since: string
  } | null
  readonly residentBytes: number
}
