/**
 * Writes that come in crowds, in one transaction: when 2,000 agents return in some seconds, a commit to disk for
 * each would hold the controller's only thread for longer than their handshakes do.
 */
import type { Logger } from '../../shared/node/logger.ts'
import type { State } from './state.ts'

const DELAY_MS = 50
const WORKS_MAX = 256

export interface Together {
  /** Runs `work` soon, in the order of the calls. For what may be lost when the program dies within the delay. */
  (work: () => void): void
  /** Runs what waits now. */
  flush(): void
}

export function createTogether(state: Pick<State, 'run'>, log: Pick<Logger, 'error'>): Together {
  let waiting: (() => void)[] = []
  let timer: NodeJS.Timeout | null = null

  const runOne = (work: () => void): void => {
    try {
      state.run(work)
    } catch (error) {
      log.error({ error: String(error) }, 'one of several writes failed')
    }
  }
  const flush = (): void => {
    if (timer) clearTimeout(timer)
    timer = null
    const works = waiting
    waiting = []
    if (works.length === 0) return
    try {
      state.run(() => works.forEach(runOne))
    } catch (error) {
      log.error({ error: String(error), writes: works.length }, 'several writes failed together')
    }
  }
  return Object.assign(
    (work: () => void): void => {
      waiting.push(work)
      if (waiting.length >= WORKS_MAX) flush()
      else timer ??= setTimeout(flush, DELAY_MS)
    },
    { flush },
  )
}
