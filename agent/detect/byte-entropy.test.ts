import { expect, test } from 'vitest'
import { createByteEntropy } from './byte-entropy.ts'

function entropyOf(...parts: readonly Uint8Array[]): number {
  const entropy = createByteEntropy()
  for (const part of parts) entropy.update(part)
  return entropy.bitsPerByte()
}

test.each([
  ['nothing', Buffer.alloc(0), 0],
  ['one byte', Buffer.from('x'), 0],
  ['equal bytes', Buffer.alloc(1_001, 7), 0],
  ['two bytes as often as each other', Buffer.alloc(1_000, 'ab'), 1],
  ['every byte once', Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)), 8],
  ['three bytes, one of them twice as often', Buffer.from('aabc'), 1.5],
  ['a length that four does not divide', Buffer.from('abcde'), 2.322],
])('the entropy of %s', (_, bytes, expected) => {
  expect(entropyOf(bytes)).toBe(expected)
})

test('parts make the same entropy as the whole, and a new content starts from nothing', () => {
  const bytes = Buffer.from('parts of a content, cut where nobody would cut it')
  expect(entropyOf(bytes.subarray(0, 3), bytes.subarray(3, 20), bytes.subarray(20))).toBe(entropyOf(bytes))
  const entropy = createByteEntropy()
  entropy.update(bytes)
  entropy.reset()
  entropy.update(Buffer.from('ab'))
  expect(entropy.bitsPerByte()).toBe(1)
})
