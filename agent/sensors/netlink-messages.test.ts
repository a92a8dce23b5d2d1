import { expect, test } from 'vitest'
import { NETLINK_FLAGS, netlinkMessage, unpackMessages } from './netlink-messages.ts'

/** As the addon packs them; null is a place where messages were dropped. */
function pack(messages: readonly (Buffer | null)[]): Buffer {
  return Buffer.concat(
    messages.map((message) => {
      const bytes = message ?? Buffer.alloc(0)
      const packed = Buffer.alloc(4 + ((bytes.length + 3) & ~3))
      packed.writeUInt32LE(bytes.length, 0)
      bytes.copy(packed, 4)
      return packed
    }),
  )
}

function unpack(buffer: Buffer, length = buffer.length) {
  const told: string[] = []
  const whole = unpackMessages(buffer, length, {
    message: ({ type, sequence, payload }) => told.push(`${type} ${sequence} ${payload.toString('latin1')}`),
    overflow: () => told.push('overflow'),
  })
  return { told, whole }
}

test('messages come out in order, with the places where some were dropped', () => {
  const first = netlinkMessage(1300, NETLINK_FLAGS.request, 7, Buffer.from('one'))
  const second = netlinkMessage(1320, 0, 8, Buffer.alloc(0))
  const { told, whole } = unpack(pack([first, null, second]))
  expect(told).toEqual(['1300 7 one', 'overflow', '1320 8 '])
  expect(whole).toBe(true)
})

test('the length of the datagram counts and not the one that the header tells', () => {
  const message = netlinkMessage(1300, 0, 1, Buffer.from('audit(1.000:1): '))
  message.writeUInt32LE(16, 0)
  expect(unpack(pack([message])).told).toEqual(['1300 1 audit(1.000:1): '])
})

test.each([
  ['a length past the end', Buffer.from([255, 255, 255, 255, 0, 0, 0, 0])],
  ['a message without a whole header', pack([Buffer.alloc(15)])],
  ['a cut message', pack([netlinkMessage(1300, 0, 1, Buffer.alloc(40))]).subarray(0, 30)],
  ['a cut length', Buffer.from([1, 0])],
])('hostile input (%s) is told as not whole and never read past its end', (_, bytes) => {
  expect(unpack(bytes).told).toEqual([])
  expect(unpack(bytes).whole).toBe(false)
})

test('bytes past the given length are not looked at', () => {
  const packed = pack([netlinkMessage(1, 0, 1, Buffer.alloc(0)), netlinkMessage(2, 0, 2, Buffer.alloc(0))])
  expect(unpack(packed, packed.length / 2)).toEqual({ told: ['1 1 '], whole: true })
})
