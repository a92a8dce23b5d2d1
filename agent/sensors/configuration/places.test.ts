import { expect, test } from 'vitest'
import { ancestors } from './home-places.ts'
import { createPlaces } from './places.ts'
import { WATCHED_FILES, WATCHED_FOLDERS } from './watched-places.ts'

const places = createPlaces({ list: () => [] })
const paths = [
  ...WATCHED_FILES.flatMap(([, files]) => files),
  ...WATCHED_FOLDERS.flatMap(([, , folders]) => folders),
]

test('no watched place, and no folder on the way to one, is taken for one that does not matter', () => {
  expect(paths.length).toBeGreaterThan(80)
  for (const path of paths) {
    expect([path, places.mayMatter(path), places.mayMatter(`${path}/x`)]).toEqual([path, true, true])
    for (const way of ancestors(path))
      expect([way, places.mayMatter(way), places.concerns(way)]).toEqual([way, true, true])
  }
})

test('what nearly all events are about does not matter', () => {
  for (const path of [
    '/var/lib/docker/x',
    '/tmp/a',
    '/home/u/project/file.ts',
    '/usr/share/doc/x',
    '/proc/1/x',
    '',
  ]) {
    expect([path, places.mayMatter(path)]).toEqual([path, false])
  }
})
