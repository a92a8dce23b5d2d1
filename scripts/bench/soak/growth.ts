/** How much a series of samples grew, told by all of them rather than by its two ends. */
import { percentile } from '../report.ts'

export interface Sample {
  readonly seconds: number
  readonly value: number
}

/** Slope of the least-squares line times the duration; 0 for fewer than two samples. */
export function growthOf(samples: readonly Sample[]): number {
  const [first, last] = [samples[0], samples.at(-1)]
  if (first === undefined || last === undefined || first === last) return 0
  const middleSeconds = mean(samples.map(({ seconds }) => seconds))
  const middleValue = mean(samples.map(({ value }) => value))
  let products = 0
  let squares = 0
  for (const { seconds, value } of samples) {
    products += (seconds - middleSeconds) * (value - middleValue)
    squares += (seconds - middleSeconds) ** 2
  }
  return squares === 0 ? 0 : (products / squares) * (last.seconds - first.seconds)
}

/** Medians of the first and of the last quarter, at least one sample each; NaN for none. */
export function medianEnds(samples: readonly Sample[]): readonly [first: number, last: number] {
  const count = Math.max(1, Math.floor(samples.length / 4))
  const median = (some: readonly Sample[]) =>
    percentile(
      some.map(({ value }) => value),
      0.5,
    )
  return [median(samples.slice(0, count)), median(samples.slice(-count))]
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}
