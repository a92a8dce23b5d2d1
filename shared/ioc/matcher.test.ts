import { BlockList, isIPv4 } from 'node:net'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { CordonEvent } from '../events/event.ts'
import { compileGlob, isGlob } from './glob.ts'
import { type Indicator, loadIndicators } from './indicator.ts'
import { compileIndicators } from './matcher.ts'

const NOW = '2026-03-01T00:00:00.000Z'
const base = { name: 'x', severity: 'high', confidence: 80, source: 'own' } as const

function indicator(type: Indicator['type'], value: string, rest: Partial<Indicator> = {}): Indicator {
  const { indicators, problems } = loadIndicators(
    JSON.stringify([
      { id: `${type}:${value}`.replaceAll(' ', '_').slice(0, 128), type, value, ...base, ...rest },
    ]),
    'x',
  )
  expect(problems).toEqual([])
  return indicators[0] as Indicator
}

const compile = (...list: Indicator[]) => compileIndicators(list, Date.parse(NOW))

function connection(address: string): CordonEvent {
  return {
    '@timestamp': NOW,
    'event.kind': 'event',
    'event.category': 'network',
    'event.type': 'start',
    'event.action': 'connection',
    'event.outcome': 'success',
    'network.transport': 'tcp',
    'network.type': isIPv4(address) ? 'ipv4' : 'ipv6',
    'network.direction': 'egress',
    'source.ip': '127.66.66.66',
    'destination.ip': address,
    'destination.port': 443,
  }
}

function examined(path: string, rest: object = {}): CordonEvent {
  return {
    '@timestamp': NOW,
    'event.kind': 'event',
    'event.category': 'file',
    'event.type': 'info',
    'event.action': 'file-examined',
    'file.path': path,
    ...rest,
  }
}

function exec(path: string, rest: object = {}): CordonEvent {
  return {
    '@timestamp': NOW,
    'event.kind': 'event',
    'event.category': 'process',
    'event.type': 'start',
    'event.action': 'exec',
    'process.executable': path,
    ...rest,
  }
}

test('an address matches however it is written, and this end of a connection does not', () => {
  const matcher = compile(indicator('ipv4', '127.66.66.66'), indicator('ipv6', '2001:db8::1'))
  expect(matcher.match(connection('127.66.66.66'))).toEqual([
    { indicator: expect.objectContaining({ type: 'ipv4' }), field: 'destination.ip', value: '127.66.66.66' },
  ])
  expect(matcher.match(connection('::ffff:127.66.66.66'))).toHaveLength(1)
  expect(matcher.match(connection('::ffff:7f42:4242'))).toHaveLength(1)
  expect(matcher.match(connection('2001:0DB8:0:0:0:0:0:1'))).toHaveLength(1)
  expect(matcher.match(connection('127.66.66.67'))).toEqual([])
})

test('hashes match on files and processes, each indicator once', () => {
  const sha256 = 'ab'.repeat(32)
  const matcher = compile(indicator('sha256', sha256.toUpperCase()), indicator('md5', 'cd'.repeat(16)))
  expect(matcher.match(exec('/bin/x', { 'process.hash.sha256': sha256 }))[0]?.field).toBe(
    'process.hash.sha256',
  )
  const both = examined('/x', { 'file.hash.sha256': sha256, 'file.hash.md5': 'cd'.repeat(16) })
  expect(matcher.match(both).map(({ field }) => field)).toEqual(['file.hash.sha256', 'file.hash.md5'])
})

test('names and paths are told apart by case unless the indicator says otherwise', () => {
  const matcher = compile(
    indicator('fileName', 'Evil.sh'),
    indicator('fileName', 'any*.SH', { ignoreCase: true }),
    indicator('filePath', '/opt/Evil', { ignoreCase: true }),
  )
  expect(matcher.match(examined('/tmp/Evil.sh'))).toHaveLength(1)
  expect(matcher.match(examined('/tmp/evil.sh'))).toEqual([])
  expect(matcher.match(exec('/tmp/Anything.sh'))).toHaveLength(1)
  expect(matcher.match(exec('/OPT/evil'))).toHaveLength(1)
})

test('an indicator counts within its validity by the time of the event', () => {
  const valid = { validFrom: '2026-03-01T00:00:00.000Z', validUntil: '2026-03-02T00:00:00.000Z' }
  const matcher = compile(indicator('ipv4', '10.0.0.1', valid))
  const at = (timestamp: string) => matcher.match({ ...connection('10.0.0.1'), '@timestamp': timestamp })
  expect(at('2026-02-28T23:59:59.999Z')).toEqual([])
  expect(at('2026-03-01T00:00:00.000Z')).toHaveLength(1)
  expect(at('2026-03-02T00:00:00.000Z')).toEqual([])
  const expired = compile(indicator('ipv4', '10.0.0.1', { validUntil: '2026-01-01T00:00:00.000Z' }))
  expect(expired.size).toBe(0)
})

test('a domain matches itself and those below it', () => {
  const matcher = compile(indicator('domain', 'Evil.Example.'))
  expect(matcher.matchDomain('evil.example')).toHaveLength(1)
  expect(matcher.matchDomain('a.b.EVIL.example.')).toHaveLength(1)
  expect(matcher.matchDomain('notevil.example')).toEqual([])
  expect(matcher.matchDomain('example')).toEqual([])
  expect(matcher.matchDomain(`${'a.'.repeat(100_000)}evil.example`)).toEqual([])
})

