import { expect, test } from 'vitest'
import { createBackoff } from './backoff.ts'

test('the ceiling doubles up to its bound and falls back after a success', () => {
  const backoff = createBackoff(1_000, 5_000, () => 1)
  expect([backoff.next(), backoff.next(), backoff.next(), backoff.next(), backoff.next()]).toEqual([
    1_000, 2_000, 4_000, 5_000, 5_000,
  ])
  backoff.reset()
  expect(backoff.next()).toBe(1_000)
})

test('jitter spreads pauses over the whole range from zero', () => {
  const backoff = createBackoff(1_000, 1_000, () => 0)
  expect(backoff.next()).toBe(0)
})
