import { expect, test } from 'vitest'
import { createReleaser, exposeCollector } from './memory.ts'

/** The checks, of 45, that released while the process had `mebibytesAt` each. */
function releasesOf(mebibytesAt: (check: number) => number): number[] {
  const released: number[] = []
  let check = 0
  const releaseIfWorthIt = createReleaser({
    release: () => released.push(check),
    residentBytes: () => mebibytesAt(check) * 1024 ** 2,
  })
  for (; check < 45; check++) releaseIfWorthIt()
  return released
}

test('the start is given back at the first check, and what piled up every ten minutes', () => {
  expect(releasesOf(() => 100)).toEqual([0, 20, 40])
})

test('what a storm needed is given back at the next check, once', () => {
  expect(releasesOf((check) => (check >= 7 && check < 9 ? 200 : 100))).toEqual([0, 7, 27])
  expect(releasesOf((check) => (check >= 7 ? 132 : 100))).toEqual([0, 7, 27])
  expect(releasesOf((check) => (check >= 7 ? 131 : 100))).toEqual([0, 20, 40])
})

test('the collector frees what is reachable no more, and leaves no global behind', async () => {
  const collectGarbage = exposeCollector()
  const kept = { bytes: new Uint8Array(1_000) }
  const references = [new WeakRef(kept), new WeakRef({ bytes: new Uint8Array(1_000) })]
  // What a reference was made for is kept until the end of the turn.
  await new Promise(setImmediate)
  collectGarbage()
  expect(references.map((reference) => reference.deref() !== undefined)).toEqual([true, false])
  expect(kept.bytes).toHaveLength(1_000)
  expect('gc' in globalThis).toBe(false)
})