test('one event gives a bounded number of matches', () => {
  const list = Array.from({ length: 100 }, (_, index) =>
    indicator('fileName', `x${'?'.repeat(index % 3)}*`, { id: `g${index}` }),
  )
  expect(compile(...list).match(examined('/x/xyz'))).toHaveLength(16)
})

test('globs beyond the bound are refused and said', () => {
  const list = Array.from({ length: 4_100 }, (_, index) => indicator('fileName', `a${index}*`))
  const matcher = compile(...list)
  expect(matcher.size).toBe(4_096)
  expect(matcher.refused).toHaveLength(1)
})

/** The plain meaning of every type, one indicator after the other. */
function plainMatches(list: readonly Indicator[], event: CordonEvent): string[] {
  const fields: Readonly<Record<string, unknown>> = { ...event }
  const path = String(fields['file.path'] ?? fields['process.executable'] ?? '')
  const hashes = ['file.hash.sha256', 'file.hash.sha1', 'file.hash.md5', 'process.hash.sha256'].map(
    (name) => fields[name],
  )
  const address = fields['destination.ip']
  const matchesText = (pattern: string, text: string) =>
    isGlob(pattern) ? compileGlob(pattern)(text) : pattern === text
  const isIn = (network: string, prefix: number) => {
    if (typeof address !== 'string') return false
    const block = new BlockList()
    block.addSubnet(network, prefix, isIPv4(network) ? 'ipv4' : 'ipv6')
    return isIPv4(network) === isIPv4(address) && block.check(address, isIPv4(address) ? 'ipv4' : 'ipv6')
  }
  return list
    .filter(({ type, value }) => {
      switch (type) {
        case 'sha256':
        case 'sha1':
        case 'md5':
          return hashes.includes(value)
        case 'ipv4':
          return isIn(value, 32)
        case 'ipv6':
          return isIn(value, 128)
        case 'cidr':
          return isIn(value.split('/')[0] ?? '', Number(value.split('/')[1]))
        case 'fileName':
          return path !== '' && matchesText(value, path.slice(path.lastIndexOf('/') + 1))
        case 'filePath':
          return path !== '' && matchesText(value, path)
        default:
          return false
      }
    })
    .map(({ id }) => id)
    .sort()
}

const octet = fc.constantFrom(0, 10, 172, 255)
const ipv4 = fc.tuple(octet, octet, octet, octet).map((parts) => parts.join('.'))
const group = fc.constantFrom('0', '1', '2001', 'ffff', 'db8')
const ipv6 = fc.array(group, { minLength: 7, maxLength: 7 }).map((parts) => `2001:${parts.join(':')}`)
const hex = (digits: number) => fc.constantFrom('a', 'b').map((digit) => digit.repeat(digits))
const component = fc.constantFrom('a', 'b', 'ab', 'a.sh')
const path = fc.array(component, { minLength: 1, maxLength: 3 }).map((parts) => `/${parts.join('/')}`)
const globbed = fc.constantFrom('a', 'a*', '*.sh', '?', '**', 'ab')

const anyIndicator = fc.oneof(
  ipv4.map((value) => ['ipv4', value] as const),
  ipv6.map((value) => ['ipv6', value] as const),
  fc.tuple(ipv4, fc.nat(32)).map(([value, prefix]) => ['cidr', `${value}/${prefix}`] as const),
  fc.tuple(ipv6, fc.nat(128)).map(([value, prefix]) => ['cidr', `${value}/${prefix}`] as const),
  hex(64).map((value) => ['sha256', value] as const),
  hex(40).map((value) => ['sha1', value] as const),
  hex(32).map((value) => ['md5', value] as const),
  globbed.map((value) => ['fileName', value] as const),
  fc
    .array(globbed, { minLength: 1, maxLength: 3 })
    .map((parts) => ['filePath', `/${parts.join('/')}`] as const),
)
const anyEvent = fc.oneof(
  ipv4.map(connection),
  ipv6.map(connection),
  fc.tuple(path, hex(64)).map(([file, sha256]) => exec(file, { 'process.hash.sha256': sha256 })),
  fc
    .tuple(path, hex(64), hex(40), hex(32))
    .map(([file, sha256, sha1, md5]) =>
      examined(file, { 'file.hash.sha256': sha256, 'file.hash.sha1': sha1, 'file.hash.md5': md5 }),
    ),
)

test('random indicators match random events as their plain meaning does', () => {
  fc.assert(
    fc.property(
      fc.array(anyIndicator, { maxLength: 12 }),
      fc.array(anyEvent, { maxLength: 6 }),
      (values, events) => {
        const list = values.map(([type, value], index) => indicator(type, value, { id: `i${index}` }))
        const matcher = compile(...list)
        for (const event of events) {
          expect(
            matcher
              .match(event)
              .map(({ indicator: { id } }) => id)
              .sort(),
          ).toEqual(plainMatches(list, event))
        }
      },
    ),
    { numRuns: 1_500 },
  )
})
