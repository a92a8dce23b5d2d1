import { expect, test, vi } from 'vitest'
import { drainEvery } from './drain-timer.ts'

test('it calls at once and again, until it is told to stop', async () => {
  const stop = new AbortController()
  let calls = 0
  const ended = drainEvery(1, stop.signal, () => {
    calls++
    if (calls === 3) stop.abort()
    return true
  })
  expect(calls).toBe(1)
  await ended
  expect(calls).toBe(3)
})

test('it does not begin when it is stopped already', async () => {
  let calls = 0
  await drainEvery(1, AbortSignal.abort(), () => {
    calls++
    return false
  })
  expect(calls).toBe(0)
})

test.each([1, 2])('an error in call %i ends it with that error', async (failing) => {
  let calls = 0
  const step = () => {
    calls++
    if (calls === failing) throw new Error('the kernel refused')
    return false
  }
  await expect(drainEvery(1, new AbortController().signal, step)).rejects.toThrow('the kernel refused')
  expect(calls).toBe(failing)
})

test('a quiet source is looked at less often, and a busy one again as often as before', async () => {
  vi.useFakeTimers()
  try {
    vi.advanceTimersByTime(7)
    const stop = new AbortController()
    const looks: number[] = []
    let isBusy = false
    const ended = drainEvery(25, stop.signal, () => {
      looks.push(performance.now())
      return isBusy
    })
    await vi.advanceTimersByTimeAsync(400)
    // On multiples of the interval, then of three times the interval.
    expect(looks).toEqual([7, 25, 75, 150, 225, 300, 375])
    isBusy = true
    await vi.advanceTimersByTimeAsync(120)
    expect(looks.slice(7)).toEqual([450, 475, 500, 525])
    stop.abort()
    await ended
  } finally {
    vi.useRealTimers()
  }
})

test('with a bell, a quiet source is looked at when it rings, and seldom without', async () => {
  vi.useFakeTimers()
  try {
    const stop = new AbortController()
    const looks: number[] = []
    let isBusy = false
    let ring = () => {}
    let armed = 0
    const bell = {
      start: (onRing: () => void) => {
        ring = onRing
      },
      arm: () => {
        armed++
      },
    }
    const step = () => {
      looks.push(performance.now())
      return isBusy
    }
    const ended = drainEvery(25, stop.signal, step, bell)
    await vi.advanceTimersByTimeAsync(700)
    expect(looks).toEqual([0, 25, 300, 600])
    expect(armed).toBe(3)
    isBusy = true
    ring()
    isBusy = false
    await vi.advanceTimersByTimeAsync(120)
    // At once, and then until nothing came twice.
    expect(looks.slice(4)).toEqual([700, 725, 750])
    expect(armed).toBe(4)
    stop.abort()
    ring()
    await vi.advanceTimersByTimeAsync(700)
    expect(looks).toHaveLength(7)
    await ended
  } finally {
    vi.useRealTimers()
  }
})

test('an error in a look that the bell asked for ends it with that error', async () => {
  let ring = () => {}
  let calls = 0
  const step = () => {
    if (++calls === 2) throw new Error('the kernel refused')
    return false
  }
  const bell = {
    start: (onRing: () => void) => {
      ring = onRing
    },
    arm: () => {},
  }
  const ended = drainEvery(1_000, new AbortController().signal, step, bell)
  ring()
  await expect(ended).rejects.toThrow('the kernel refused')
})

test('two sources with one interval are looked at in the same wake-up', async () => {
  vi.useFakeTimers()
  try {
    const stop = new AbortController()
    const looks: number[] = []
    const look = () => {
      looks.push(performance.now())
      return true
    }
    const first = drainEvery(25, stop.signal, look)
    vi.advanceTimersByTime(11)
    const second = drainEvery(25, stop.signal, look)
    await vi.advanceTimersByTimeAsync(40)
    expect(looks).toEqual([0, 11, 25, 25, 50, 50])
    stop.abort()
    await Promise.all([first, second])
  } finally {
    vi.useRealTimers()
  }
})
