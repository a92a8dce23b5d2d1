import { expect, test } from 'vitest'
import type { PamLibrary } from './pam-library.ts'
import { createPamWatch } from './pam-watch.ts'

const library = (identity: string): PamLibrary => ({
  path: `/lib/${identity}/libpam.so.0`,
  identity,
  symbols: { pam_open_session: 100 },
})

function setUp() {
  const world = { nowMs: 0, roots: [] as string[], libraries: [library('1:1')], looks: [] as string[][] }
  const watch = createPamWatch({
    roots: () => world.roots,
    clock: () => world.nowMs,
    find(roots) {
      world.looks.push([...roots])
      return { libraries: world.libraries, refused: [] }
    },
  })
  return { world, watch }
}

test('the host’s library is probed once, however often it is looked for', () => {
  const { world, watch } = setUp()
  const probed: string[] = []
  watch.attach(({ identity }) => probed.push(identity))
  for (world.nowMs = 0; world.nowMs < 600_000; world.nowMs += 1_000) watch.tick()
  expect(probed).toEqual(['1:1'])
  expect(world.looks.length).toBeLessThan(15)
  expect(watch.status()).toEqual({ probed: 1, problem: null })
})

test('a container’s library is probed soon after a namespace appeared', () => {
  const { world, watch } = setUp()
  const probed: string[] = []
  watch.attach(({ identity }) => probed.push(identity))
  world.roots = ['/proc/77/root']
  world.libraries = [library('1:1'), library('9:9')]
  watch.lookSoon()
  world.nowMs = 1_500
  watch.tick()
  expect(world.looks.at(-1)).toEqual(['', '/proc/77/root'])
  expect(probed).toEqual(['1:1', '9:9'])
})

test('programs that are loaded anew probe everything again', () => {
  const { watch } = setUp()
  const probed: string[] = []
  watch.attach(({ identity }) => probed.push(identity))
  watch.detach()
  expect(watch.status().probed).toBe(0)
  watch.attach(({ identity }) => probed.push(identity))
  expect(probed).toEqual(['1:1', '1:1'])
})

test('a kernel that refuses is told with the library, and is asked again later', () => {
  const { world, watch } = setUp()
  let refuses = true
  watch.attach(() => {
    if (refuses) throw new Error('perf_event_open: EPERM')
  })
  expect(watch.status()).toEqual({ probed: 0, problem: '/lib/1:1/libpam.so.0: perf_event_open: EPERM' })
  refuses = false
  world.nowMs = 60_000
  watch.tick()
  expect(watch.status()).toEqual({ probed: 1, problem: null })
})
