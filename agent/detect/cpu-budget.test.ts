import { expect, test } from 'vitest'
import { createCpuBudget } from './cpu-budget.ts'

function budgetOf(share: number, startMs = 1_000_000_000_000) {
  const time = { nowMs: startMs }
  return { time, budget: createCpuBudget(share, () => time.nowMs) }
}

test('it starts with what a minute gives, and then gives its share', () => {
  const { time, budget } = budgetOf(0.25)
  budget.charge(14_999)
  expect(budget.waitMs(0)).toBe(0)
  budget.charge(101)
  const waitMs = budget.waitMs(0)
  expect(waitMs).toBe(401)
  time.nowMs += waitMs - 1
  expect(budget.waitMs(0)).toBeGreaterThan(0)
  time.nowMs += 1
  expect(budget.waitMs(0)).toBe(0)
})

test('who leaves a reserve waits where others need not', () => {
  const { budget } = budgetOf(0.5)
  budget.charge(25_000)
  expect(budget.waitMs(0)).toBe(0)
  expect(budget.waitMs(6_000)).toBe(2_001)
})

test('it never holds more than what a minute gives, however long nothing happens', () => {
  const { time, budget } = budgetOf(0.25)
  time.nowMs += 86_400_000
  budget.charge(15_000)
  expect(budget.waitMs(0)).toBe(1)
})

test('over a long time no more than the share is used, whatever a file takes', () => {
  const { time, budget } = budgetOf(0.1)
  const startMs = time.nowMs
  let usedMs = 0
  for (let index = 0; index < 2_000; index += 1) {
    time.nowMs += budget.waitMs(0)
    const tookMs = 1 + ((index * 7_919) % 900)
    usedMs += tookMs
    time.nowMs += tookMs
    budget.charge(tookMs)
  }
  const passedMs = time.nowMs - startMs
  expect(usedMs).toBeLessThanOrEqual(0.1 * (passedMs + 60_000) + 900)
  expect(usedMs).toBeGreaterThan(0.09 * passedMs)
})

test('a clock that is set back gives nothing and takes nothing', () => {
  const { time, budget } = budgetOf(0.25)
  budget.charge(15_250)
  time.nowMs -= 3_600_000
  expect(budget.waitMs(0)).toBe(1_001)
  time.nowMs += 1_001
  expect(budget.waitMs(0)).toBe(0)
})

test('what was used in the last minute is told, and no longer', () => {
  const { time, budget } = budgetOf(0.25)
  budget.charge(100)
  time.nowMs += 30_000
  budget.charge(20)
  budget.charge(3)
  expect(budget.usedLastMinuteMs()).toBe(123)
  time.nowMs += 30_000
  expect(budget.usedLastMinuteMs()).toBe(23)
  budget.charge(1)
  time.nowMs += 59_000
  expect(budget.usedLastMinuteMs()).toBe(1)
  time.nowMs += 3_600_000
  expect(budget.usedLastMinuteMs()).toBe(0)
})
