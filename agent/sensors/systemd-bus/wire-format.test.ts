import { expect, test } from 'vitest'
import { createMessageStream, decodeMessage, encodeMessage, type Message } from './message.ts'
import { createReader, createWriter, Malformed, splitSignature, type Value } from './wire-format.ts'

const BODY: readonly Value[] = ['name', true, ['a', 'b'], [['key', 7]], ['s', 'variant']]
const message = encodeMessage({
  type: 1,
  serial: 9,
  path: '/a',
  interface: 'a.b',
  member: 'Call',
  destination: 'c.d',
  signature: 'sbasa(su)v',
  body: BODY,
})

function collect(chunks: readonly Buffer[], keptBytesMax = 4_096) {
  const messages: Message[] = []
  const refused: string[] = []
  const stream = createMessageStream({
    keptBytesMax,
    message: (each) => messages.push(each),
    refused: (reason) => refused.push(reason),
  })
  for (const chunk of chunks) stream.push(chunk)
  return { messages, refused }
}

test('what is written is read again', () => {
  const read = decodeMessage(message)
  expect(read).toMatchObject({
    type: 1,
    serial: 9,
    path: '/a',
    interface: 'a.b',
    member: 'Call',
    destination: 'c.d',
  })
  expect(read.body()).toEqual(['name', true, ['a', 'b'], [['key', 7]], 'variant'])
})

test('messages come out whole however the bytes are cut', () => {
  const bytes = Buffer.concat([message, message, message])
  for (const size of [1, 7, 16, message.length - 1, message.length + 1, bytes.length]) {
    const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) =>
      bytes.subarray(index * size, (index + 1) * size),
    )
    expect(collect(chunks).messages).toHaveLength(3)
  }
})

test('a message that is too long is passed over, and the next is read', () => {
  const long = encodeMessage({
    type: 1,
    serial: 1,
    member: 'Long',
    signature: 's',
    body: ['x'.repeat(10_000)],
  })
  for (const size of [1, 1_000, 100_000]) {
    const bytes = Buffer.concat([long, message, long, message])
    const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) =>
      bytes.subarray(index * size, (index + 1) * size),
    )
    const { messages, refused } = collect(chunks)
    expect(messages.map(({ member }) => member)).toEqual(['Call', 'Call'])
    expect(refused).toHaveLength(2)
  }
})

test('every byte changed, a message is read or refused, and nothing else', () => {
  for (let at = 0; at < message.length; at++) {
    for (const value of [0, 1, 0x7f, 0xff]) {
      const changed = Buffer.from(message)
      changed[at] = value
      try {
        const { messages, refused } = collect([changed])
        for (const each of messages) each.body()
        expect(messages.length + refused.length).toBeLessThanOrEqual(1)
      } catch (error) {
        expect(error).toBeInstanceOf(Malformed)
      }
    }
  }
})

test.each(['a', '(', '()', '(s', '{', ')', 'z', 'a'.repeat(64), '('.repeat(200), 's'.repeat(256)])(
  'the signature %s is refused',
  (signature) => {
    expect(() => splitSignature(signature)).toThrow(Malformed)
  },
)

test('variants in variants without end are refused', () => {
  const writer = createWriter()
  for (let depth = 0; depth < 100; depth++) writer.signature('v')
  expect(() => createReader(writer.bytes(), true).read('v')).toThrow('nested too deeply')
})

test('big-endian numbers are read, too', () => {
  const bytes = Buffer.from('0000000568656c6c6f0000000000002a', 'hex')
  const reader = createReader(bytes, false)
  expect([reader.read('s'), reader.read('u')]).toEqual(['hello', 42])
})
