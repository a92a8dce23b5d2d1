/** The clockwork of the sensors that fetch from the kernel many times a second. */

/**
 * Calls `step` at once and then every `intervalMs` until `signal` aborts; rejects with what `step` throws. One
 * timer and one listener for good: at 40 calls a second, a promise and a listener for each pause cost more than
 * the work. `step` is synchronous, so calls cannot overlap.
 */
export function drainEvery(intervalMs: number, signal: AbortSignal, step: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined
    const end = () => {
      clearInterval(timer)
      signal.removeEventListener('abort', end)
      resolve()
    }
    const tick = () => {
      try {
        step()
      } catch (error) {
        // Before the end, which would resolve: the first of the two counts.
        reject(error)
        end()
      }
    }
    if (signal.aborted) {
      resolve()
      return
    }
    timer = setInterval(tick, intervalMs)
    signal.addEventListener('abort', end, { once: true })
    tick()
  })
}
