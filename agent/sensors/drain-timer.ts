/** The clockwork of the sensors that fetch from the kernel many times a second. */

/** Empty looks in a row after which a source counts as quiet. */
const QUIET_AFTER = 2
/** A quiet source is looked at this many times less often than a busy one. */
const QUIET_FACTOR = 3
/** With a bell, a look at a quiet source is for what is due by time alone. */
const QUIET_FACTOR_WITH_BELL = 12

/** Tells when a quiet source has something. */
export interface Bell {
  /** Once, before any other: `onRing` is called once after each `arm`, or not at all. */
  start(onRing: () => void): void
  arm(): void
}

/**
 * Calls `step` at once and then again and again until `signal` aborts; rejects with what `step` throws. The
 * pause is `intervalMs` while `step` finds something (it returns true). Has it found nothing twice, the source is
 * quiet: with a bell, which is heard at once, it is looked at twelve times less often; without one, what comes
 * first waits three intervals at most.
 *
 * Looks fall on multiples of the interval, so that sensors with one interval share their wake-ups: on a virtual
 * machine a wake-up costs more than most looks. No promise and no listener for each pause, for the same reason.
 * `step` is synchronous, so calls cannot overlap.
 */
export function drainEvery(
  intervalMs: number,
  signal: AbortSignal,
  step: () => boolean,
  bell?: Bell,
): Promise<void> {
  const quietMs = intervalMs * (bell ? QUIET_FACTOR_WITH_BELL : QUIET_FACTOR)
  return new Promise((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined
    let emptyLooks = 0
    let isOver = false
    const end = () => {
      isOver = true
      clearTimeout(timer)
      signal.removeEventListener('abort', end)
      resolve()
    }
    const tick = () => {
      try {
        emptyLooks = step() ? 0 : emptyLooks + 1
        if (emptyLooks >= QUIET_AFTER) bell?.arm()
      } catch (error) {
        // Before the end, which would resolve: the first of the two counts.
        reject(error)
        end()
        return
      }
      if (signal.aborted) return
      const pauseMs = emptyLooks >= QUIET_AFTER ? quietMs : intervalMs
      const untilNextMs = pauseMs - (performance.now() % pauseMs)
      // A timer that fired a little early must not look again at once.
      timer = setTimeout(tick, Math.ceil(untilNextMs < pauseMs / 4 ? untilNextMs + pauseMs : untilNextMs))
    }
    if (signal.aborted) {
      resolve()
      return
    }
    bell?.start(() => {
      if (isOver) return
      clearTimeout(timer)
      tick()
    })
    signal.addEventListener('abort', end, { once: true })
    tick()
  })
}
