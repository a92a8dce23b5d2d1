import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { FileRecord } from '../records.ts'
import { noFileCounts } from './discarded-events.ts'
import { decodeFileEvents } from './file-event-decoder.ts'

interface Look {
  readonly mode: number
  readonly links: number
  readonly target?: string | Buffer
}

function packed(mask: number, texts: readonly (string | Buffer)[], pid = 5, look?: Look): Buffer {
  const target = Buffer.from(look?.target ?? '')
  const parts = texts.map((text) => Buffer.from(text))
  const text = Buffer.concat([...parts, target])
  const bytes = Buffer.alloc((40 + text.length + 7) & ~7)
  bytes.writeUInt32LE(bytes.length, 0)
  bytes.writeUInt32LE(mask, 4)
  bytes.writeInt32LE(pid, 8)
  for (const [index, part] of parts.entries()) bytes.writeUInt16LE(part.length, 16 + 2 * index)
  if (look !== undefined) {
    bytes.writeUInt32LE(look.mode, 24)
    bytes.writeUInt32LE(look.links, 28)
    bytes.writeUInt16LE(target.length, 32)
    bytes.writeUInt16LE(1, 34)
  }
  text.copy(bytes, 40)
  return bytes
}

function decode(buffer: Buffer, excluded: readonly number[] = []) {
  const records: FileRecord[] = []
  const withoutPath = noFileCounts()
  const summary = decodeFileEvents(buffer, buffer.length, {
    timestampMs: 1,
    isExcluded: (pid) => excluded.includes(pid),
    add: (record) => records.push(record),
    withoutPath,
  })
  return {
    ...summary,
    withoutPath,
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

test.each([
  ['a file', { mode: 0o100644, links: 1 }, undefined],
  ['a second name', { mode: 0o100644, links: 2 }, { type: 'file', links: 2, target: null }],
  [
    'a symbolic link',
    { mode: 0o120777, links: 1, target: 'a\nb' },
    { type: 'symlink', links: 1, target: 'a\nb' },
  ],
  [
    'a symbolic link to bytes',
    { mode: 0o120777, links: 1, target: Buffer.from([0xff, 0x2f]) },
    { type: 'symlink', links: 1, target: new Uint8Array([0xff, 0x2f]) },
  ],
  ['a link that went', { mode: 0o120777, links: 1 }, { type: 'symlink', links: 1, target: null }],
  ['a FIFO', { mode: 0o010600, links: 1 }, { type: 'other', links: 1, target: null }],
  ['a device', { mode: 0o060600, links: 1 }, { type: 'other', links: 1, target: null }],
  ['what is gone', { mode: 0, links: 0 }, null],
])('what a new name leads to: %s', (_, look, names) => {
  expect(decode(packed(0x100, ['/d', 'f', '', ''], 5, look)).records.map((record) => record.names)).toEqual([
    names,
  ])
})

test.each([
  ['/d', 'f\ufffd', '/d/f\ufffd'],
  ['/d\ufffd', 'f', '/d\ufffd/f'],
  ['/', 'naïve 𝄞', '/naïve 𝄞'],
  ['/', Buffer.from([0xff]), new Uint8Array([0x2f, 0xff])],
  [Buffer.from([0x2f, 0xc3]), Buffer.from([0xa9]), new Uint8Array([0x2f, 0xc3, 0x2f, 0xa9])],
])('the text %j with %j is told as it is', (directory, name, path) => {
  expect(decode(packed(0x100, [directory, name])).records.map((record) => record.path)).toEqual([path])
})

test('overflow, folders without path and excluded processes are counted or left out', () => {
  const events = [
    packed(0x4000, [], 0),
    packed(0x108, ['', 'f']),
    packed(0x208, ['', 'f']),
    packed(0x1000_0000, ['', 'f', '', 'g']),
    packed(0x4000_0100, ['', 'folder']),
    packed(0x100, ['/d', 'f'], 7),
    packed(0x100, ['/d', 'g'], 0),
  ]
  const { overflowed, withoutPath, records } = decode(Buffer.concat(events), [7])
  expect(overflowed).toBe(true)
  expect(withoutPath).toEqual({ creation: 1, modification: 1, deletion: 1, rename: 1 })
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
