/** The clockwork of the sensors that fetch from the kernel many times a second. */

/** A quiet source is looked at this many times less often than a busy one. */
const QUIET_FACTOR = 4
/** Empty looks in a row after which a source counts as quiet. */
const QUIET_AFTER = 8

/**
 * Calls `step` at once and then again and again until `signal` aborts; rejects with what `step` throws. The
 * pause is `intervalMs` while `step` finds something (it returns true) and four times as long when it has found
 * nothing for a while: on a quiet host the agent sleeps, and what comes first waits a tenth of a second at most.
 *
 * One timer and one listener for good: at 40 calls a second, a promise and a listener for each pause cost more
 * than the work. `step` is synchronous, so calls cannot overlap.
 */
export function drainEvery(intervalMs: number, signal: AbortSignal, step: () => boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined
    let pauseMs = intervalMs
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
      const nextMs = emptyLooks >= QUIET_AFTER ? intervalMs * QUIET_FACTOR : intervalMs
      if (timer !== undefined && nextMs === pauseMs) {
        timer.refresh()
      } else {
        pauseMs = nextMs
        timer = setTimeout(tick, pauseMs)
      }
    }
    if (signal.aborted) {
      resolve()
      return
    }
    signal.addEventListener('abort', end, { once: true })
    tick()
  })
}
