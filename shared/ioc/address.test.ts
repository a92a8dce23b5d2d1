import { isIP } from 'node:net'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseAddress, parseNetwork, prefixKey } from './address.ts'

test.each([
  ['0.0.0.0', 0],
  ['255.255.255.255', 0xffffffff],
  ['127.66.66.66', 0x7f424242],
  ['::ffff:127.66.66.66', 0x7f424242],
  ['::FFFF:7f42:4242', 0x7f424242],
  ['::', '0'.repeat(32)],
  ['::1', `${'0'.repeat(31)}1`],
  ['2001:DB8::a:0:1', '20010db8000000000000000a00000001'],
  ['1:2:3:4:5:6:7:8', '00010002000300040005000600070008'],
  ['1:2:3:4:5:6:1.2.3.4', '00010002000300040005000601020304'],
  ['1::8', '00010000000000000000000000000008'],
])('%s is read', (text, key) => {
  expect(parseAddress(text)).toBe(key)
})

test.each([
  '',
  '1.2.3',
  '1.2.3.4.5',
  '1.2.3.256',
  '01.2.3.4',
  '1.2.3.-4',
  '1..2.3',
  '.1.2.3',
  '1.2.3.',
  '1.2.3.4 ',
  ':',
  ':::',
  '1:2:3:4:5:6:7',
  '1:2:3:4:5:6:7:8:9',
  '1:2:3:4:5:6:7:8::',
  '1::2::3',
  '12345::',
  'g::',
  '1.2.3.4::',
  '::1.2.3.4:5',
  'fe80::1%eth0',
  '1:2:3:4:5:6:7::8:9',
  '٣.2.3.4',
  '0'.repeat(1_000_000),
])('%s is no address', (text) => {
  expect(parseAddress(text)).toBeNull()
})

test('what is an address is decided as the runtime does, zones apart', () => {
  const piece = fc.constantFrom(
    '0',
    '1',
    '255',
    '256',
    'ffff',
    'abcd',
    '10000',
    '::',
    ':',
    '.',
    '1.2.3.4',
    'g',
  )
  fc.assert(
    fc.property(
      fc.oneof(
        fc.ipV4(),
        fc.ipV6(),
        fc.array(piece, { maxLength: 12 }).map((list) => list.join('')),
      ),
      (text) => {
        expect(parseAddress(text) !== null).toBe(isIP(text) !== 0 && text.length <= 45)
      },
    ),
    { numRuns: 5_000 },
  )
})

test.each([
  '1.2.3.4',
  '1.2.3.4/',
  '1.2.3.4/33',
  '1.2.3.4/08',
  '1.2.3.4/-1',
  '::/129',
  '::ffff:1.2.3.4/95',
  '/8',
  'x/8',
])('%s is no network', (text) => {
  expect(parseNetwork(text)).toBeNull()
})

test('an address is in a network exactly when their leading bits are equal', () => {
  const bits = (text: string) => {
    const key = parseAddress(text)
    return typeof key === 'number'
      ? key.toString(2).padStart(32, '0')
      : BigInt(`0x${key}`).toString(2).padStart(128, '0')
  }
  // Few distinct octets and groups, so that prefixes are often shared.
  const octet = fc.constantFrom('0', '10', '255')
  const group = fc.constantFrom('0', '2001', 'ffff')
  const ipv4 = fc.tuple(octet, octet, octet, octet).map((parts) => parts.join('.'))
  const ipv6 = fc.array(group, { minLength: 8, maxLength: 8 }).map((parts) => parts.join(':'))
  fc.assert(
    fc.property(fc.oneof(fc.tuple(ipv4, ipv4), fc.tuple(ipv6, ipv6)), fc.nat(128), ([a, b], length) => {
      fc.pre(bits(a).length === bits(b).length && length <= bits(a).length)
      const network = parseNetwork(`${a}/${length}`)
      const address = parseAddress(b)
      expect(network === null || address === null).toBe(false)
      if (network === null || address === null) return
      expect(prefixKey(address, network.prefixLength) === network.key).toBe(
        bits(a).slice(0, length) === bits(b).slice(0, length),
      )
    }),
    { numRuns: 3_000 },
  )
})

test('a network of mapped addresses is the IPv4 network', () => {
  expect(parseNetwork('::ffff:10.0.0.0/104')).toEqual(parseNetwork('10.0.0.0/8'))
})
