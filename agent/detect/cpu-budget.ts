/**
 * What reading contents may take of the processor: a share of one core on average. A bucket fills with time and is
 * emptied by what was used; it starts full, so that what happens on a quiet host is looked at right away. Below
 * zero is a debt, for nobody knows what a file takes before it is read.
 */

export interface CpuBudget {
  /** Takes what was used out of the bucket. */
  charge(usedMs: number): void
  /** How long until more than `reserveMs` is in the bucket; 0: there is. */
  waitMs(reserveMs: number): number
  usedLastMinuteMs(): number
}

/** The bucket holds what a minute gives. */
const MINUTE_MS = 60_000
const SECONDS = 60

/** `share`: of one core, above 0. */
export function createCpuBudget(share: number, clock: () => number): CpuBudget {
  const capacityMs = share * MINUTE_MS
  let levelMs = capacityMs
  let filledMs = clock()
  /** By second: which one it is, and what was used in it. */
  const seconds = new Float64Array(SECONDS)
  const usedMs = new Float64Array(SECONDS)

  function fill(): void {
    const nowMs = clock()
    // A clock that is set back gives nothing, and takes nothing.
    levelMs = Math.min(capacityMs, levelMs + Math.max(0, nowMs - filledMs) * share)
    filledMs = nowMs
  }

  return {
    charge(used) {
      fill()
      levelMs -= used
      const second = Math.floor(clock() / 1_000)
      const place = second % SECONDS
      usedMs[place] = (seconds[place] === second ? (usedMs[place] ?? 0) : 0) + used
      seconds[place] = second
    },
    waitMs(reserveMs) {
      fill()
      return levelMs > reserveMs ? 0 : Math.ceil((reserveMs - levelMs) / share) + 1
    },
    usedLastMinuteMs() {
      const since = Math.floor(clock() / 1_000) - SECONDS
      return usedMs.reduce((sum, used, place) => ((seconds[place] ?? 0) > since ? sum + used : sum), 0)
    },
  }
}
