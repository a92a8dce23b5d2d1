import { Buffer } from 'node:buffer'
import { zstdCompressSync } from 'node:zlib'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { BATCH_BYTES_MAX, BATCH_ROWS_MAX, EVENT_BYTES_MAX, MESSAGE_BYTES_MAX } from '../protocol/limits.ts'
import { decodeBatch, encodeBatch, encodeBatchInPool } from './batch.ts'
import { CHAIN_START, chainHash, verifyChain } from './chain.ts'

const streamId = '0123456789abcdef0123456789abcdef'

function fieldsOf(bodies: readonly Uint8Array[]) {
  let last: Buffer = CHAIN_START
  for (const body of bodies) last = chainHash(last, body)
  return {
    streamId,
    class: 2,
    firstSequence: 1,
    previousHash: CHAIN_START.toString('hex'),
    lastHash: last.toString('hex'),
  }
}

function rows(bodies: readonly Uint8Array[]): Buffer {
  return Buffer.concat(
    bodies.map((body) => {
      const length = Buffer.alloc(4)
      length.writeUInt32BE(body.length)
      return Buffer.concat([length, body])
    }),
  )
}

function forged(header: string | object, payload: Uint8Array): Buffer {
  const text = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header))
  const length = Buffer.alloc(2)
  length.writeUInt16BE(text.length)
  return Buffer.concat([length, text, payload])
}

function headerOf(bodies: readonly Uint8Array[]) {
  const fields = fieldsOf(bodies)
  return {
    kind: 'eventBatch',
    streamId,
    class: 2,
    firstSequence: 1,
    rows: bodies.length,
    payloadBytes: rows(bodies).length,
    previousHash: fields.previousHash,
    lastHash: fields.lastHash,
  }
}

const sample = [Buffer.from('{"a":1}'), Buffer.from('{"b":"ü"}'), Buffer.from('x')]

test('a batch comes back byte for byte, whichever thread compressed it', async () => {
  const bodies = fc.array(fc.uint8Array({ minLength: 1, maxLength: 400 }), { minLength: 1, maxLength: 60 })
  await fc.assert(
    fc.asyncProperty(bodies, async (list) => {
      for (const bytes of [
        encodeBatch(fieldsOf(list), list),
        await encodeBatchInPool(fieldsOf(list), list),
      ]) {
        const decoded = decodeBatch(bytes)
        if (!decoded.ok) throw new Error(decoded.reason)
        expect(decoded.header).toEqual(headerOf(list))
        expect(Buffer.concat(decoded.bodies).equals(Buffer.concat(list))).toBe(true)
        expect(verifyChain(decoded.header, decoded.bodies)).toBe(true)
      }
    }),
    { numRuns: 50 },
  )
})

test('the largest batch of the contract passes and one byte more is a programming error', () => {
  const full = Array.from({ length: BATCH_ROWS_MAX }, () =>
    Buffer.alloc(Math.floor(BATCH_BYTES_MAX / BATCH_ROWS_MAX), 7),
  )
  expect(decodeBatch(encodeBatch(fieldsOf(full), full)).ok).toBe(true)
  const largest = [1, 2, 3, 4].map((byte) => Buffer.alloc(EVENT_BYTES_MAX, byte))
  expect(decodeBatch(encodeBatch(fieldsOf(largest), largest)).ok).toBe(true)
  expect(() => encodeBatch(fieldsOf([]), [])).toThrow(/rows/)
  expect(() => encodeBatch(fieldsOf(sample), [Buffer.alloc(EVENT_BYTES_MAX + 1)])).toThrow(/body/)
  expect(() => encodeBatch(fieldsOf(sample), [...largest, Buffer.alloc(1)])).toThrow(/bytes/)
})

test('a changed, left out or swapped body breaks the chain', () => {
  const header = fieldsOf(sample)
  const [first, second, third] = sample as [Buffer, Buffer, Buffer]
  expect(verifyChain(header, [first, second, third])).toBe(true)
  expect(verifyChain(header, [first, third, second])).toBe(false)
  expect(verifyChain(header, [first, second])).toBe(false)
  expect(verifyChain(header, [first, Buffer.from('{"b":"u"}'), third])).toBe(false)
})

test('mutated, cut and random frames never throw, and what passes keeps to its header', () => {
  const valid = encodeBatch(fieldsOf(sample), sample)
  const check = (bytes: Uint8Array) => {
    const decoded = decodeBatch(bytes)
    if (decoded.ok) {
      expect(decoded.bodies.length).toBe(decoded.header.rows)
      expect(rows(decoded.bodies).length).toBe(decoded.header.payloadBytes)
    } else expect(decoded.reason).not.toBe('')
  }
  const mutation = fc.array(fc.tuple(fc.nat(valid.length - 1), fc.integer({ min: 0, max: 255 })), {
    minLength: 1,
    maxLength: 6,
  })
  fc.assert(
    fc.property(mutation, (changes) => {
      const bytes = Buffer.from(valid)
      for (const [at, value] of changes) bytes[at] = value
      check(bytes)
    }),
    { numRuns: 3_000 },
  )
  fc.assert(fc.property(fc.uint8Array({ maxLength: 600 }), check), { numRuns: 1_000 })
  for (let length = 0; length < valid.length; length += 1) {
    expect(decodeBatch(valid.subarray(0, length)).ok).toBe(false)
  }
})

