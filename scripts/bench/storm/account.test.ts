import { expect, test } from 'vitest'
import { accountFor, type Fields } from './account.ts'

const isOfStorm = (pid: number) => pid === 7
const event = (action: string, more: Fields = {}): Fields => ({
  'event.action': action,
  'process.pid': 7,
  ...more,
})
const gap = (actions: Record<string, number>, pid?: number): Fields => ({
  'event.action': 'gap',
  'event.reason': 'lost',
  'cordon.gap.class': 3,
  'cordon.gap.count': Object.values(actions).reduce((sum, count) => sum + count, 0),
  'cordon.gap.actions': actions,
  ...(pid === undefined ? {} : { 'process.pid': pid }),
})

test('what is seen, what stands for more than itself and what gaps tell adds up to what was made', () => {
  const account = accountFor(
    { made: { 'file-created': 10, 'file-deleted': 4 } },
    isOfStorm,
    [event('file-created', { 'cordon.file.repeated': 2 }), event('file-deleted')],
    [gap({ 'file-created': 5, 'file-modified': 9 }, 7), gap({ 'file-created': 2, 'file-deleted': 3 })],
  )
  expect(account).toMatchObject({
    made: 14,
    seen: 4,
    gap: 10,
    unaccounted: 0,
    repeated: 2,
    gapOfNobody: { lost: 5 },
  })
})

test('gaps of other processes count for nothing', () => {
  const account = accountFor({ made: { exec: 2 } }, isOfStorm, [event('exec')], [gap({ exec: 1 }, 8)])
  expect(account).toMatchObject({ seen: 1, gap: 0, unaccounted: 1, unaccountedByAction: { exec: 1 } })
})

test('events whose folder was gone are of others, because that of the storm stays', () => {
  const gone = { ...gap({ exec: 1 }), 'event.reason': 'fanotify:folder-gone lost observations' }
  expect(accountFor({ made: { exec: 1 } }, isOfStorm, [], [gone])).toMatchObject({ gap: 0, gapOfNobody: {} })
})

test('writes that are neither seen nor lost are merged, and more writes than were made are told twice', () => {
  const expected = { made: { 'file-created': 3, 'file-modified': 3 }, mergeable: 'file-modified' } as const
  const created = [event('file-created'), event('file-created'), event('file-created')]
  const some = accountFor(
    expected,
    isOfStorm,
    [...created, event('file-modified')],
    [gap({ 'file-modified': 1 }, 7)],
  )
  expect(some).toMatchObject({ made: 5, seen: 4, gap: 1, unaccounted: 0, merged: 1 })
  const tooMany = accountFor(expected, isOfStorm, created, [gap({ 'file-modified': 4 }, 7)])
  expect(tooMany).toMatchObject({ made: 6, merged: 0, unaccounted: -1 })
})

test('an action that is told twice and another that is lost are told apart', () => {
  const account = accountFor({ made: { exec: 1, exit: 1 } }, isOfStorm, [event('exec'), event('exec')], [])
  expect(account).toMatchObject({ unaccounted: 0, unaccountedByAction: { exec: -1, exit: 1 } })
})

test('what the buffer dropped counts when it is of the same class, and a loss without a number is told', () => {
  const dropped = (eventClass: number, count: number | null): Fields => ({
    'event.action': 'gap',
    'event.reason': 'full',
    'cordon.gap.class': eventClass,
    'cordon.gap.count': count,
  })
  const account = accountFor(
    { made: { exec: 5 } },
    isOfStorm,
    [],
    [dropped(2, 4), dropped(3, 100), dropped(2, null)],
  )
  expect(account).toMatchObject({ gap: 4, gapOfNobody: { full: 4 }, unaccounted: 1, uncounted: 1 })
})
