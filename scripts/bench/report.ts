/** The one form of a bench's result: an object on the last line of standard output. */
import { cpus, release, totalmem } from 'node:os'

export interface BenchReport {
  readonly bench: string
  readonly machine: string
  /** Names end with their unit; shares are 0 to 1. */
  readonly figures: Readonly<Record<string, number>>
  readonly notes: readonly string[]
}

export interface BenchContext {
  /** Told one line per step; goes to standard error. */
  readonly say: (line: string) => void
  /** Empty folder of this run, removed afterwards. */
  readonly folder: string
  /** How long, for a bench that can be told so. */
  readonly minutes?: number
  /** The setting `sensors` of the agent, for a bench that can force a layer. */
  readonly sensors?: string
}

export interface Bench {
  readonly name: string
  readonly summary: string
  run(context: BenchContext): Promise<{ figures: Record<string, number>; notes: string[] }>
}

export function describeMachine(): string {
  const [first] = cpus()
  return `${cpus().length} x ${first?.model.trim() ?? 'unknown'}, ${Math.round(totalmem() / 1024 ** 3)} GiB, Linux ${release()}, Node ${process.version}`
}

/** The value below which `share` of the values lie (nearest rank); NaN for none. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN
}

/** Four significant figures: more would be noise. */
export function rounded(value: number): number {
  return Number(value.toPrecision(4))
}
