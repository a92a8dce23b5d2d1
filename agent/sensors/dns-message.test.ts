import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseDnsMessage } from './dns-message.ts'

const name = (text: string) =>
  Buffer.concat([
    ...text
      .split('.')
      .map((label) => Buffer.concat([Buffer.from([label.length]), Buffer.from(label, 'latin1')])),
    Buffer.from([0]),
  ])
const words = (...values: readonly number[]) => {
  const bytes = Buffer.alloc(values.length * 2)
  values.forEach((value, index) => {
    bytes.writeUInt16BE(value, index * 2)
  })
  return bytes
}
const question = (text: string, type: number, flags = 0x0100, answers = 0) =>
  Buffer.concat([words(0x1234, flags, 1, answers, 0, 0), name(text), words(type, 1)])
/** An answer whose owner is the question's name, by a pointer. */
const answer = (type: number, data: Buffer) =>
  Buffer.concat([words(0xc00c, type, 1, 0, 60, data.length), data])

test('a question is told by its name in lower case and its type', () => {
  expect(parseDnsMessage(question('WWW.Example.org', 28))).toEqual({
    id: 0x1234,
    isAnswer: false,
    responseCode: 'NOERROR',
    question: { name: 'www.example.org', type: 'AAAA' },
    answers: [],
  })
})

test('answers are told with their addresses, and names that point back are whole', () => {
  const message = Buffer.concat([
    question('a.example.org', 1, 0x8180, 4),
    answer(5, Buffer.concat([name('b').subarray(0, 2), Buffer.from([0xc0, 0x0e])])),
    answer(1, Buffer.from([192, 0, 2, 1])),
    answer(28, Buffer.from('20010db8000000000000000000000001', 'hex')),
    answer(16, Buffer.from('\x05hello')),
  ])
  const parsed = parseDnsMessage(message)
  expect(parsed?.isAnswer).toBe(true)
  expect(parsed?.answers).toEqual([
    { type: 'CNAME', data: 'b.example.org', address: null },
    { type: 'A', data: '192.0.2.1', address: '192.0.2.1' },
    { type: 'AAAA', data: '2001:db8::1', address: '2001:db8::1' },
    { type: 'TXT', data: 'hello', address: null },
  ])
})

test('a refusal is told by its code', () => {
  expect(parseDnsMessage(question('nowhere.test', 1, 0x8183))?.responseCode).toBe('NXDOMAIN')
})

test('bytes of a name that are no letters are written as zone files write them', () => {
  const bytes = Buffer.concat([
    words(1, 0, 1, 0, 0, 0),
    Buffer.from('\x04a.\n\xff\x00', 'latin1'),
    words(1, 1),
  ])
  expect(parseDnsMessage(bytes)?.question.name).toBe('a\\046\\010\\255')
})

test('names that point at themselves or forwards, and labels past the end, are no message', () => {
  const loop = Buffer.concat([words(1, 0, 1, 0, 0, 0), Buffer.from([0xc0, 0x0c]), words(1, 1)])
  const forwards = Buffer.concat([words(1, 0, 1, 0, 0, 0), Buffer.from([0xc0, 0x20]), words(1, 1)])
  const long = Buffer.concat([words(1, 0, 1, 0, 0, 0), Buffer.from([63, 65, 65])])
  for (const bytes of [loop, forwards, long]) expect(parseDnsMessage(bytes)).toBeNull()
})

test('an answer that is cut off is left out, and the question stays', () => {
  const whole = Buffer.concat([question('cut.test', 1, 0x8180, 1), answer(1, Buffer.from([1, 2, 3, 4]))])
  const parsed = parseDnsMessage(whole.subarray(0, whole.length - 2))
  expect(parsed?.question.name).toBe('cut.test')
  expect(parsed?.answers).toEqual([])
})

test('no bytes make it throw, and what it tells is bounded', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), (bytes) => {
      const parsed = parseDnsMessage(bytes)
      if (parsed === null) return
      expect(parsed.question.name.length).toBeLessThanOrEqual(2_048)
      expect(parsed.answers.length).toBeLessThanOrEqual(16)
    }),
    { numRuns: 2_000 },
  )
})
