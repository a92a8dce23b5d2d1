/**
 * Tamper alerts at a bounded rate. They are events that are never dropped, so whoever can provoke them must
 * not be able to fill the disk with them: what is beyond the rate is counted and told with the next one.
 */
import type { EventOf } from '../../shared/events/event.ts'
import { cut } from './action.ts'

const BURST_MAX = 20
const REFILL_MS = 3_000

export type TamperEvent = EventOf<'tamper'>

/** So many at once, then one per interval. */
export interface Allowance {
  /** False when it is used up. */
  take(): boolean
}

export function createAllowance(monotonicMs: () => number = () => performance.now()): Allowance {
  let left = BURST_MAX
  let refilledMs = monotonicMs()
  return {
    take() {
      const refills = Math.floor((monotonicMs() - refilledMs) / REFILL_MS)
      refilledMs += refills * REFILL_MS
      left = Math.min(BURST_MAX, left + refills)
      if (left === 0) return false
      left -= 1
      return true
    },
  }
}

export interface Alerts {
  /** False when the alert was only counted. */
  raise(reason: string): boolean
}

export function createAlerts(
  emit: (event: TamperEvent) => void,
  clock: () => number,
  allowance: Allowance = createAllowance(),
): Alerts {
  let counted = 0
  return {
    raise(reason) {
      if (!allowance.take()) {
        counted += 1
        return false
      }
      const before = counted === 0 ? '' : ` (${counted} more before it were only counted)`
      counted = 0
      emit({
        '@timestamp': new Date(clock()).toISOString(),
        'event.kind': 'alert',
        'event.category': 'host',
        'event.type': 'info',
        'event.action': 'tamper',
        'event.reason': cut(`${reason.slice(0, 900)}${before}`),
      })
      return true
    },
  }
}
