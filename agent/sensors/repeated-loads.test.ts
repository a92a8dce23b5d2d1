import { expect, test } from 'vitest'
import { createRepeatedLoads } from './repeated-loads.ts'

test('a pair is told once an hour, with how often it came in between', () => {
  let nowMs = 0
  const loads = createRepeatedLoads(
    () => nowMs,
    () => undefined,
  )
  expect(loads.tell('/bin/sh', 'libc')).toBe(0)
  expect([1, 2, 3].map(() => loads.tell('/bin/sh', 'libc'))).toEqual([null, null, null])
  expect(loads.tell('/bin/sh', 'evil')).toBe(0)
  expect(loads.tell('/bin/other', 'libc')).toBe(0)
  nowMs = 3_600_000
  expect(loads.tell('/bin/sh', 'libc')).toBe(3)
  expect(loads.tell('/bin/sh', 'libc')).toBeNull()
})

test('what a forgotten pair had counted is handed over, so that it can be told as a gap', () => {
  const forgotten: number[] = []
  const loads = createRepeatedLoads(
    () => 0,
    (untold) => forgotten.push(untold),
  )
  loads.tell('/bin/first', 'libc')
  loads.tell('/bin/first', 'libc')
  loads.tell('/bin/first', 'libc')
  for (let index = 0; index < 16_384; index += 1) loads.tell(`/bin/${index}`, 'libc')
  expect(forgotten).toEqual([2])
})
