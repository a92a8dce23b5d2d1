import { randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import { formatBreakGlassCode, hashBreakGlassCode, parseBreakGlassCode } from './break-glass.ts'

test('a code is read back from what is shown, however it is typed', () => {
  for (let round = 0; round < 200; round += 1) {
    const bytes = randomBytes(16)
    const shown = formatBreakGlassCode(bytes)
    expect(shown).toMatch(/^([A-Z2-7]{5}-){5}[A-Z2-7]$/)
    expect(parseBreakGlassCode(shown)).toEqual(bytes)
    expect(parseBreakGlassCode(` ${shown.toLowerCase().replaceAll('-', ' ')}\n`)).toEqual(bytes)
  }
})

test('codes at both ends of their range are told as RFC 4648 does', () => {
  expect(formatBreakGlassCode(Buffer.alloc(16))).toBe('AAAAA-AAAAA-AAAAA-AAAAA-AAAAA-A')
  expect(formatBreakGlassCode(Buffer.alloc(16, 0xff))).toBe('77777-77777-77777-77777-77777-4')
})

test.each(['', 'A', 'AAAAA-AAAAA-AAAAA-AAAAA-AAAAA-1', 'AAAAA-AAAAA-AAAAA-AAAAA-AAAAA-B', '7'.repeat(27)])(
  'what is no code is none: %s',
  (typed) => expect(parseBreakGlassCode(typed)).toBeNull(),
)

test('the hash is of the code with its purpose, so that another hash of the same bytes is worth nothing', () => {
  expect(hashBreakGlassCode(Buffer.alloc(16))).toMatch(/^[0-9a-f]{64}$/)
  expect(hashBreakGlassCode(Buffer.alloc(16))).not.toBe(hashBreakGlassCode(Buffer.alloc(16, 1)))
})
