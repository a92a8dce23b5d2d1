import { expect, test } from 'vitest'
import { loadIndicators } from './indicator.ts'

const entry = (changes: Record<string, unknown> = {}) => ({
  id: 'a',
  type: 'ipv4',
  value: '10.0.0.1',
  name: 'A host',
  severity: 'high',
  confidence: 90,
  source: 'own',
  ...changes,
})
const load = (...entries: unknown[]) => loadIndicators(JSON.stringify(entries), 'list.json')

test('bad entries are each named and the others stand', () => {
  const { indicators, problems } = load(
    entry(),
    entry({ id: 'b', type: 'ipv6' }),
    entry({ id: 'c', value: 'nonsense' }),
    null,
    entry({ id: 'd', extra: 1 }),
    entry(),
    entry({ id: 'e', type: 'sha256', value: 'AB'.repeat(32) }),
  )
  expect(indicators.map(({ id }) => id)).toEqual(['a', 'e'])
  expect(indicators[1]?.value).toBe('ab'.repeat(32))
  expect(problems).toHaveLength(5)
  expect(problems.map((problem) => problem.match(/entry (\d)/)?.[1])).toEqual(['1', '2', '3', '4', '5'])
  expect(problems[1]).toContain('not an IP address')
  expect(problems[3]).toContain('extra')
  expect(problems[4]).toContain('stands already')
})

test.each([
  ['md5', 'ab'.repeat(20)],
  ['sha1', 'zz'.repeat(20)],
  ['ipv4', '::1'],
  ['ipv6', '10.0.0.1'],
  ['cidr', '10.0.0.1'],
  ['domain', 'a..b'],
  ['domain', '-a.example'],
  ['domain', 'a b'],
  ['fileName', 'a/b'],
  ['fileName', '*'.repeat(1_000)],
  ['filePath', 'relative/path'],
  ['filePath', '/a\0b'],
  ['url', 'http://example.test'],
  ['__proto__', 'x'],
])('a %s of %s is refused', (type, value) => {
  expect(load(entry({ type, value })).indicators).toEqual([])
})

test.each([
  { severity: 'worst' },
  { confidence: 101 },
  { confidence: 0.5 },
  { id: '' },
  { id: 'with blank' },
  { validFrom: 'yesterday' },
  { validFrom: '2026-01-02T00:00:00.000Z', validUntil: '2026-01-01T00:00:00.000Z' },
  { techniques: ['x'.repeat(17)] },
])('an entry with %o is refused', (changes) => {
  const { indicators, problems } = load(entry(changes))
  expect(indicators).toEqual([])
  expect(problems).toHaveLength(1)
})

test.each(['', '{', '{}', 'null', '"text"', '[[[['])('a list of %s is refused as a whole', (text) => {
  const { indicators, problems } = loadIndicators(text, 'list.json')
  expect(indicators).toEqual([])
  expect(problems).toHaveLength(1)
})

test('the key __proto__ is refused and changes nothing', () => {
  const text = `[{"__proto__":{"polluted":1},${JSON.stringify(entry()).slice(1)}]`
  expect(loadIndicators(text, 'list.json').indicators).toEqual([])
  expect(({} as { polluted?: number }).polluted).toBeUndefined()
})

test('what is told of a very bad list is bounded, and the rest is counted', () => {
  const { problems } = loadIndicators(JSON.stringify(Array.from({ length: 5_000 }, () => 0)), 'list.json')
  expect(problems).toHaveLength(101)
  expect(problems.at(-1)).toContain('4900 more')
})
