/** The clockwork of the sensors that fetch from the kernel many times a second. */

/** A quiet source is looked at this many times less often than a busy one. */
const QUIET_FACTOR = 3
/** Empty looks in a row after which a source counts as quiet. */
const QUIET_AFTER = 8

/**
 * Calls `step` at once and then again and again until `signal` aborts; rejects with what `step` throws. The
 * pause is `intervalMs` while `step` finds something (it returns true) and three times as long when it has found
 * nothing for a while: on a quiet host the agent sleeps, and what comes first waits three intervals at most.
 *
 * Looks fall on multiples of the interval, so that sensors with one interval share their wake-ups: on a virtual
 * machine a wake-up costs more than most looks. No promise and no listener for each pause, for the same reason.
 * `step` is synchronous, so calls cannot overlap.
 */
export function drainEvery(intervalMs: number, signal: AbortSignal, step: () => boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined
    let emptyLooks = 0
    const end = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', end)
      resolve()
    }
    const tick = () => {
      try {
        emptyLooks = step() ? 0 : emptyLooks + 1
      } catch (error) {
        // Before the end, which would resolve: the first of the two counts.
        reject(error)
        end()
        return
      }
      if (signal.aborted) return
      const pauseMs = emptyLooks >= QUIET_AFTER ? intervalMs * QUIET_FACTOR : intervalMs
      const untilNextMs = pauseMs - (performance.now() % pauseMs)
      // A timer that fired a little early must not look again at once.
      timer = setTimeout(tick, Math.ceil(untilNextMs < pauseMs / 4 ? untilNextMs + pauseMs : untilNextMs))
    }
    if (signal.aborted) {
      resolve()
      return
    }
    signal.addEventListener('abort', end, { once: true })
    tick()
  })
}
