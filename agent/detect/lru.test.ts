import { expect, test } from 'vitest'
import { createLru } from './lru.ts'

test('what is used stays, what is not goes, and the number of entries is bounded', () => {
  const lru = createLru<number>(100)
  lru.set('used', 1)
  lru.set('unused', 2)
  for (let index = 0; index < 1_000; index += 1) {
    lru.set(`filler ${index}`, index)
    expect(lru.get('used')).toBe(1)
  }
  expect(lru.get('unused')).toBeUndefined()
  const present = Array.from({ length: 1_000 }, (_, index) => lru.get(`filler ${index}`)).filter(
    (value) => value !== undefined,
  )
  expect(present.length).toBeLessThanOrEqual(100)
  expect(lru.get('filler 999')).toBe(999)
})

test('an entry that is set again has its new value', () => {
  const lru = createLru<number>(4)
  for (const key of ['a', 'b', 'a', 'c', 'a']) lru.set(key, key === 'a' ? 2 : 1)
  lru.set('a', 3)
  expect(lru.get('a')).toBe(3)
})
