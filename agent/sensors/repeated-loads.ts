/**
 * Libraries that the same program loads again and again: every start of a shell loads the same three. Each pair of
 * program and library is told once an hour, with how often it came again since.
 */
export interface RepeatedLoads {
  /** Null: not now. Else how many loads of the same have not been told since the last that was. */
  tell(program: string, library: string): number | null
}

interface Pair {
  toldMs: number
  untold: number
}

const TOLD_AGAIN_MS = 3_600_000
const PAIRS_MAX = 16_384

/** `forgot`: so many loads were counted for a pair that had to make room, and will not be told with it. */
export function createRepeatedLoads(clock: () => number, forgot: (untold: number) => void): RepeatedLoads {
  /** In the order of their last telling. */
  const pairs = new Map<string, Pair>()
  return {
    tell(program, library) {
      const key = `${program}\0${library}`
      const known = pairs.get(key)
      if (known && Math.abs(clock() - known.toldMs) < TOLD_AGAIN_MS) {
        known.untold += 1
        return null
      }
      pairs.delete(key)
      pairs.set(key, { toldMs: clock(), untold: 0 })
      if (pairs.size > PAIRS_MAX) {
        const oldest = pairs.entries().next()
        if (!oldest.done) {
          pairs.delete(oldest.value[0])
          if (oldest.value[1].untold > 0) forgot(oldest.value[1].untold)
        }
      }
      return known?.untold ?? 0
    },
  }
}
