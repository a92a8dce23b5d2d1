import { expect, test } from 'vitest'
import { decodeProcessEvent, type ProcessEvent, subscriptionMessage } from './process-events.ts'
import { createProcessLives, type ProcessState } from './process-lives.ts'
import { createSequenceGaps } from './sequence-gaps.ts'

const base = { cpu: 0, sequence: 0, timestampNs: 5_000_000_000 }
const fork = (pid: number, parentPid: number, thread = pid) =>
  ({ ...base, kind: 'fork', pid, thread, parentPid }) as const
const exit = (pid: number, status: number, thread = pid) =>
  ({ ...base, kind: 'exit', pid, thread, status }) as const
const exec = (pid: number) => ({ ...base, kind: 'exec', pid }) as const

/** The states that /proc would tell, changed by the test as it goes. */
function livesOver(found: Map<number, ProcessState>) {
  return createProcessLives({ readStat: (pid) => found.get(pid) ?? null, listStats: () => found }, (ns) =>
    Math.floor(ns / 10_000_000),
  )
}
const state = (startTicks: number, threads = 1): ProcessState => ({
  startTicks,
  threads,
  parentPid: 1,
  sessionId: 1,
})

test('a process gets its start time from /proc, and from its fork when it is gone', () => {
  const lives = livesOver(new Map([[10, state(77)]]))
  expect(lives.fork(fork(10, 1), true)).toEqual({ pid: 10, startTicks: 77 })
  expect(lives.fork(fork(11, 10), true)).toEqual({ pid: 11, startTicks: 500 })
  expect(lives.parentOf(11)).toEqual({ pid: 10, startTicks: 77 })
  expect(lives.exit(exit(11, 0x300))).toEqual({ key: { pid: 11, startTicks: 500 }, status: 0x300 })
  // What is told of it afterwards still finds its name.
  expect(lives.keyOf(11)).toEqual({ pid: 11, startTicks: 500 })
  expect(lives.exit(exit(11, 0))).toBeNull()
})

test('a thread is no process, and a process is over with its last thread', () => {
  const found = new Map([[10, state(1)]])
  const lives = livesOver(found)
  lives.fork(fork(10, 1), true)
  expect(lives.fork(fork(10, 1, 12), true)).toBeNull()
  found.set(10, state(1, 2))
  expect(lives.exit(exit(10, 0))).toBeNull()
  expect(lives.exit(exit(10, 0x500, 12))).toEqual({ key: { pid: 10, startTicks: 1 }, status: 0x500 })
})

test('a count of threads that a loss made wrong does not keep a process alive', () => {
  const found = new Map([[10, state(1)]])
  const lives = livesOver(found)
  lives.fork(fork(10, 1), true)
  lives.fork(fork(10, 1, 12), true)
  // The exit of the thread was lost, and /proc knows no such process any more.
  found.delete(10)
  expect(lives.exit(exit(10, 9))).toEqual({ key: { pid: 10, startTicks: 1 }, status: 9 })
})

test('an exec by a thread that is not the leader does not end the process', () => {
  const found = new Map([[10, state(1, 2)]])
  const lives = livesOver(found)
  lives.load()
  expect(lives.exit(exit(10, 9))).toBeNull()
  expect(lives.exec(exec(10))).toEqual({ pid: 10, startTicks: 1 })
  found.set(10, state(1, 1))
  expect(lives.exit(exit(10, 0x200))).toEqual({ key: { pid: 10, startTicks: 1 }, status: 0x200 })
})

test('sessions are inherited and begun', () => {
  const lives = livesOver(new Map([[5, { ...state(1), sessionId: 5 }]]))
  lives.load()
  lives.fork(fork(10, 5), false)
  expect(lives.sessionOf(10)).toBe(5)
  lives.beginSession(10)
  lives.fork(fork(11, 10), false)
  expect(lives.sessionOf(11)).toBe(10)
  expect(lives.sessionOf(404)).toBe(0)
})

test('the threads of the kernel are no processes', () => {
  expect(livesOver(new Map()).fork(fork(10, 2), true)).toBeNull()
})

test('a storm of forks that never end does not grow without bound', () => {
  const lives = livesOver(new Map())
  for (let pid = 3; pid < 70_003; pid++) lives.fork(fork(pid, 1), false)
  expect(lives.size()).toBe(65_536)
  expect(lives.keyOf(3)).toBeNull()
})

test('missing numbers of each cpu are counted, and a counter that begins anew is no loss', () => {
  const gaps = createSequenceGaps()
  const counts = [
    gaps.add(0, 4_294_967_294),
    gaps.add(1, 10),
    gaps.add(0, 4_294_967_295),
    gaps.add(0, 2),
    gaps.add(1, 14),
    gaps.add(1, 3),
    gaps.add(1, 4),
    gaps.add(0xffff_ffff, 7),
    gaps.add(0xffff_ffff, 99),
  ]
  expect(counts).toEqual([0, 0, 0, 2, 3, 0, 0, 0, 0])
})

test('events are decoded as the kernel lays them out', () => {
  const payload = Buffer.alloc(60)
  payload.writeUInt32LE(1, 0)
  payload.writeUInt32LE(1, 4)
  payload.writeUInt32LE(42, 8)
  payload.writeUInt32LE(0x8000_0000, 20)
  payload.writeUInt32LE(1, 24)
  payload.writeBigUInt64LE(123_456_789_012n, 28)
  payload.writeUInt32LE(301, 36)
  payload.writeUInt32LE(300, 40)
  payload.writeUInt32LE(0x100, 44)
  const expected: ProcessEvent = {
    kind: 'exit',
    cpu: 1,
    sequence: 42,
    timestampNs: 123_456_789_012,
    pid: 300,
    thread: 301,
    status: 0x100,
  }
  expect(decodeProcessEvent(payload)).toEqual(expected)
  expect(subscriptionMessage(true, 5)).toHaveLength(40)
})

test('hostile bytes are no events and never throw', () => {
  for (let length = 0; length < 80; length++) {
    const zeros = Buffer.alloc(length)
    const ones = Buffer.alloc(length, 0xff)
    expect(decodeProcessEvent(zeros)).toBeNull()
    expect(decodeProcessEvent(ones)).toBeNull()
    if (length >= 8) {
      zeros.writeUInt32LE(1, 0)
      zeros.writeUInt32LE(1, 4)
      const kind = decodeProcessEvent(zeros)?.kind
      expect([undefined, 'acknowledgement']).toContain(kind)
    }
  }
})
