import { expect, test } from 'vitest'
import { selectHosts } from './host-list.ts'
import type { Host } from './services.ts'
import { host } from './testing/fixtures.ts'

const made = (index: number, more: Partial<Host>): Host => ({
  ...host(index.toString(16).padStart(32, '0'), more.hostName ?? `web-${index}`),
  ...more,
})
const FLEET = [
  made(1, { hostName: 'web-1', state: 'connected', bufferedRows: 7 }),
  made(2, { hostName: 'web-2', state: 'silent', lastSeenAt: null }),
  made(3, { hostName: 'db-1', state: 'connected', bufferedRows: 90 }),
]
const names = (filter: Parameters<typeof selectHosts>[1]) =>
  selectHosts(FLEET, filter).hosts.map(({ hostName }) => hostName)

test('without a wish every host is there, in the order of the list, with the counts of each state', () => {
  expect(selectHosts(FLEET, {})).toEqual({
    hosts: FLEET,
    matching: 3,
    total: 3,
    states: [
      { state: 'silent', count: 1 },
      { state: 'connected', count: 2 },
    ],
    isolated: 0,
  })
})

test('what is searched for is part of a name, an id, an address or a system, in any case', () => {
  expect(names({ search: 'WEB' })).toEqual(['web-1', 'web-2'])
  expect(names({ search: '192.0.2' })).toHaveLength(3)
  expect(names({ search: 'debian' })).toHaveLength(3)
  expect(names({ search: '0003' })).toEqual(['db-1'])
  expect(names({ search: '%' })).toEqual([])
})

test('sorted by a column, both ways; equals stand by name; what asks for attention is first', () => {
  expect(names({ sort: 'hostName' })).toEqual(['db-1', 'web-1', 'web-2'])
  expect(names({ sort: 'bufferedRows', order: 'descending' })).toEqual(['db-1', 'web-1', 'web-2'])
  expect(names({ sort: 'state' })).toEqual(['web-2', 'db-1', 'web-1'])
  expect(names({ sort: 'lastSeenAt' })[0]).toBe('web-2')
})

test('those that are cut off are found and counted, and come first of their state', () => {
  const isolation = {
    possible: true,
    reason: '',
    state: 'unconfirmed',
    commandId: null,
    since: null,
    leaseEnds: null,
  } as const
  const cutOff = made(4, { hostName: 'web-9', isolation })
  const free = made(5, { hostName: 'web-0', isolation: { ...isolation, state: 'off' } })
  const stopped = made(6, { hostName: 'web-8', state: 'stopped' })
  const all = [...FLEET, cutOff, free, stopped]
  expect(selectHosts(all, { isolated: 'yes' })).toMatchObject({ hosts: [cutOff], isolated: 1 })
  expect(selectHosts(all, { isolated: 'no' })).toMatchObject({ matching: 5, isolated: 1 })
  expect(selectHosts(all, { sort: 'state' }).hosts.map(({ hostName }) => hostName)).toEqual([
    'web-2',
    'web-8',
    'web-9',
    'db-1',
    'web-0',
    'web-1',
  ])
})

test('a page is a part of what fits, and says how much that is', () => {
  const page = selectHosts(FLEET, { state: 'connected', sort: 'hostName', offset: 1, limit: 1 })
  expect(page).toMatchObject({ matching: 2, total: 3, hosts: [{ hostName: 'web-1' }] })
})
