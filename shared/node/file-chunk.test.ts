import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { FILE_CHUNK_BYTES_MAX } from '../protocol/limits.ts'
import { encodeBatch } from './batch.ts'
import { decodeFileChunk, encodeFileChunk, isFileChunk, isWhole } from './file-chunk.ts'

const commandId = 'ab'.repeat(16)
const hash = '0'.repeat(64)

test('any piece comes back as it was, and is told from a batch', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uint8Array({ minLength: 1, maxLength: 5_000 }),
      fc.integer({ min: 0, max: 2 ** 33 }),
      async (payload, offset) => {
        const frame = await encodeFileChunk({ commandId, offset }, payload)
        expect(isFileChunk(frame)).toBe(true)
        const decoded = decodeFileChunk(frame)
        expect(decoded).toMatchObject({
          ok: true,
          header: { commandId, offset, payloadBytes: payload.length },
        })
        expect(decoded.ok && decoded.payload.equals(payload) && isWhole(decoded.header, payload)).toBe(true)
      },
    ),
    { numRuns: 60 },
  )
  const batch = { streamId: commandId, class: 2, firstSequence: 1, previousHash: hash, lastHash: hash }
  expect(isFileChunk(encodeBatch(batch, [Buffer.from('{}')]))).toBe(false)
})

test('the largest piece passes, empty and larger ones are not made', async () => {
  const largest = randomBytes(FILE_CHUNK_BYTES_MAX)
  const decoded = decodeFileChunk(await encodeFileChunk({ commandId, offset: 0 }, largest))
  expect(decoded.ok && decoded.payload.equals(largest)).toBe(true)
  await expect(encodeFileChunk({ commandId, offset: 0 }, Buffer.alloc(0))).rejects.toThrow(RangeError)
  await expect(
    encodeFileChunk({ commandId, offset: 0 }, Buffer.alloc(FILE_CHUNK_BYTES_MAX + 1)),
  ).rejects.toThrow()
})

test('whatever bytes come, nothing throws and nothing but a whole frame passes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), (bytes) => {
      expect(decodeFileChunk(bytes).ok).toBe(false)
      isFileChunk(bytes)
    }),
    { numRuns: 500 },
  )
})

test('a changed byte anywhere is refused, or changes nothing that is believed', async () => {
  const payload = randomBytes(900)
  const frame = await encodeFileChunk({ commandId, offset: 7 }, payload)
  fc.assert(
    fc.property(fc.nat(frame.length - 1), fc.integer({ min: 1, max: 255 }), (index, change) => {
      const changed = Buffer.from(frame)
      changed[index] = (changed[index] ?? 0) ^ change
      const decoded = decodeFileChunk(changed)
      // Offset and command are not under the hash: they are held against what was offered.
      if (decoded.ok && isWhole(decoded.header, decoded.payload)) {
        expect(decoded.payload.equals(payload)).toBe(true)
      }
    }),
    { numRuns: 500 },
  )
})

test.each([
  ['cut short', (frame: Buffer) => frame.subarray(0, frame.length - 1)],
  ['followed by more', (frame: Buffer) => Buffer.concat([frame, Buffer.from('x')])],
  [
    'with the frame twice',
    (frame: Buffer) => Buffer.concat([frame, frame.subarray(2 + frame.readUInt16BE(0))]),
  ],
  [
    'with a header that claims more',
    (frame: Buffer) => Buffer.concat([Buffer.from([0xff, 0xff]), frame.subarray(2)]),
  ],
])('a frame %s is refused', async (_what, change) => {
  const frame = await encodeFileChunk({ commandId, offset: 0 }, randomBytes(300))
  expect(decodeFileChunk(change(frame)).ok).toBe(false)
})

test('a payload that unpacks to more than its header says is stopped there', async () => {
  const frame = await encodeFileChunk({ commandId, offset: 0 }, Buffer.alloc(200_000))
  const text = frame.toString('latin1', 2, 2 + frame.readUInt16BE(0)).replace('200000', '100')
  const head = Buffer.alloc(2)
  head.writeUInt16BE(text.length)
  const lying = Buffer.concat([head, Buffer.from(text), frame.subarray(2 + frame.readUInt16BE(0))])
  expect(decodeFileChunk(lying)).toMatchObject({ ok: false })
})
