/** How many entries of a timeline fall into each part of its span, and where nobody could see. Pure. */
import type { TimelineEntry } from '../api/types.ts'

const BINS = 48
const SPAN_MS_MIN = 1_000

export interface Bin {
  readonly count: number
  readonly detections: number
}

export interface Histogram {
  readonly fromMs: number
  readonly toMs: number
  readonly bins: readonly Bin[]
  readonly countMax: number
  /** Parts of the span from 0 to 1; `to` is 1 when no end is known. */
  readonly blind: readonly { readonly from: number; readonly to: number }[]
}

/** Null when nothing has a time. */
export function histogramOf(entries: readonly TimelineEntry[]): Histogram | null {
  const told = entries
    .map((entry) => ({
      entry,
      ms: Date.parse(entry.at),
      untilMs: entry.until === null ? null : Date.parse(entry.until),
    }))
    .filter(({ ms }) => Number.isFinite(ms))
  const first = told[0]
  if (first === undefined) return null
  let fromMs = first.ms
  let toMs = first.ms
  for (const { ms, untilMs } of told) {
    fromMs = Math.min(fromMs, ms)
    toMs = Math.max(toMs, ms, untilMs ?? ms)
  }
  toMs = Math.max(toMs, fromMs + SPAN_MS_MIN)
  const span = toMs - fromMs
  const bins = Array.from({ length: BINS }, () => ({ count: 0, detections: 0 }))
  for (const { entry, ms } of told) {
    const bin = bins[Math.min(BINS - 1, Math.floor(((ms - fromMs) / span) * BINS))]
    if (bin === undefined || entry.kind === 'blind') continue
    bin.count += 1
    if (entry.kind === 'detection') bin.detections += 1
  }
  return {
    fromMs,
    toMs,
    bins,
    countMax: Math.max(1, ...bins.map(({ count }) => count)),
    blind: told
      .filter(({ entry }) => entry.kind === 'blind')
      .map(({ ms, untilMs }) => ({
        from: (ms - fromMs) / span,
        to: untilMs === null ? 1 : (untilMs - fromMs) / span,
      })),
  }
}