test.each([
  ['a second frame', Buffer.concat([zstdCompressSync(rows(sample)), zstdCompressSync(rows(sample))])],
  [
    'an empty second frame',
    Buffer.concat([zstdCompressSync(rows(sample)), zstdCompressSync(Buffer.alloc(0))]),
  ],
  [
    'a skippable frame',
    Buffer.concat([zstdCompressSync(rows(sample)), Buffer.from('502a4d1804000000aaaaaaaa', 'hex')]),
  ],
  ['stray bytes', Buffer.concat([zstdCompressSync(rows(sample)), Buffer.from('stray')])],
  ['one zero byte', Buffer.concat([zstdCompressSync(rows(sample)), Buffer.alloc(1)])],
])('%s after the payload is refused', (_name, payload) => {
  expect(decodeBatch(forged(headerOf(sample), zstdCompressSync(rows(sample)))).ok).toBe(true)
  expect(decodeBatch(forged(headerOf(sample), payload)).ok).toBe(false)
})

test('a payload cut into two frames that together have the right size is refused', () => {
  const all = rows(sample)
  const split = Buffer.concat([zstdCompressSync(all.subarray(0, 9)), zstdCompressSync(all.subarray(9))])
  expect(decodeBatch(forged(headerOf(sample), split)).ok).toBe(false)
})

test('a bomb is refused without being blown up', () => {
  const bomb = zstdCompressSync(Buffer.alloc(256 * 1024 ** 2))
  expect(bomb.length).toBeLessThan(MESSAGE_BYTES_MAX / 8)
  const before = process.memoryUsage()
  for (let i = 0; i < 20; i += 1) expect(decodeBatch(forged(headerOf(sample), bomb)).ok).toBe(false)
  const after = process.memoryUsage()
  expect(after.arrayBuffers - before.arrayBuffers).toBeLessThan(64 * 1024 ** 2)
})

test('a frame that asks its reader for a window larger than any payload is refused', () => {
  // Magic number; frame without its size; window of 2^n bytes; one last raw block of five bytes.
  const frameOf = (windowLog: number) =>
    Buffer.from(`28b52ffd00${((windowLog - 10) << 3).toString(16).padStart(2, '0')}2900000000000178`, 'hex')
  const header = headerOf([Buffer.from('x')])
  expect(decodeBatch(forged(header, frameOf(19))).ok).toBe(true)
  expect(decodeBatch(forged(header, frameOf(20))).ok).toBe(false)
  expect(decodeBatch(forged(header, frameOf(27))).ok).toBe(false)
})

const good = headerOf(sample)
const payload = zstdCompressSync(rows(sample))
test.each([
  ['an unknown field', JSON.stringify({ ...good, agentId: 'x' })],
  ['an unknown kind', JSON.stringify({ ...good, kind: 'eventbatch' })],
  ['a missing field', JSON.stringify({ ...good, lastHash: undefined })],
  ['a repeated key', JSON.stringify(good).replace('"class":2', '"class":1,"class":2')],
  ['a prototype', JSON.stringify(good).replace('"class":2', '"__proto__":{},"class":2')],
  ['another order', JSON.stringify(Object.fromEntries(Object.entries(good).reverse()))],
  ['blanks', ` ${JSON.stringify(good)}`],
  ['a byte order mark', `\uFEFF${JSON.stringify(good)}`],
  ['a sequence beyond the integers', JSON.stringify({ ...good, firstSequence: 2 ** 53 })],
  ['sequences that end beyond the integers', JSON.stringify({ ...good, firstSequence: 2 ** 53 - 1 })],
  ['a class that is none', JSON.stringify({ ...good, class: 4 })],
  ['more rows than there are', JSON.stringify({ ...good, rows: 4 })],
  ['fewer rows than there are', JSON.stringify({ ...good, rows: 2 })],
  ['too many rows', JSON.stringify({ ...good, rows: BATCH_ROWS_MAX + 1 })],
  ['a larger payload', JSON.stringify({ ...good, payloadBytes: good.payloadBytes + 1 })],
  ['a smaller payload', JSON.stringify({ ...good, payloadBytes: good.payloadBytes - 1 })],
  ['a payload past the limit', JSON.stringify({ ...good, payloadBytes: 2 ** 31 })],
  ['null', 'null'],
  ['deep nesting', '['.repeat(900)],
])('a header with %s is refused', (_name, header) => {
  expect(decodeBatch(forged(header, payload)).ok).toBe(false)
})

test('rows with wrong lengths are refused', () => {
  const wrong = (bytes: Buffer, rowCount: number) =>
    decodeBatch(forged({ ...good, rows: rowCount, payloadBytes: bytes.length }, zstdCompressSync(bytes)))
  expect(wrong(Buffer.from('0000000161ffffffff61', 'hex'), 2)).toMatchObject({
    ok: false,
    reason: expect.stringMatching(/large/),
  })
  expect(wrong(Buffer.from('00000000000000000161', 'hex'), 2)).toMatchObject({
    ok: false,
    reason: expect.stringMatching(/empty/),
  })
  expect(wrong(Buffer.from('000000096161', 'hex'), 1)).toMatchObject({
    ok: false,
    reason: expect.stringMatching(/past/),
  })
})
