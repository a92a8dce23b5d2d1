import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { SensorRecord } from '../records.ts'
import type { ConnectionObservation } from './connection-outcomes.ts'
import type { ScriptChunk } from './raw-activity.ts'
import { decodeRecords } from './record-decoder.ts'

function decode(buffer: Buffer, length = buffer.length) {
  const records: SensorRecord[] = []
  const connections: ConnectionObservation[] = []
  const scripts: ScriptChunk[] = []
  const batch = decodeRecords(buffer, length, {
    wallOffsetMs: 1_000,
    add: (record) => records.push(record),
    addConnection: (observation) => connections.push(observation),
    addActivity: (record) => records.push(record),
    addScript: (chunk) => scripts.push(chunk),
    translatePid: () => null,
    hostNamespaces: {},
  })
  return { records, connections, scripts, whole: batch.whole }
}

function header(kind: number, length: number, flagBits = 0): Buffer {
  const bytes = Buffer.alloc((length + 7) & ~7)
  bytes.writeUInt32LE(length, 0)
  bytes[4] = kind
  bytes[5] = flagBits
  bytes.writeBigUInt64LE(5_000_000n, 8)
  bytes.writeUInt32LE(42, 16)
  bytes.writeUInt32LE(7, 20)
  bytes.writeBigUInt64LE(2n ** 33n, 24)
  bytes.writeBigUInt64LE(99n, 32)
  return bytes
}

function execRecord(list: Buffer, executable: Buffer, directory: Buffer): Buffer {
  const bytes = header(1, 176 + list.length + executable.length + directory.length)
  bytes.writeUInt32LE(list.length, 52)
  bytes.writeUInt16LE(executable.length, 88)
  bytes.writeUInt16LE(directory.length, 90)
  Buffer.concat([list, executable, directory]).copy(bytes, 176)
  return bytes
}

const fork = header(3, 40)
const exit = (status: number) => {
  const bytes = header(2, 48)
  bytes.writeUInt32LE(status, 40)
  return bytes
}

test('numbers past 32 bits and the time of a record are exact', () => {
  expect(decode(fork).records).toEqual([
    {
      kind: 'fork',
      timestampMs: 1_005,
      process: { pid: 42, startTicks: 2 ** 33 },
      parent: { pid: 7, startTicks: 99 },
    },
  ])
})

test('a status of wait(2) is an exit code, or a signal with or without a core', () => {
  const { records } = decode(Buffer.concat([exit(0x0300), exit(9), exit(0x8b)]))
  expect(records).toMatchObject([
    { exitCode: 3, signal: null },
    { exitCode: null, signal: 9 },
    { exitCode: null, signal: 11 },
  ])
})

test('text is taken apart alike whether all of it is ASCII or not', () => {
  const directory = Buffer.from('/home')
  const ascii = execRecord(Buffer.from('a\0\0b\0'), Buffer.from('/bin/a'), directory)
  const unicode = execRecord(Buffer.from('a\0\0b\0'), Buffer.from('/bin/ä'), directory)
  const none = execRecord(Buffer.alloc(0), Buffer.from('/bin/a'), directory)
  const cut = execRecord(Buffer.from('a\0bc'), Buffer.from('/bin/a'), directory)
  const { records, whole } = decode(Buffer.concat([ascii, unicode, none, cut]))
  expect(whole).toBe(true)
  expect(records).toMatchObject([
    { arguments: ['a', '', 'b'], executable: '/bin/a', workingDirectory: '/home', file: null },
    { arguments: ['a', '', 'b'], executable: '/bin/ä', workingDirectory: '/home' },
    { arguments: [] },
    { arguments: ['a', 'bc'] },
  ])
})

test('what came before a broken record is kept, and the rest is called unreadable', () => {
  const tooLong = header(3, 40)
  tooLong.writeUInt32LE(4_000, 0)
  const wrongSum = execRecord(Buffer.from('a\0'), Buffer.from('/a'), Buffer.from('/'))
  wrongSum.writeUInt32LE(2_000_000_000, 52)
  for (const broken of [tooLong, wrongSum, header(9, 40), header(2, 40), header(4, 40), Buffer.alloc(40)]) {
    const { records, whole } = decode(Buffer.concat([fork, broken, fork]))
    expect([records.length, whole]).toEqual([1, false])
  }
})

test('bytes past the given length are not read', () => {
  const both = Buffer.concat([fork, fork])
  expect(decode(both, 40).records).toHaveLength(1)
  expect(decode(both, 79)).toMatchObject({ whole: false, records: [{}] })
  expect(decode(both, 1_000).records).toHaveLength(2)
})

test('no bytes make the decoder throw', () => {
  const start = fc.constantFrom(
    fork,
    exit(1),
    execRecord(Buffer.from('a\0'), Buffer.from('/a'), Buffer.from('/')),
  )
  fc.assert(
    fc.property(
      start,
      fc.uint8Array({ maxLength: 300 }),
      fc.nat(120),
      fc.nat(255),
      (record, tail, at, byte) => {
        const bytes = Buffer.concat([record, tail])
        bytes[at % bytes.length] = byte
        decode(bytes)
      },
    ),
    { numRuns: 2_000 },
  )
})
