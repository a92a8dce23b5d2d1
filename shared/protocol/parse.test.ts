import fc from 'fast-check'
import Type from 'typebox'
import { expect, test } from 'vitest'
import { CONTROL_BYTES_MAX, EVENT_BYTES_MAX, JSON_DEPTH_MAX } from './limits.ts'
import { AGENT_MESSAGES, CONTROLLER_MESSAGES } from './messages.ts'
import { compileSchema, parseEvent, parseMessage, parseStrict } from './parse.ts'

const cancel = { kind: 'cancelCommand', commandId: 'ab'.repeat(16) }
const tamper = {
  '@timestamp': '2026-01-02T03:04:05.678Z',
  'event.kind': 'alert',
  'event.category': 'host',
  'event.type': 'info',
  'event.action': 'tamper',
  'event.reason': 'a file of the agent was written',
}
const actionState = {
  '@timestamp': '2026-01-02T03:04:05.678Z',
  'event.kind': 'event',
  'event.category': 'host',
  'event.type': 'change',
  'event.action': 'action-state',
  'cordon.command.id': 'ab'.repeat(16),
  'cordon.command.action': 'killProcess',
  'cordon.command.state': 'done',
  'event.reason': 'ended',
  'cordon.command.proof': {} as Record<string, unknown>,
}

const kindOf = (result: ReturnType<typeof parseEvent> | ReturnType<typeof parseMessage>) =>
  result.ok ? 'ok' : result.error.kind

test('a well formed message of its side is parsed into its value', () => {
  expect(parseMessage(CONTROLLER_MESSAGES, JSON.stringify(cancel))).toEqual({ ok: true, value: cancel })
  expect(parseEvent(JSON.stringify(tamper))).toEqual({ ok: true, value: tamper })
})

test('a message of the other side is an unknown kind', () => {
  expect(kindOf(parseMessage(AGENT_MESSAGES, JSON.stringify(cancel)))).toBe('unknownKind')
})

test.each([
  ['', 'notJson'],
  ['{', 'notJson'],
  ['null', 'invalid'],
  ['[]', 'invalid'],
  ['"text"', 'invalid'],
  ['1', 'invalid'],
  ['{}', 'unknownKind'],
  ['{"kind":1}', 'unknownKind'],
  ['{"kind":"__proto__"}', 'unknownKind'],
  ['{"kind":"constructor"}', 'unknownKind'],
  ['{"kind":"toString"}', 'unknownKind'],
  ['{"__proto__":{"kind":"keysetRequest"}}', 'unknownKind'],
  ['{"kind":"keysetRequest","__proto__":{"a":1}}', 'notCanonical'],
  ['{"kind":"keysetRequest","extra":1}', 'invalid'],
  ['{"kind":"keysetRequest","kind":"keysetRequest"}', 'notCanonical'],
  ['{"kind":"status","kind":"keysetRequest"}', 'notCanonical'],
  ['{"kind": "keysetRequest"}', 'notCanonical'],
  [' {"kind":"keysetRequest"}', 'notCanonical'],
  ['{"kind":"keysetRequest"}\n', 'notCanonical'],
  ['{"kind":"keyset\\u0052equest"}', 'notCanonical'],
  ['\ufeff{"kind":"keysetRequest"}', 'notJson'],
  ['{"kind":"keysetRequest"}{"kind":"keysetRequest"}', 'notJson'],
])('hostile input %s is refused as %s', (text, kind) => {
  expect(kindOf(parseMessage(AGENT_MESSAGES, text))).toBe(kind)
})

test.each([
  ['9007199254740993', 'invalid'],
  ['9007199254740992', 'invalid'],
  ['1e3', 'notCanonical'],
  ['1.0', 'notCanonical'],
  ['-0', 'notCanonical'],
  ['1e400', 'invalid'],
  ['0.5', 'invalid'],
  ['-1', 'invalid'],
])('the number %s is refused as %s', (number, kind) => {
  const text = `{"kind":"acknowledgement","streamId":"${'0'.repeat(32)}","class":1,"sequence":${number}}`
  expect(kindOf(parseMessage(CONTROLLER_MESSAGES, text))).toBe(kind)
})

test('a number past 2^53 that reads as another number is refused where the schema is open', () => {
  const check = compileSchema(Type.Record(Type.String(), Type.Unknown()))
  expect(parseStrict(check, '{"a":9007199254740993}')).toMatchObject({ error: { kind: 'notCanonical' } })
})

test('the key __proto__ is refused in records with free keys, and welcome as text', () => {
  const key = JSON.stringify(actionState).replace(
    '"cordon.command.proof":{}',
    '"cordon.command.proof":{"__proto__":1}',
  )
  expect(kindOf(parseEvent(key))).toBe('notCanonical')
  const text = JSON.stringify({ ...tamper, 'event.reason': 'node -e \'x["__proto__":1]\' {"__proto__":{}}' })
  expect(kindOf(parseEvent(text))).toBe('ok')
})

