/** Keeps the agent small: what its start or a storm needed is given back soon, and what piled up, now and then. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { pause, runEvery } from '../../shared/node/loop.ts'

const CHECK_INTERVAL_MS = 30_000
/** Checks without a release after which it is time for one: ten minutes. */
const IDLE_CHECKS_MAX = 19
/** Growth since the last release that is worth another one. */
const GROWTH_BYTES = 32 * 1024 ** 2

interface Memory {
  /** Gives back what nobody uses. */
  readonly release: () => void
  readonly residentBytes: () => number
}

/**
 * Until `stop`. V8 lets its heap grow to several times what is alive before it collects garbage, and a quiet agent
 * never gets there again: with some 40 MB alive it kept 150 MB. So it is told to, before what malloc keeps is given
 * back by `releaseNative` (null without the addon).
 */
export async function keepSmall(releaseNative: (() => void) | null, stop: AbortSignal): Promise<void> {
  const collectGarbage = exposeCollector()
  const release = () => {
    collectGarbage()
    releaseNative?.()
  }
  await pause(CHECK_INTERVAL_MS, stop)
  await runEvery(
    CHECK_INTERVAL_MS,
    stop,
    createReleaser({ release, residentBytes: () => process.memoryUsage.rss() }),
  )
}

/** A check to be made again and again: the first releases, later ones when it is worth it. */
export function createReleaser({ release, residentBytes }: Memory): () => void {
  let afterRelease = Number.NEGATIVE_INFINITY
  let idleChecks = 0
  return () => {
    if (idleChecks < IDLE_CHECKS_MAX && residentBytes() - afterRelease < GROWTH_BYTES) {
      idleChecks += 1
      return
    }
    release()
    afterRelease = residentBytes()
    idleChecks = 0
  }
}

/**
 * V8's full collection, which it only gives to contexts that are made while the flag is set. Not as an argument of
 * the program: its code cache was made without the flag, and V8 would refuse it at each start.
 */
export function exposeCollector(): () => void {
  setFlagsFromString('--expose-gc')
  const collect: unknown = runInNewContext('gc')
  setFlagsFromString('--no-expose-gc')
  if (typeof collect !== 'function') throw new Error('V8 gave no collector for --expose-gc')
  return () => collect()
}
