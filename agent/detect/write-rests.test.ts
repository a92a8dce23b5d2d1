import { expect, test } from 'vitest'
import { createWriteRests } from './write-rests.ts'

test('a file that is written again and again rests longer the longer it takes, within bounds', () => {
  let nowMs = 1_000_000
  const rests = createWriteRests(() => nowMs)
  const writeOften = (key: string, tookMs: number) => {
    for (let index = 0; index < 3; index += 1) rests.note(key, tookMs)
    expect(rests.untilMs(key)).toBe(0)
    rests.note(key, tookMs)
    return rests.untilMs(key) - nowMs
  }
  expect(writeOften('small', 0)).toBe(1_000)
  expect(writeOften('large', 200)).toBe(4_000)
  expect(writeOften('endless', 60_000)).toBe(60_000)
  expect(rests.untilMs('other')).toBe(0)
  nowMs += 1_000
  expect(rests.untilMs('small')).toBe(0)
})

test('a file that is written now and then never rests', () => {
  let nowMs = 1_000_000
  const rests = createWriteRests(() => nowMs)
  for (let index = 0; index < 20; index += 1) {
    rests.note('log', 5_000)
    expect(rests.untilMs('log')).toBe(0)
    nowMs += 4_000
  }
})
