import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { FileRecord } from '../records.ts'
import { decodeFileEvents } from './file-event-decoder.ts'

function packed(mask: number, texts: readonly (string | Buffer)[], pid = 5): Buffer {
  const parts = texts.map((text) => Buffer.from(text))
  const text = Buffer.concat(parts)
  const bytes = Buffer.alloc((24 + text.length + 7) & ~7)
  bytes.writeUInt32LE(bytes.length, 0)
  bytes.writeUInt32LE(mask, 4)
  bytes.writeInt32LE(pid, 8)
  for (const [index, part] of parts.entries()) bytes.writeUInt16LE(part.length, 16 + 2 * index)
  text.copy(bytes, 24)
  return bytes
}

function decode(buffer: Buffer, excluded: readonly number[] = []) {
  const records: FileRecord[] = []
  const summary = decodeFileEvents(buffer, buffer.length, {
    timestampMs: 1,
    isExcluded: (pid) => excluded.includes(pid),
    add: (record) => records.push(record),
  })
  return {
    ...summary,
    records,
    actions: records.map((record) => [record.action, record.path, record.contentComplete]),
  }
}

test.each([
  [0x100, [['creation', '/d/f', false]]],
  [0x8, [['modification', '/d/f', true]]],
  [0x108, [['creation', '/d/f', true]]],
  [0x80, [['rename', '/d/f', false]]],
  [0x200, [['deletion', '/d/f', false]]],
  [
    0x308,
    [
      ['creation', '/d/f', true],
      ['deletion', '/d/f', false],
    ],
  ],
  [
    0x208,
    [
      ['modification', '/d/f', true],
      ['deletion', '/d/f', false],
    ],
  ],
  [0x4000_0100, []],
  [0x4000_0200, []],
  [0x4000_0080, [['rename', '/d/f', false]]],
])('mask %i is %o', (mask, actions) => {
  expect(decode(packed(mask, ['/d', 'f'])).actions).toEqual(actions)
})

test('a rename has the old path when both of its parts are known', () => {
  const whole = packed(0x1000_0000, ['/', 'new', '/old', 'name'])
  const half = packed(0x1000_0000, ['/', 'new', '', 'name'])
  expect(decode(Buffer.concat([whole, half])).records).toMatchObject([
    { path: '/new', previousPath: '/old/name' },
    { path: '/new', previousPath: null },
  ])
})

test('overflow, folders without path and excluded processes are counted or left out', () => {
  const events = [
    packed(0x4000, [], 0),
    packed(0x100, ['', 'f']),
    packed(0x100, ['/d', 'f'], 7),
    packed(0x100, ['/d', 'g'], 0),
  ]
  const { overflowed, withoutPath, records } = decode(Buffer.concat(events), [7])
  expect({ overflowed, withoutPath }).toEqual({ overflowed: true, withoutPath: 1 })
  expect(records).toMatchObject([{ path: '/d/g', pid: null }])
})

test('what does not hold together ends the batch, and what came before is kept', () => {
  const wrong = packed(0x100, ['/d', 'f'])
  wrong.writeUInt16LE(60_000, 18)
  const { records, whole } = decode(
    Buffer.concat([packed(0x100, ['/d', 'f']), wrong, packed(0x100, ['/d', 'f'])]),
  )
  expect([records.length, whole]).toEqual([1, false])
})

test('no bytes make the decoder throw', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(60), fc.nat(255), (tail, at, byte) => {
      const bytes = Buffer.concat([packed(0x100, ['/d', 'f']), Buffer.from(tail)])
      bytes[at % bytes.length] = byte
      decode(bytes)
    }),
    { numRuns: 2_000 },
  )
})
