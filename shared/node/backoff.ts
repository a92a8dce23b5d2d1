/** Exponential backoff with full jitter, so that a restarted controller is not met by every agent at once. */
export interface Backoff {
  /** The next pause in milliseconds: uniform between 0 and a ceiling that doubles up to `maxMs`. */
  next(): number
  /** Back to the first ceiling, after a success. */
  reset(): void
}

export function createBackoff(minMs: number, maxMs: number, random: () => number = Math.random): Backoff {
  let ceilingMs = minMs
  return {
    next() {
      const pauseMs = Math.floor(random() * ceilingMs)
      ceilingMs = Math.min(maxMs, ceilingMs * 2)
      return pauseMs
    },
    reset() {
      ceilingMs = minMs
    },
  }
}
