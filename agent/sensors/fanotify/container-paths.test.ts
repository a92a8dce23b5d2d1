import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createPathTranslator } from './container-paths.ts'

const translate = createPathTranslator([
  { prefix: '/var/lib/c/1/diff', containerFolder: '/', namespaceInode: 1 },
  { prefix: '/var/lib/c/2/diff', containerFolder: '/data', namespaceInode: 2 },
  { prefix: '/var/lib/c/1/diff/inner', containerFolder: '/mounted', namespaceInode: 3 },
  { prefix: '/var/lib/c/1/diff', containerFolder: '/second', namespaceInode: 4 },
])

test.each([
  ['/var/lib/c/1/diff/etc/passwd', '/etc/passwd', 1],
  ['/var/lib/c/1/diff/top', '/top', 1],
  ['/var/lib/c/2/diff/a/b', '/data/a/b', 2],
  ['/var/lib/c/1/diff/inner/x', '/mounted/x', 3],
  ['/var/lib/c/1/diff/innermost/x', '/innermost/x', 1],
])('%s is %s in its container', (path, containerPath, namespaceInode) => {
  expect(translate(path)).toMatchObject({ containerPath, namespaceInode })
  // The second time it comes from the cache.
  expect(translate(path)).toMatchObject({ containerPath, namespaceInode })
})

test.each([
  '/etc/passwd',
  '/var/lib/c/1/difference/x',
  '/var/lib/c/1/diff',
  '/var/lib/c/3/diff/x',
  '/',
  '',
  'x',
])('%j lies in no container', (path) => {
  expect(translate(path)).toBeNull()
})

test('a path of bytes is translated by its folders, also below a folder that is no text', () => {
  const path = Buffer.concat([Buffer.from('/var/lib/c/2/diff/'), Buffer.from([0xff]), Buffer.from('/a\n')])
  const inside = Buffer.concat([Buffer.from('/data/'), Buffer.from([0xff]), Buffer.from('/a\n')])
  expect(translate(new Uint8Array(path))?.containerPath).toEqual(new Uint8Array(inside))
  expect(translate(new Uint8Array([0xff, 0x2f, 0x41]))).toBeNull()
})

test('without containers nothing is translated, and no path makes it throw', () => {
  expect(createPathTranslator([])('/a/b')).toBeNull()
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.uint8Array(), fc.constantFrom('/', '//', '/var//lib')), (path) => {
      expect(() => translate(path)).not.toThrow()
    }),
  )
})

test('whatever the folders, the innermost that holds the path answers', () => {
  const part = fc.constantFrom('a', 'b', 'aa')
  const folder = fc.array(part, { minLength: 1, maxLength: 4 }).map((parts) => `/${parts.join('/')}`)
  fc.assert(
    fc.property(fc.array(folder, { maxLength: 6 }), folder, (prefixes, parent) => {
      const path = `${parent}/file`
      const folders = prefixes.map((prefix, namespaceInode) => ({
        prefix,
        containerFolder: '/',
        namespaceInode,
      }))
      const expected = prefixes
        .filter((prefix) => path.startsWith(`${prefix}/`))
        .sort((left, right) => right.length - left.length)[0]
      expect(createPathTranslator(folders)(path)?.rootPrefix).toBe(expected)
    }),
  )
})
