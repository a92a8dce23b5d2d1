import { expect, test } from 'vitest'
import type { ScanTarget } from './open-target.ts'
import { createScanQueue } from './scan-queue.ts'

const target = (path: string, why: ScanTarget['why'] = 'written'): ScanTarget => ({
  path,
  identity: null,
  why,
  pid: null,
})
const listener = () => undefined

function queueOf(
  ...jobs: readonly (readonly [path: string, restsUntilMs: number, why?: ScanTarget['why']])[]
) {
  const queue = createScanQueue(3)
  for (const [path, restsUntilMs, why] of jobs)
    queue.add(path, target(path, why), listener, { nowMs: 0, restsUntilMs })
  return queue
}

test('new files come before files that rest, and these before what was asked for', () => {
  const queue = queueOf(['asked', 0, 'asked'], ['log', 500], ['new', 0])
  expect([queue.take(1_000)?.key, queue.take(1_000)?.key, queue.take(1_000)?.key]).toEqual([
    'new',
    'log',
    'asked',
  ])
})

test('a file that rests is not taken before its time, and the time is told', () => {
  const queue = queueOf(['log', 500], ['database', 300])
  expect(queue.nextDueMs()).toBe(300)
  expect(queue.take(200)).toBeNull()
  expect(queue.take(300)?.key).toBe('database')
  expect(queue.take(499)).toBeNull()
  expect(queue.take(500)?.key).toBe('log')
  expect(queue.nextDueMs()).toBe(Number.POSITIVE_INFINITY)
})

test('a file that is written again while it rests waits once, for all who want to know', () => {
  const queue = queueOf(['log', 500], ['log', 500])
  expect(queue.size).toBe(1)
  expect(queue.take(500)?.listeners).toHaveLength(2)
})

test('resting files have a bound of their own and cannot push out new ones', () => {
  const queue = queueOf(['new', 0], ['a', 1], ['b', 1], ['c', 1])
  expect(queue.add('d', target('d'), listener, { nowMs: 0, restsUntilMs: 1 }).map((job) => job.key)).toEqual([
    'a',
  ])
  expect(queue.take(0)?.key).toBe('new')
})

test('programs that are run come before files that were written earlier, and that one waits is told', () => {
  const queue = queueOf(['new', 0], ['program', 0, 'executed'])
  expect(queue.hasExecuted).toBe(true)
  expect(queue.take(0)?.key).toBe('program')
  expect(queue.hasExecuted).toBe(false)
  expect(queue.take(0)?.key).toBe('new')
})

test('how long the oldest waits counts from when it may be taken', () => {
  const queue = queueOf(['log', 500])
  expect(queue.oldestWaitMs(400)).toBe(0)
  expect(queue.oldestWaitMs(700)).toBe(200)
  queue.add('new', target('new'), listener, { nowMs: 300, restsUntilMs: 0 })
  expect(queue.oldestWaitMs(700)).toBe(400)
  expect(queue.takeAll()).toHaveLength(2)
  expect(queue.oldestWaitMs(700)).toBe(0)
})
