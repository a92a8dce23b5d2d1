/** Scans a path with the rules and indicators in force. It changes nothing on the host. */
import type { Action } from './action.ts'

export interface ScanSummary {
  readonly files: number
  readonly bytes: number
  readonly matches: number
  /** Not scanned: too large, unreadable, not regular, or beyond `filesMax`. */
  readonly skipped: number
}

export type ScanResult =
  | { readonly kind: 'scanned'; readonly summary: ScanSummary }
  | { readonly kind: 'failed'; readonly reason: string }
  | { readonly kind: 'aborted' }

/** Provided by detection. Matches become detections of their own. */
export type ScanPath = (
  path: string,
  options: { readonly filesMax: number; readonly signal: AbortSignal },
) => Promise<ScanResult>

const SCAN_TIMEOUT_MS = 30 * 60_000

export function createScanAction(scanPath: ScanPath): Action<'scanPath'> {
  return {
    idempotent: true,
    access: 'shared',
    timeoutMs: SCAN_TIMEOUT_MS,
    key: ({ path }) => `scan:${path}`,
    check: async () => ({ kind: 'ready' }),
    async apply({ target, args }, signal) {
      const result = await scanPath(target.path, { filesMax: args.filesMax, signal })
      if (result.kind === 'failed') return { ...result, proof: {} }
      if (result.kind === 'aborted') return result
      const { files, bytes, matches, skipped } = result.summary
      const reason = `scanned ${files} files, ${matches} matches, ${skipped} skipped`
      return { kind: 'applied', reason, proof: { files, bytes, matches, skipped } }
    },
    async probe(_request, applied) {
      if (applied) return { kind: 'proved', reason: 'the scan came to its end', proof: applied }
      return { kind: 'unknown', reason: 'the scan was cut short', proof: {} }
    },
  }
}
