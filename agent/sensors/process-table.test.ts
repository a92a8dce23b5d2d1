import { expect, test } from 'vitest'
import { createProcessTable } from './process-table.ts'
import type { ProcessKey } from './records.ts'

const key = (pid: number, startTicks = pid * 10): ProcessKey => ({ pid, startTicks })

function setUp() {
  let nowMs = 1_000_000
  const table = createProcessTable({
    agentId: 'a'.repeat(32),
    bootId: '01234567-89ab-cdef-0123-456789abcdef',
    bootTimeMs: 0,
    clock: () => nowMs,
    readProcess: () => null,
  })
  return {
    table,
    fork: (pid: number, parent: number) =>
      table.fork({ kind: 'fork', timestampMs: nowMs, process: key(pid), parent: key(parent) }),
    exit: (pid: number) =>
      table.exit({ kind: 'exit', timestampMs: nowMs, process: key(pid), exitCode: 0, signal: null }),
    forgetExited() {
      nowMs += 60_000
      table.sweep()
    },
    descendants: (root: ProcessKey) => table.descendantsOf(root).map(({ pid }) => pid),
  }
}

test('a daemon that forked twice is found below its first ancestor, long after the ones between exited', () => {
  const { fork, exit, forgetExited, descendants } = setUp()
  fork(50, 1)
  fork(60, 50)
  fork(61, 60)
  exit(60)
  forgetExited()
  fork(62, 61)
  fork(70, 1)
  expect(descendants(key(50))).toEqual([61, 62])
  expect(descendants(key(61))).toEqual([62])
  expect(descendants(key(70))).toEqual([])
})

test('descendants of a root that has exited and was forgotten are still known', () => {
  const { fork, exit, forgetExited, descendants } = setUp()
  fork(50, 1)
  fork(60, 50)
  exit(50)
  forgetExited()
  expect(descendants(key(50))).toEqual([60])
})

test('who has exited is not told, nor is anybody of a process that only had the same pid', () => {
  const { fork, exit, descendants } = setUp()
  fork(50, 1)
  fork(60, 50)
  fork(61, 50)
  exit(61)
  expect(descendants(key(50))).toEqual([60])
  expect(descendants(key(50, 7))).toEqual([])
})

test('a table full of descendants gives a bounded answer', () => {
  const { fork, descendants } = setUp()
  fork(50, 1)
  for (let pid = 1_000; pid < 6_000; pid += 1) fork(pid, 50)
  expect(descendants(key(50))).toHaveLength(4_096)
})
