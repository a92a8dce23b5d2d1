import { expect, test } from 'vitest'
import { aborted, pause, runEvery, runTogether } from './loop.ts'

test('steps never overlap, and an abort during the pause ends the loop without an error', async () => {
  const stop = new AbortController()
  let running = 0
  let steps = 0
  await runEvery(1, stop.signal, async () => {
    running += 1
    expect(running).toBe(1)
    await pause(2, stop.signal)
    running -= 1
    steps += 1
    if (steps === 3) stop.abort()
  })
  expect(steps).toBe(3)
})

test('a step that throws ends the loop with its error', async () => {
  const stop = new AbortController()
  await expect(
    runEvery(1, stop.signal, () => {
      throw new Error('broken step')
    }),
  ).rejects.toThrow('broken step')
})

test('a task that fails stops the rest and its error comes out', async () => {
  const stop = new AbortController()
  let stopped = false
  await expect(
    runTogether(stop.signal, [
      async (signal) => {
        await aborted(signal)
        stopped = true
      },
      async () => {
        throw new Error('sensor died')
      },
    ]),
  ).rejects.toThrow('sensor died')
  expect(stopped).toBe(true)
})

test('a task that ends unasked is a failure that names it', async () => {
  const stop = new AbortController()
  await expect(runTogether(stop.signal, [aborted, async function processSensor() {}])).rejects.toThrow(
    'processSensor ended unasked',
  )
})

test('tasks that end after the abort are a clean stop', async () => {
  const stop = new AbortController()
  const all = runTogether(stop.signal, [aborted, aborted])
  stop.abort()
  await expect(all).resolves.toBeUndefined()
})