test('depth is bounded before anything is parsed, and brackets inside strings do not count', () => {
  const check = compileSchema(Type.Unknown())
  const nested = (depth: number) => '['.repeat(depth) + ']'.repeat(depth)
  expect(parseStrict(check, nested(JSON_DEPTH_MAX)).ok).toBe(true)
  expect(parseStrict(check, nested(JSON_DEPTH_MAX + 1))).toMatchObject({ error: { kind: 'tooDeep' } })
  expect(parseStrict(check, '[{"a":'.repeat(20_000))).toMatchObject({ error: { kind: 'tooDeep' } })
  const inside = JSON.stringify({ ...tamper, 'event.reason': `\\"${'[{'.repeat(200)}\\` })
  expect(kindOf(parseEvent(inside))).toBe('ok')
})

test('brackets in strings, however many, leave the depth of what is around them to be seen', () => {
  const check = compileSchema(Type.Unknown())
  for (const depth of [JSON_DEPTH_MAX, JSON_DEPTH_MAX + 1]) {
    const text = `${'['.repeat(depth)}"{[[\\"[{"${']'.repeat(depth)}`
    expect(parseStrict(check, text).ok).toBe(depth <= JSON_DEPTH_MAX)
  }
})

test('a closed schema and its check by a set of keys say the same of every object', () => {
  const fields = fc.record(
    {
      kind: fc.constant('cancelCommand'),
      commandId: fc.constantFrom('ab'.repeat(16), 'ab', 1),
      extra: fc.anything(),
      constructor: fc.constant('x'),
    },
    { requiredKeys: ['kind'] },
  )
  const whole = compileSchema(CONTROLLER_MESSAGES.cancelCommand)
  fc.assert(
    fc.property(fields, (value) => {
      const text = JSON.stringify(value)
      expect(parseMessage(CONTROLLER_MESSAGES, text).ok).toBe(parseStrict(whole, text).ok)
    }),
  )
})

test('length is counted in bytes of UTF-8, not in characters', () => {
  const check = compileSchema(Type.Unknown())
  for (const [character, bytes] of [
    ['a', 1],
    ['\u00e4', 2],
    ['\u20ac', 3],
    ['\u{1f600}', 4],
  ] as const) {
    const fits = `"${character.repeat((3_000 - 2) / bytes)}"`
    const length = Buffer.byteLength(fits)
    expect(parseStrict(check, fits, length).ok).toBe(true)
    expect(parseStrict(check, fits, length - 1)).toMatchObject({ error: { kind: 'tooLong' } })
  }
  expect(kindOf(parseMessage(AGENT_MESSAGES, `"${'a'.repeat(CONTROL_BYTES_MAX)}"`))).toBe('tooLong')
  expect(kindOf(parseEvent(`"${'a'.repeat(EVENT_BYTES_MAX)}"`))).toBe('tooLong')
})

test('the reason names the field and never repeats a long value', () => {
  const result = parseEvent(JSON.stringify({ ...tamper, 'event.reason': 'x'.repeat(5_000) }))
  expect(result).toMatchObject({ ok: false, error: { kind: 'invalid', path: '/event.reason' } })
  expect(JSON.stringify(result).length).toBeLessThan(500)
})

test('whatever comes, parsing ends in a value and never throws', () => {
  const seeds = [JSON.stringify(cancel), JSON.stringify(tamper), JSON.stringify(actionState)]
  const mutated = fc
    .tuple(
      fc.constantFrom(...seeds),
      fc.nat(),
      fc.nat({ max: 8 }),
      fc.string({ unit: 'binary', maxLength: 6 }),
    )
    .map(([seed, at, drop, text]) => {
      const index = at % (seed.length + 1)
      return seed.slice(0, index) + text + seed.slice(index + drop)
    })
  fc.assert(
    fc.property(fc.oneof(mutated, fc.json(), fc.string({ unit: 'binary' })), (text) => {
      for (const result of [
        parseEvent(text),
        parseMessage(AGENT_MESSAGES, text),
        parseMessage(CONTROLLER_MESSAGES, text),
      ]) {
        // What is accepted is canonical: reading it again by any means gives the same text.
        if (result.ok) expect(JSON.stringify(result.value)).toBe(text)
      }
    }),
    { numRuns: 3_000 },
  )
})

test.each([undefined, null, 1, {}, []])('a value that is no text (%s) is refused', (value) => {
  expect(kindOf(parseEvent(value as unknown as string))).toBe('notJson')
})
