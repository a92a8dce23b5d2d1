/** A scanner with a real child, for tests. */
import { join } from 'node:path'
import { readContent, shippedContentFolder } from '../../../shared/node/content.ts'
import { createSilentLogger } from '../../../shared/node/logger.ts'
import { loadNative } from '../../native/addon.ts'
import { startScannerProcess } from '../../platform/linux/scanner-process.ts'
import { createScanner, type Scanner, type ScannerOptions } from '../scanner.ts'

export interface RunningScanner extends AsyncDisposable {
  readonly scanner: Scanner
  /** Of every child so far, the latest last. */
  readonly pids: readonly number[]
  stop(): Promise<void>
}

export type RunningScannerOptions = Partial<
  Pick<ScannerOptions, 'sources' | 'ownFolders' | 'limits' | 'clock'>
> & {
  readonly withoutNative?: boolean
  /** Another program in the place of the child. */
  readonly args?: readonly string[]
}

export const nativeAddon = loadNative()

/** Restarts come without a pause. */
export function runScanner(options: RunningScannerOptions = {}): RunningScanner {
  const stop = new AbortController()
  const pids: number[] = []
  const native = nativeAddon.ok && !options.withoutNative ? nativeAddon.native : null
  const entry = join(import.meta.dirname, 'scan-worker-entry.ts')
  const args = options.args ?? [entry, ...(native === null ? ['without-native'] : [])]
  const scanner = createScanner({
    sources: options.sources ?? readContent([shippedContentFolder()]).yaraSources,
    startProcess: (socket) => startScannerProcess({ command: process.execPath, args }, socket),
    descriptors: native,
    ownFolders: options.ownFolders ?? [],
    logger: createSilentLogger(),
    clock: options.clock ?? Date.now,
    random: () => 0,
    onSpawn: (pid) => pids.push(pid),
    // Most tests look at one child; those of resting say a time.
    limits: { idleMs: 600_000, ...options.limits },
  })
  const running = scanner.run(stop.signal)
  const stopAll = async () => {
    stop.abort()
    await running
  }
  return { scanner, pids, stop: stopAll, [Symbol.asyncDispose]: stopAll }
}
