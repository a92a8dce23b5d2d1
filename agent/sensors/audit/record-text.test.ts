import { expect, test } from 'vitest'
import { createArgumentCollector } from './arguments.ts'
import {
  hexadecimalValue,
  numberValue,
  parseFields,
  parseHeader,
  textBytes,
  textValue,
} from './record-text.ts'

test('the header gives time, serial and where the fields begin', () => {
  const text = 'audit(1699999999.042:4567): arch=c000003e'
  expect(parseHeader(text)).toEqual({ timestampMs: 1_699_999_999_042, serial: 4_567, bodyStart: 28 })
})

test.each(['', 'audit(', 'audit(1.2:3): ', 'audit(1.002:3)', 'audit(x.000:1): ', ' audit(1.002:3): '])(
  'hostile header %j is refused',
  (text) => expect(parseHeader(text)).toBeNull(),
)

test('values stand in marks, bare, or in a message of their own', () => {
  const fields = parseFields(
    `pid=1 comm="a b" exe=2F746D702F61 tty=(none) msg='op=PAM:x acct="root" res=success'\n`,
  )
  expect(Object.fromEntries(fields)).toEqual({
    pid: '1',
    comm: '"a b"',
    exe: '2F746D702F61',
    tty: '(none)',
    msg: `'op=PAM:x acct="root" res=success'`,
  })
})

test('what a program chose cannot pose as another field', () => {
  // The kernel puts a name with a mark or a blank into hexadecimal, so a second value is never its own.
  const fields = parseFields('uid=1000 comm="x" uid=0 pid=5')
  expect(fields.get('uid')).toBe('1000')
  expect(parseFields('comm="uid=0 pid=1" uid=1000').get('uid')).toBe('1000')
})

test.each(['=', '==', '"', `msg='`, 'a="', `a='b`, 'a= =b', ' '.repeat(1_000), 'a=b '.repeat(10_000)])(
  'hostile fields %j end and are bounded',
  (text) => expect(parseFields(text.slice(0, 100_000)).size).toBeLessThanOrEqual(128),
)

test('text is exact bytes, as a string only when it is UTF-8', () => {
  expect(textValue('"plain"')).toBe('plain')
  expect(textValue('C3BC6D')).toBe('üm')
  expect(textValue('FF00')).toEqual(new Uint8Array([0xff, 0]))
  expect(textValue('(null)')).toBeNull()
  expect(textValue('"(null)"')).toBe('(null)')
  expect(textValue('pts0')).toBe('pts0')
  expect(textValue('"414"')).toBe('414')
  expect(textBytes(undefined)).toBeNull()
  expect(textBytes('""')).toEqual(Buffer.alloc(0))
})

test('numbers that are none are not numbers', () => {
  expect(numberValue('-115')).toBe(-115)
  for (const text of [undefined, '', '1e3', '0x1', '9'.repeat(40)]) expect(numberValue(text)).toBeNull()
  expect(hexadecimalValue('ffffffffffffffff')).toBe(0xffff_ffff_ffff_ffffn)
  for (const text of [undefined, '', '-1', '0x1', 'f'.repeat(17)]) expect(hexadecimalValue(text)).toBeNull()
})

test('arguments in several records and in pieces are put together', () => {
  const collector = createArgumentCollector()
  collector.add('argc=4 a0="sh" a1=612062')
  collector.add('a2_len=12 a2[0]=414243')
  collector.add('a2[1]="DEF" a3=""')
  expect(collector.result()).toEqual({ arguments: ['sh', 'a b', 'ABCDEF', ''], truncated: false })
})

test('arguments that are missing, too many or too long are told as cut', () => {
  const missing = createArgumentCollector()
  missing.add('argc=3 a0="x" a2="z"')
  expect(missing.result()).toEqual({ arguments: ['x'], truncated: true })

  const long = createArgumentCollector()
  long.add(`argc=1 a0_len=200000 a0[0]=${'41'.repeat(20_000)}`)
  for (let piece = 1; piece < 10; piece++) long.add(`a0[${piece}]=${'42'.repeat(20_000)}`)
  const { arguments: found, truncated } = long.result()
  expect(truncated).toBe(true)
  expect(found[0]?.length).toBe(32 * 1024)

  const many = createArgumentCollector()
  many.add(`argc=5000 ${Array.from({ length: 3_000 }, (_, index) => `a${index}="x"`).join(' ')}`)
  expect(many.result()).toMatchObject({ truncated: true })
  expect(many.result().arguments).toHaveLength(1_024)
})

test.each(['a[0]="x"', 'a-1="x"', 'a0[="x"', 'argc=zz', 'a99999999999="x"', 'argc=-1'])(
  'hostile arguments %j are no arguments',
  (body) => {
    const collector = createArgumentCollector()
    collector.add(body)
    expect(collector.result().arguments).toEqual([])
  },
)
