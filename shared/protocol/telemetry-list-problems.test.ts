import { expect, test } from 'vitest'
import { TELEMETRY_LISTS_BYTES_MAX, TELEMETRY_RULES_MAX } from './limits.ts'
import { telemetryListProblems } from './telemetry-list-problems.ts'
import { canonicalTelemetryLists, type TelemetryRule } from './telemetry-lists.ts'

const rule = (changes: object = {}) => ({ name: 'logs', verdict: 'drop', pathPrefix: '/var/log', ...changes })
const problemOf = (changes: object) => telemetryListProblems({ rules: [rule(changes)] })

test('lists that can be put in force have no problems, nor have lists without rules', () => {
  expect(telemetryListProblems({ rules: [rule()] })).toEqual([])
  expect(telemetryListProblems({ rules: [] })).toEqual([])
})

test.each([
  [{ verdict: 'hide' }, /^telemetry rule "logs": `verdict` is one of drop, keep, always$/],
  [{ actions: ['exec'] }, /^telemetry rule "logs": `actions` takes a list, each once, of script, /],
  [{ actions: [] }, /`actions` takes a list/],
  [{ actions: ['script', 'script'] }, /`actions` takes a list, each once/],
  [{ pathPrefix: 'var/log' }, /`pathPrefix` takes an absolute path of at most 4096 characters$/],
  [{ executable: `/${'x'.repeat(4_096)}` }, /`executable` takes an absolute path/],
  [{ userId: -1 }, /`userId` takes a whole number from 0 to 4294967295$/],
  [{ destinationPort: 65_536 }, /`destinationPort` takes a whole number from 0 to 65535$/],
  [{ destinationAddress: '1.2.3' }, /`destinationAddress` is no IP address: write/],
  [{ path: '/x' }, /^telemetry rule "logs": there is no field "path": name, verdict, actions, /],
  [{ name: '' }, /^telemetry rule 1: `name` takes 1 to 64 letters/],
  [{ pathPrefix: '/' }, /^telemetry rule "logs": `pathPrefix` \/ is every path/],
])('%j is told with its rule, its field and what it takes', (changes, problem) => {
  expect(problemOf(changes)).toEqual([expect.stringMatching(problem)])
})

test('what is missing is told, and every problem of every rule at once', () => {
  const problems = telemetryListProblems({ rules: [{ pathPrefix: '/a' }, 7, rule({ userId: 'root' })] })
  expect(problems).toEqual([
    expect.stringMatching(/^telemetry rule 1: `name` is missing: it takes/),
    expect.stringMatching(/^telemetry rule 1: `verdict` is missing: it is one of/),
    'telemetry rule 2: it is no object',
    expect.stringMatching(/^telemetry rule "logs": `userId`/),
  ])
})

test.each([undefined, null, 7, '[]', [], {}, { rules: {} }, { rules: [], version: 1 }])(
  'hostile lists %j are told by their form',
  (lists) => {
    expect(telemetryListProblems(lists)).toEqual([
      'telemetry lists are {"rules": [...]}, with nothing beside `rules`',
    ])
  },
)

test('keys that programs treat as special are fields that do not exist', () => {
  const lists = JSON.parse('{"rules":[{"name":"a","verdict":"keep","__proto__":{"userId":1}}]}')
  expect(telemetryListProblems(lists)).toEqual([expect.stringContaining('there is no field "__proto__"')])
})

test('too many rules, and too large ones, are told with the bound', () => {
  const many = (count: number, folder: string) =>
    Array.from({ length: count }, (_, index) => rule({ name: `rule ${index}`, pathPrefix: folder }))
  expect(telemetryListProblems({ rules: many(TELEMETRY_RULES_MAX + 1, '/a') })).toEqual([
    `${TELEMETRY_RULES_MAX + 1} telemetry rules are too many: one host takes at most ${TELEMETRY_RULES_MAX}`,
  ])
  expect(telemetryListProblems({ rules: many(TELEMETRY_RULES_MAX, '/a') })).toEqual([])
  const problems = telemetryListProblems({ rules: many(3, `/${'x'.repeat(4_000)}`) })
  expect(problems).toEqual([expect.stringContaining(`more than ${TELEMETRY_LISTS_BYTES_MAX} bytes`)])
})

test('a thousand problems are told as twenty', () => {
  const rules = Array.from({ length: TELEMETRY_RULES_MAX }, () => ({}))
  expect(telemetryListProblems({ rules })).toHaveLength(20)
})

test('lists have one text, in whatever order their keys were written', () => {
  const written: TelemetryRule = { pathPrefix: '/var/log', verdict: 'drop', name: 'logs' }
  expect(canonicalTelemetryLists({ rules: [written] })).toBe(
    '{"rules":[{"name":"logs","verdict":"drop","pathPrefix":"/var/log"}]}',
  )
})
