import { expect, test } from 'vitest'
import { type AuditEvent, createAssembly, RECORD_TYPES } from './assembly.ts'
import { createOrdering } from './ordering.ts'

function assemble(inFlightMax = 8) {
  const events: AuditEvent[] = []
  let nowMs = 1_000
  const assembly = createAssembly({ add: (event) => events.push(event), nowMs: () => nowMs, inFlightMax })
  const record = (serial: number, body = '', type: number = RECORD_TYPES.systemCall) =>
    assembly.add(type, Buffer.from(`audit(1700000000.000:${serial}): ${body}`))
  return {
    assembly,
    record,
    end: (serial: number) => record(serial, '', RECORD_TYPES.endOfEvent),
    serials: () => events.map(({ serial }) => serial),
    events,
    pass: (ms: number) => {
      nowMs += ms
    },
  }
}

test('records of several events that come mixed are joined by their serial', () => {
  const { record, end, events } = assemble()
  record(1, 'pid=1')
  record(2, 'pid=2')
  record(1, 'cwd="/"', RECORD_TYPES.workingDirectory)
  record(2, 'argc=1 a0="x"', RECORD_TYPES.execve)
  end(2)
  end(1)
  expect(events.map(({ serial, records }) => [serial, records.length])).toEqual([
    [2, 1],
    [1, 2],
  ])
  expect(events[0]?.arguments?.result().arguments).toEqual(['x'])
})

test('an event without an end is told after its time', () => {
  const { assembly, record, serials, pass } = assemble()
  record(1)
  pass(1_999)
  assembly.settle()
  expect(serials()).toEqual([])
  pass(1)
  assembly.settle()
  expect(serials()).toEqual([1])
})

test('past the bound, the oldest event is told as it is', () => {
  const { record, serials } = assemble(2)
  for (const serial of [1, 2, 3]) record(serial)
  expect(serials()).toEqual([1])
})

test('a message of a program is an event by itself', () => {
  const { record, serials } = assemble()
  record(5, `pid=1 msg='op=login res=success'`, 1112)
  expect(serials()).toEqual([5])
})

test('serials that never come are counted once, those that come late are not', () => {
  const { assembly, record, pass } = assemble()
  record(10)
  record(14)
  record(12)
  expect(assembly.settle()).toBe(0)
  pass(2_001)
  expect(assembly.settle()).toBe(2)
  expect(assembly.settle()).toBe(0)
  record(16)
  expect(assembly.finish()).toBe(1)
})

test('a serial far away is a counter that began anew, and a storm of gaps is bounded', () => {
  const { assembly, record, pass } = assemble()
  record(4_000_000_000)
  record(1)
  record(900_001)
  pass(3_000)
  expect(assembly.settle()).toBe(899_999)
})

test.each(['', 'audit', 'audit(1.000:1', '\0\0\0', 'type=SYSCALL'])(
  'hostile record %j is refused',
  (text) => {
    const { assembly, serials } = assemble()
    expect(assembly.add(RECORD_TYPES.systemCall, Buffer.from(text))).toBe(false)
    assembly.finish()
    expect(serials()).toEqual([])
  },
)

test('an event takes only so many records', () => {
  const { record, end, events } = assemble()
  for (let count = 0; count < 10_000; count++) record(1, 'name="x"', RECORD_TYPES.path)
  end(1)
  expect(events[0]?.records).toHaveLength(32)
})

test('an exec is told after its fork and before its exit, though the clock of audit lags', () => {
  const ordering = createOrdering()
  const process = { pid: 5, startTicks: 1 }
  const at = (timestampMs: number) => ({ timestampMs, process })
  ordering.addProcessEvent({ kind: 'fork', ...at(100), parent: { pid: 1, startTicks: 1 } })
  ordering.addProcessEvent({ kind: 'exit', ...at(101), exitCode: 0, signal: null })
  expect(ordering.release(99)).toEqual([])
  ordering.addObserved({ kind: 'memory-file', ...at(97), name: 'x', flags: 0 })
  expect(ordering.release(200).map(({ kind, timestampMs }) => [kind, timestampMs])).toEqual([
    ['fork', 100],
    ['memory-file', 100],
    ['exit', 101],
  ])
})

test('what comes after an exec waits for audit to tell it, for a bounded time', () => {
  const ordering = createOrdering()
  const exit = (pid: number, timestampMs: number) =>
    ({ kind: 'exit', timestampMs, process: { pid, startTicks: 1 }, exitCode: 0, signal: null }) as const
  ordering.expectExec(5, 100)
  ordering.addProcessEvent(exit(4, 99))
  ordering.addProcessEvent(exit(5, 101))
  expect(ordering.release(300)).toEqual([exit(4, 99)])
  expect(ordering.release(599)).toEqual([])
  expect(ordering.release(600)).toEqual([exit(5, 101)])
})

test('what waits is bounded: past it, everything is released', () => {
  const ordering = createOrdering()
  for (let pid = 1; pid <= 16_385; pid++) {
    ordering.addProcessEvent({
      kind: 'exit',
      timestampMs: 1_000,
      process: { pid, startTicks: 1 },
      exitCode: 0,
      signal: null,
    })
  }
  expect(ordering.release(0)).toHaveLength(16_385)
})
