import { expect, test } from 'vitest'
import type { EventOf } from '../../shared/events/event.ts'
import { createTakings } from './takings.ts'

const ID = 'ab'.repeat(16)

function step(action: string): EventOf<'action-state'> {
  return {
    '@timestamp': '2026-01-01T00:00:00.000Z',
    'event.kind': 'event',
    'event.category': 'host',
    'event.type': 'change',
    'event.action': 'action-state',
    'cordon.command.id': ID,
    'cordon.command.action': action,
    'cordon.command.state': 'received',
    'event.reason': '',
    'cordon.command.proof': {},
  }
}

test('the folder of a command that takes a file is the agent’s own, for a while', () => {
  let nowMs = 1_000_000
  const takings = createTakings(() => nowMs)
  const taken = `/srv/data/.cordon-${ID}/taken`
  expect(takings.isWithin(taken)).toBe(false)
  takings.note(step('quarantineFile'))
  expect(takings.isWithin(taken)).toBe(true)
  expect(takings.isWithin(`/srv/data/.cordon-${ID}`)).toBe(true)
  nowMs += 60_000
  expect(takings.isWithin(taken)).toBe(false)
})

test.each([
  `/srv/.cordon-${'cd'.repeat(16)}/taken`,
  `/srv/.cordon-${ID}x/taken`,
  `/srv/cordon-${ID}/taken`,
  `/srv/.cordon-${ID.toUpperCase()}/taken`,
])('%s is nobody’s but who made it', (path) => {
  const takings = createTakings(() => 0)
  takings.note(step('quarantineFile'))
  expect(takings.isWithin(path)).toBe(false)
})

test('commands that take no file make no folder the agent’s own', () => {
  const takings = createTakings(() => 0)
  takings.note(step('killProcess'))
  expect(takings.isWithin(`/srv/.cordon-${ID}/taken`)).toBe(false)
})
