import { expect, test } from 'vitest'
import { addressText } from '../address-text.ts'
import type { ConnectRecord } from '../records.ts'
import { type ConnectionObservation, createConnectionOutcomes } from './connection-outcomes.ts'

function observation(socket: number, changes: Partial<ConnectionObservation> = {}): ConnectionObservation {
  return {
    stage: 'attempt',
    connected: false,
    attemptTold: true,
    socket,
    attemptedNs: 100,
    timestampMs: 1,
    process: { pid: socket, startTicks: 1 },
    family: 2,
    sourcePort: 0,
    destinationPort: 443,
    addresses: Buffer.alloc(32),
    ...changes,
  }
}

function collect(pendingMax = 10) {
  const records: ConnectRecord[] = []
  const outcomes = createConnectionOutcomes({
    add: (record) => records.push(record),
    pendingMax,
    waitNs: 1_000,
  })
  return { outcomes, told: () => records.map((record) => [record.process.pid, record.outcome]) }
}

test('an attempt waits for its outcome, and both are one record', () => {
  const { outcomes, told } = collect()
  outcomes.add(observation(1))
  outcomes.add(observation(2))
  outcomes.add(observation(2, { stage: 'outcome' }))
  outcomes.add(observation(1, { stage: 'outcome', connected: true }))
  outcomes.tellAll()
  expect(told()).toEqual([
    [2, 'failure'],
    [1, 'success'],
  ])
})

test('an attempt without outcome is told as unknown after its time, and its late outcome is not told again', () => {
  const { outcomes, told } = collect()
  outcomes.add(observation(1))
  outcomes.add(observation(2, { attemptedNs: 500 }))
  outcomes.tellOverdue(1_099)
  expect(told()).toEqual([])
  outcomes.tellOverdue(1_100)
  outcomes.add(observation(1, { stage: 'outcome', connected: true }))
  expect(told()).toEqual([[1, 'unknown']])
})

test('an outcome whose attempt was lost on the way is told by itself', () => {
  const { outcomes, told } = collect()
  outcomes.add(observation(1, { stage: 'outcome', attemptTold: false, connected: true }))
  expect(told()).toEqual([[1, 'success']])
})

test('past the bound, attempts are told at once as unknown', () => {
  const { outcomes, told } = collect(2)
  for (const socket of [1, 2, 3]) outcomes.add(observation(socket))
  expect(told()).toEqual([[3, 'unknown']])
})

test('a socket address that is used again is another connection', () => {
  const { outcomes, told } = collect()
  outcomes.add(observation(1))
  outcomes.add(observation(1, { attemptedNs: 200, process: { pid: 9, startTicks: 1 } }))
  outcomes.add(observation(1, { stage: 'outcome', attemptedNs: 100 }))
  outcomes.add(observation(1, { stage: 'outcome', attemptedNs: 200, process: { pid: 9, startTicks: 1 } }))
  expect(told()).toEqual([
    [1, 'unknown'],
    [9, 'failure'],
  ])
})

test.each([
  ['20010db8000000000000000000000001', '2001:db8::1'],
  ['20010db8000000010001000100010001', '2001:db8:0:1:1:1:1:1'],
  ['20010000000000010000000000000001', '2001:0:0:1::1'],
  ['20010db8000000000001000000000001', '2001:db8::1:0:0:1'],
  ['00000000000000000000000000000000', '::'],
  ['fe800000000000000000000000000000', 'fe80::'],
  ['00000000000000000000ffffc0000201', '192.0.2.1'],
])('%s is %s, as RFC 5952 writes it', (hex, text) => {
  expect(addressText(10, Buffer.from(hex, 'hex'))).toBe(text)
})
