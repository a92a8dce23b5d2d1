import { expect, test } from 'vitest'
import { createSilentLogger } from '../../shared/node/logger.ts'
import { openTemporaryState } from './testing/temporary-state.ts'
import { createTogether } from './together.ts'

test('works run in order in one transaction, and one that fails is undone alone', () => {
  using temporary = openTemporaryState()
  const { state } = temporary
  let transactions = 0
  let depth = 0
  const counting = {
    run<Value>(work: () => Value): Value {
      if (depth === 0) transactions += 1
      depth += 1
      try {
        return state.run(work)
      } finally {
        depth -= 1
      }
    },
  }
  const together = createTogether(counting, createSilentLogger())
  const ran: number[] = []
  for (const number of [1, 2, 3]) {
    together(() => {
      ran.push(number)
      state.consumer.advance(`reader-${number}`, String(number))
      if (number === 2) throw new Error('this one fails')
    })
  }
  expect(ran).toEqual([])
  together.flush()
  expect(ran).toEqual([1, 2, 3])
  expect(transactions).toBe(1)
  expect([1, 2, 3].map((number) => state.consumer.cursor(`reader-${number}`))).toEqual(['1', '', '3'])
})

test('what waits runs by itself, and a crowd does not wait', async () => {
  using temporary = openTemporaryState()
  const together = createTogether(temporary.state, createSilentLogger())
  let ran = 0
  const count = () => {
    ran += 1
  }
  together(count)
  await expect.poll(() => ran).toBe(1)
  for (let number = 0; number < 256; number += 1) together(count)
  expect(ran).toBe(257)
  together.flush()
  expect(ran).toBe(257)
})
