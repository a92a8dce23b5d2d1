import { expect, test } from 'vitest'
import { drainEvery } from './drain-timer.ts'

test('it calls at once and again, until it is told to stop', async () => {
  const stop = new AbortController()
  let calls = 0
  const ended = drainEvery(1, stop.signal, () => {
    calls++
    if (calls === 3) stop.abort()
  })
  expect(calls).toBe(1)
  await ended
  expect(calls).toBe(3)
})

test('it does not begin when it is stopped already', async () => {
  let calls = 0
  await drainEvery(1, AbortSignal.abort(), () => calls++)
  expect(calls).toBe(0)
})

test.each([1, 2])('an error in call %i ends it with that error', async (failing) => {
  let calls = 0
  const step = () => {
    calls++
    if (calls === failing) throw new Error('the kernel refused')
  }
  await expect(drainEvery(1, new AbortController().signal, step)).rejects.toThrow('the kernel refused')
  expect(calls).toBe(failing)
})
