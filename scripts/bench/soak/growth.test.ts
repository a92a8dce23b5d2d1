import { expect, test } from 'vitest'
import { growthOf, medianEnds, type Sample } from './growth.ts'

const series = (values: readonly number[]): Sample[] =>
  values.map((value, at) => ({ seconds: at * 15, value }))

test('a steady rise is its whole height, and a level line none', () => {
  expect(growthOf(series([50, 51, 52, 53, 54]))).toBeCloseTo(4)
  expect(growthOf(series([50, 50, 50]))).toBe(0)
})

test('a line that goes up and down around one level has not grown', () => {
  const saw = Array.from({ length: 120 }, (_, at) => 50 + (at % 6))
  expect(Math.abs(growthOf(series(saw)))).toBeLessThan(0.5)
})

test('too few samples, and samples of one moment, are no growth', () => {
  expect(growthOf([])).toBe(0)
  expect(growthOf(series([50]))).toBe(0)
  expect(
    growthOf([
      { seconds: 3, value: 1 },
      { seconds: 3, value: 9 },
    ]),
  ).toBe(0)
})

test('ends are medians, so that one sample of many says nothing', () => {
  expect(medianEnds(series([50, 90, 51, 52, 60, 60, 60, 60, 70, 71, 10, 72]))).toEqual([51, 71])
  expect(medianEnds(series([5]))).toEqual([5, 5])
  expect(medianEnds([])).toEqual([Number.NaN, Number.NaN])
})
