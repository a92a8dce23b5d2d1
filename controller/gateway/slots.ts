/** A bounded number of things at once; the rest wait their turn, first come first served. */
export interface Slots {
  /** True when one was free and is taken. */
  tryTake(): boolean
  /** Resolves when one is taken. */
  take(): Promise<void>
  release(): void
}

export function createSlots(max: number): Slots {
  const waiting: (() => void)[] = []
  let taken = 0
  return {
    tryTake() {
      if (taken >= max || waiting.length > 0) return false
      taken += 1
      return true
    },
    take() {
      if (this.tryTake()) return Promise.resolve()
      return new Promise((resolve) => waiting.push(resolve))
    },
    release() {
      const next = waiting.shift()
      // The slot goes straight to the one that waited.
      if (next) next()
      else taken -= 1
    },
  }
}

/** How often something may happen: a burst at once, then one per interval. */
export interface Allowance {
  /** True when it may happen now; counts it. */
  spend(): boolean
}

export function createAllowance(burst: number, intervalMs: number, clock: () => number): Allowance {
  let left = burst
  let refilledMs = clock()
  return {
    spend() {
      const nowMs = clock()
      left = Math.min(burst, left + Math.max(0, nowMs - refilledMs) / intervalMs)
      refilledMs = nowMs
      if (left < 1) return false
      left -= 1
      return true
    },
  }
}
