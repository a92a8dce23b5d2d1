/** Counts requests per address in windows of one minute, for a bounded number of addresses. */
export interface RateLimit {
  /** Whether one more request from this address is within the limit; counts it. */
  take(address: string): boolean
}

const windowMs = 60_000
const addressesMax = 4_096

export function createRateLimit(perMinuteMax: number, clock: () => number): RateLimit {
  const counts = new Map<string, number>()
  let windowStartMs = clock()
  return {
    take(address) {
      // A clock that was set back must not stretch the window.
      if (Math.abs(clock() - windowStartMs) >= windowMs) {
        counts.clear()
        windowStartMs = clock()
      }
      // When the table is full, new addresses share one count: strangers cannot buy themselves room.
      const counted = counts.has(address) || counts.size < addressesMax ? address : ''
      const count = (counts.get(counted) ?? 0) + 1
      counts.set(counted, count)
      return count <= perMinuteMax
    },
  }
}
