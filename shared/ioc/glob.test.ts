import fc from 'fast-check'
import { expect, test } from 'vitest'
import { compileGlob, GLOB_CHARACTERS_MAX } from './glob.ts'

test.each([
  ['*.sh', 'a.sh', true],
  ['*.sh', '.sh', true],
  ['*.sh', 'a.sh.txt', false],
  ['/tmp/*', '/tmp/a', true],
  ['/tmp/*', '/tmp/a/b', false],
  ['/tmp/**', '/tmp/a/b', true],
  ['**/x', '/a/b/x', true],
  ['/t?p/x', '/tmp/x', true],
  ['/tmp?x', '/tmp/x', false],
  ['a\\*b', 'a*b', true],
  ['a\\*b', 'axb', false],
  ['a\\', 'a\\', true],
  ['***', '/any/thing', true],
  ['a*a', 'a', false],
])('%s on %s is %s', (pattern, text, isMatch) => {
  expect(compileGlob(pattern)(text)).toBe(isMatch)
})

/** The meaning spelt out: slow for some patterns, and plainly right. */
function plainGlob(pattern: string, text: string): boolean {
  if (pattern === '') return text === ''
  const [first] = pattern
  if (pattern.startsWith('**')) {
    return plainGlob(pattern.slice(2), text) || (text !== '' && plainGlob(pattern, text.slice(1)))
  }
  if (first === '*') {
    return (
      plainGlob(pattern.slice(1), text) ||
      (text !== '' && text[0] !== '/' && plainGlob(pattern, text.slice(1)))
    )
  }
  if (first === '?') return text !== '' && text[0] !== '/' && plainGlob(pattern.slice(1), text.slice(1))
  const isEscape = first === '\\' && pattern.length > 1
  const literal = isEscape ? pattern[1] : first
  return text[0] === literal && plainGlob(pattern.slice(isEscape ? 2 : 1), text.slice(1))
}

test('random globs match as their meaning spelt out does', () => {
  const pattern = fc.array(fc.constantFrom('a', 'b', '/', '*', '**', '?', '\\'), { maxLength: 9 })
  const text = fc.array(fc.constantFrom('a', 'b', '/', '*', '\\'), { maxLength: 9 })
  fc.assert(
    fc.property(pattern, text, (parts, letters) => {
      const glob = parts.join('')
      expect(compileGlob(glob)(letters.join(''))).toBe(plainGlob(glob, letters.join('')))
    }),
    { numRuns: 20_000 },
  )
})

test('a glob made to backtrack ends, and says no', () => {
  const hostile = compileGlob(`${'*a'.repeat(GLOB_CHARACTERS_MAX / 2 - 1)}*b`)
  expect(hostile('a'.repeat(4_096))).toBe(false)
})

test('a glob longer than the bound is refused', () => {
  expect(() => compileGlob('*'.repeat(GLOB_CHARACTERS_MAX + 1))).toThrow(RangeError)
})
