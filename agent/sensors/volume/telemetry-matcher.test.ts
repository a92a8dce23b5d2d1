import { Compile } from 'typebox/compile'
import { expect, test } from 'vitest'
import { EVENT_SCHEMAS } from '../../../shared/events/event.ts'
import {
  LISTABLE_ACTIONS,
  TelemetryLists,
  type TelemetryRule,
} from '../../../shared/protocol/telemetry-lists.ts'
import { compileTelemetryLists } from './telemetry-matcher.ts'

const schema = Compile(TelemetryLists)
const rule = (overrides: object) =>
  ({ name: 'one', verdict: 'drop', userId: 1, ...overrides }) as TelemetryRule

test('what must never be hidden cannot be named', () => {
  const hidable = new Set<string>(LISTABLE_ACTIONS)
  const safe = Object.keys(EVENT_SCHEMAS).filter((action) => !hidable.has(action))
  expect(safe).toEqual(
    expect.arrayContaining([
      ...['detection', 'tamper', 'gap', 'agent-started', 'agent-stopped', 'sensor-changed', 'action-state'],
      ...['logon', 'logoff', 'logon-failed', 'privilege-elevated', 'user-created', 'ssh-key-added'],
      ...['service-created', 'scheduled-task-changed', 'persistence-changed', 'exec', 'exit', 'process-info'],
    ]),
  )
  for (const action of safe) expect(schema.Check({ rules: [rule({ actions: [action] })] })).toBe(false)
})

test.each([
  { name: '' },
  { name: 'a\nb' },
  { verdict: 'hide' },
  { actions: [] },
  { actions: ['file-created', 'file-created'] },
  { executable: 'relative' },
  { pathPrefix: '' },
  { pathPrefix: `/${'x'.repeat(5_000)}` },
  { userId: -1 },
  { userId: 1.5 },
  { destinationPort: 65_536 },
  { destinationAddress: 'example.org' },
  { unknown: true },
  JSON.parse('{"__proto__":1}'),
])('the schema refuses %j', (overrides) => {
  expect(schema.Check({ rules: [rule({})] })).toBe(true)
  expect(schema.Check({ rules: [rule(overrides)] })).toBe(false)
})

test('more rules than the bound are refused', () => {
  const rules = Array.from({ length: 65 }, (_, index) => rule({ name: `rule ${index}` }))
  expect(schema.Check({ rules })).toBe(false)
  expect(schema.Check({ rules: rules.slice(1) })).toBe(true)
})

test('all problems are told at once, each with its rule and what to do', () => {
  const compiled = compileTelemetryLists({
    rules: [
      { name: 'all', verdict: 'drop' },
      { name: 'all', verdict: 'keep' },
      { name: 'root', verdict: 'drop', pathPrefix: '/' },
      { name: 'address', verdict: 'always', destinationAddress: '1.2.3' },
    ],
  })
  expect(compiled).toEqual({
    ok: false,
    problems: [
      expect.stringMatching(
        /^telemetry rule "all": it would drop all of its actions: say at least one of exec/,
      ),
      'telemetry rule "all": the name is taken: give each rule its own',
      'telemetry rule "root": `pathPrefix` / is every path: name a folder',
      expect.stringMatching(/^telemetry rule "address": `destinationAddress` is no IP address: write/),
    ],
  })
})

test('a rule that says something of the process holds for none that is not known', () => {
  const compiled = compileTelemetryLists({
    rules: [rule({}), { name: 'two', verdict: 'drop', pathPrefix: '/a' }],
  })
  if (!compiled.ok) throw new Error(compiled.problems.join())
  expect(compiled.matcher.asksForProcess).toBe(true)
  expect(
    compiled.matcher
      .rulesFor(null)
      .get('file-created')
      ?.map(({ name }) => name),
  ).toEqual(['two'])
  const facts = { executable: null, parentExecutable: null, userId: 1 }
  expect(
    compiled.matcher
      .rulesFor(facts)
      .get('file-created')
      ?.map(({ name }) => name),
  ).toEqual(['one', 'two'])
})
