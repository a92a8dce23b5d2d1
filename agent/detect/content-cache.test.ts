import { expect, test } from 'vitest'
import { createContentCache } from './content-cache.ts'
import type { OpenedIdentity } from './open-target.ts'
import type { ExaminedReply } from './scan-reply.ts'

const identity = (inode: number, rest: Partial<OpenedIdentity> = {}): OpenedIdentity => ({
  device: 1,
  inode,
  exactInode: String(inode),
  sizeBytes: 10,
  changedNs: 5n,
  ...rest,
})
const reply = (content: string, rest: Partial<ExaminedReply> = {}): ExaminedReply => ({
  kind: 'examined',
  id: 1,
  sizeBytes: 10,
  changedNs: '5',
  hashes: { sha256: content.repeat(64), sha1: content.repeat(40), md5: content.repeat(32) },
  tlsh: null,
  entropy: 1.5,
  header: '00ff',
  mimeType: 'application/octet-stream',
  scannedBytes: 10,
  scanProblem: null,
  hits: [],
  ...rest,
})

test('a content is known until the size or the change time of its file is another', () => {
  const cache = createContentCache(100)
  const facts = cache.remember(null, reply('a'), identity(1))
  expect(cache.find(identity(1))).toMatchObject({ facts })
  expect(cache.find(identity(1, { sizeBytes: 11 }))).toBeUndefined()
  expect(cache.find(identity(1, { changedNs: 6n }))).toBeUndefined()
  expect(cache.find(identity(2))).toBeUndefined()
})

test('all that was told of a content is kept, and nothing of the answer around it', () => {
  const { kind, id, sizeBytes, changedNs, ...facts } = reply('a')
  expect(createContentCache(100).remember(null, reply('a'), identity(1))).toEqual(facts)
})

test('equal contents share one result', () => {
  const cache = createContentCache(100)
  const first = cache.remember(null, reply('a'), identity(1))
  expect(cache.remember(null, reply('a'), identity(2))).toBe(first)
  expect(cache.remember(null, reply('b'), identity(3))).not.toBe(first)
})

test.each([
  ['changed while it was read', { changedNs: '6' }],
  ['grew while it was read', { sizeBytes: 11 }],
  ['was not scanned to its end', { scanProblem: 'timeout' as const }],
  ['was not scanned at all', { scanProblem: 'failed' as const }],
])('a content that %s is told and not kept', (_, rest) => {
  const cache = createContentCache(100)
  expect(cache.remember(null, reply('a', rest), identity(1)).header).toBe('00ff')
  expect(cache.find(identity(1))).toBeUndefined()
})

test('it is found by the device that the kernel names too, when the file is the same', () => {
  const cache = createContentCache(100)
  cache.remember(identity(1, { device: 40 }), reply('a'), identity(1))
  expect(cache.find(identity(1, { device: 40 }))?.identity.device).toBe(1)
  cache.remember(identity(2, { device: 40, changedNs: 4n }), reply('a'), identity(2))
  expect(cache.find(identity(2, { device: 40, changedNs: 4n }))).toBeUndefined()
})

test('a content too large to hash is known by its file alone, and the number of entries is bounded', () => {
  const cache = createContentCache(10)
  for (let inode = 0; inode < 1_000; inode += 1) {
    cache.remember(null, reply('', { hashes: null, entropy: null }), identity(inode))
  }
  const known = Array.from({ length: 1_000 }, (_, inode) => cache.find(identity(inode))).filter(Boolean)
  expect(known.length).toBeGreaterThan(0)
  expect(known.length).toBeLessThanOrEqual(10)
})
