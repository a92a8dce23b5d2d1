/** How much of the telemetry is seen on this host now, row by row, and why not more. Pure. */
import { ROWS, type Row, type Source, type Way } from './rows.ts'

export interface SourceState {
  readonly source: Source
  readonly inForce: boolean
  /** Why it is in force, or why not. */
  readonly reason: string
}

export interface RowCoverage {
  readonly category: string
  readonly name: string
  readonly seen: 'yes' | 'partly' | 'no'
  /** What sees it; null: nothing does. */
  readonly source: Source | null
  readonly reason: string
}

export function coverageOf(states: readonly SourceState[], rows: readonly Row[] = ROWS): RowCoverage[] {
  const bySource = new Map(states.map((state) => [state.source, state]))
  return rows.map((row) => coverageOfRow(row, bySource))
}

function coverageOfRow(row: Row, states: ReadonlyMap<Source, SourceState>): RowCoverage {
  const { category, name, ways } = row
  const found = ways.find(({ source }) => states.get(source)?.inForce)
  const best = ways[0]
  const whyNotBest = best === undefined ? '' : (states.get(best.source)?.reason ?? 'not part of this agent')
  if (found === undefined) {
    return { category, name, seen: 'no', source: null, reason: `${best?.source ?? 'nothing'}: ${whyNotBest}` }
  }
  const better = found === best ? '' : `; ${best?.source}: ${whyNotBest}`
  const misses = found.misses ?? missedAlone(found, states)
  if (misses !== undefined) {
    return { category, name, seen: 'partly', source: found.source, reason: `misses ${misses}${better}` }
  }
  const reason = states.get(found.source)?.reason ?? ''
  return { category, name, seen: 'yes', source: found.source, reason: `${reason}${better}` }
}

function missedAlone({ without }: Way, states: ReadonlyMap<Source, SourceState>): string | undefined {
  const isAlone = without?.sources.every((source) => states.get(source)?.inForce !== true)
  return isAlone ? without?.misses : undefined
}
