import { expect, test } from 'vitest'
import { parseEvent } from '../../shared/protocol/parse.ts'
import { tampered } from './events.ts'
import { foreignCode } from './foreign-code.ts'

test('a library that was loaded before the agent is told with its path', () => {
  expect(foreignCode({ PATH: '/bin', LD_PRELOAD: '/tmp/evil.so' })).toEqual([
    expect.stringContaining('LD_PRELOAD=/tmp/evil.so'),
  ])
  expect(foreignCode({ LD_PRELOAD: 'a.so', LD_AUDIT: 'b.so' })).toHaveLength(2)
})

test('an environment without one, or with an empty one, tells nothing', () => {
  expect(foreignCode({ PATH: '/bin', LD_PRELOAD: ' ', LD_LIBRARY_PATH: '/opt/lib' })).toEqual([])
})

test('however long the value is, the event is a valid one', () => {
  const [reason = ''] = foreignCode({ LD_PRELOAD: 'x'.repeat(100_000) })
  const event = tampered(reason, 1_700_000_000_000)
  expect(parseEvent(JSON.stringify(event))).toMatchObject({ ok: true })
})
