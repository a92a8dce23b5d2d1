/** What the scanner says of itself. */
import type { SkipReason } from './open-target.ts'

export interface ScannerStatus {
  /** `resting`: no child, because there is no work; `waiting`: a child was lost, the next starts soon. */
  readonly state: 'stopped' | 'starting' | 'ready' | 'resting' | 'waiting'
  readonly pid: number | null
  /** `yara-x`, or `none`: files are hashed and not scanned. */
  readonly engine: string
  readonly isolation: readonly string[]
  readonly ruleProblems: readonly string[]
  readonly scanned: number
  readonly cached: number
  /** By reason; nothing is skipped in silence. */
  readonly skipped: Readonly<Record<SkipReason, number>>
  readonly restarts: number
  readonly queued: number
  readonly budget: {
    /** Of one core. */
    readonly share: number
    readonly usedLastMinuteMs: number
    /** How long the file that waits longest has waited; 0 when none does. */
    readonly oldestWaitMs: number
  }
}
