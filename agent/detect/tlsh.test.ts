import { execFileSync } from 'node:child_process'
import { accessSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type ContentKind, content } from './testing/made-content.ts'
import { createTlsh, TLSH_BYTES_MAX, tlshLengthCode } from './tlsh.ts'

const KINDS: readonly ContentKind[] = ['noise', 'sparse', 'text']

function tlshOf(...parts: readonly Uint8Array[]): string | null {
  const tlsh = createTlsh()
  for (const part of parts) tlsh.update(part)
  return tlsh.digest()
}

// Told by the tlsh command 3.4.4, which leaves the "T1" out.
test.each([
  ['noise', 256, 'T111D02B5767705128696EB8E0EAC69836D151CD465C9844A605024E9D37D156C11001A4'],
  ['noise', 257, 'T12DD02B5767705128696EB8E4EAC69836D151CD465C9844A605024E9D37D156C11001A4'],
  ['text', 300, 'T109E0BD96543CDEF0307364C3772850AA635B0DFF018150328684F5CA1E03125483528C'],
  ['sparse', 656, 'T19CF0B602875B36627529081500BE1B1AD715BA143E178FFBA52DBD7AA3693C327D1268'],
  ['sparse', 657, 'T1D101B602875B36627529081500BE1B1AD715BA143E178FFBA52DBD7AA3693C327D1268'],
  ['text', 3_199, 'T1EE61D7E690BDEDF0B17760D7B36995AAD32A1CFF42526036D6C9FAC20E03025887860D'],
  ['text', 3_200, 'T11C61D7E690BDEDF0B17760D7B36995AAD32A1CFF42526036D6C9FAC20E03025887860D'],
  ['noise', 5_000, 'T1D8A17D935665A8317300DAC3AF5A8C3AA1614E8455EBDDB3A0373D24B310B950DC9A97'],
  ['sparse', 65_536, 'T1FD530303979B365276680D1610FD1B1EE215BF183B178BEBF528397E967A2C237D1328'],
  ['text', 100_000, 'T1CFA31FE291ADDEF0B17764D7B37889AE976A1CFF4292A03BC5C5F9C60E03051897860D'],
  ['noise', 1_048_576, 'T14325335E6339C4F23540448BDE4228DA3EAB4F5953EFE9C2A1512172FF8BF05998B8D4'],
  ['text', 8_388_608, 'T1C88651E291ADDEF0B577A4D7B379896E932A1CFF52526077C6C1F9C20E0305189B860E'],
] as const)('the digest of %s of %i bytes is that of the reference', (kind, length, digest) => {
  expect(tlshOf(content(kind, length))).toBe(digest)
})

test('a short content has the digest that version 4 gives it', () => {
  // Published with another implementation, tlsh2.
  const text = 'Sed ut perspiciatis unde omnis iste natuserror sit voluptatem accusantium'
  expect(tlshOf(Buffer.from(text))).toBe(
    'T184A022B383C2A2A20ACB0830880CF0202CCAC080033A023800338A30B0880AA8E0BE38',
  )
})

test.each([
  ['no bytes', Buffer.alloc(0)],
  ['less than 50 bytes', content('noise', 49)],
  ['equal bytes', Buffer.alloc(100_000)],
  ['few different windows', Buffer.alloc(100_000, 'abcdefg')],
  ['more than the bound', content('noise', TLSH_BYTES_MAX + 1)],
])('a content of %s has no digest', (_, bytes) => {
  expect(tlshOf(bytes)).toBeNull()
})

test('50 bytes are enough, and so is the bound', () => {
  expect(tlshOf(content('noise', 50))).toMatch(/^T1[0-9A-F]{70}$/)
  expect(tlshOf(content('sparse', TLSH_BYTES_MAX))).toMatch(/^T1[0-9A-F]{70}$/)
})

test('parts make the same digest as the whole, wherever it is cut', () => {
  const bytes = content('text', 400)
  const whole = tlshOf(bytes)
  for (let first = 0; first < 12; first += 1) {
    for (let second = first; second < 16; second += 1) {
      const parts = [bytes.subarray(0, first), bytes.subarray(first, second), bytes.subarray(second)]
      expect(tlshOf(...parts)).toBe(whole)
    }
  }
  expect(tlshOf(...Array.from(bytes, (byte) => Uint8Array.of(byte)))).toBe(whole)
})

test('a new content starts from nothing', () => {
  const tlsh = createTlsh()
  tlsh.update(content('noise', TLSH_BYTES_MAX + 1))
  tlsh.reset()
  tlsh.update(content('text', 300))
  expect(tlsh.digest()).toBe(tlshOf(content('text', 300)))
})

test('the length code is the logarithm that the paper gives, for every length up to the bound', () => {
  const logarithm = (length: number) => {
    // In single precision, as the reference had it before it had a table.
    const log = Math.fround(Math.log(length))
    if (length <= 656) return Math.floor(log / 0.4054651)
    if (length <= 3_199) return Math.floor(log / 0.26236426 - 8.72777)
    return Math.floor(log / 0.09531018 - 62.5472)
  }
  const different: number[] = []
  for (let length = 1; length <= TLSH_BYTES_MAX; length += 1) {
    if (tlshLengthCode(length) !== logarithm(length)) different.push(length)
  }
  expect(different).toEqual([])
})

const isInstalled = (() => {
  try {
    accessSync('/usr/bin/tlsh')
    return true
  } catch {
    return false
  }
})()

test.skipIf(!isInstalled)('the tlsh command says the same of made and of real contents', () => {
  const folder = mkdtempSync(join(tmpdir(), 'cordon-tlsh-'))
  try {
    const program = readFileSync('/bin/ls')
    const expected = new Map<string, string | null>()
    for (let length = 256; length < 200_000; length = Math.floor(length * 1.3)) {
      const all = [...KINDS.map((kind) => content(kind, length)), program.subarray(0, length)]
      for (const [index, bytes] of all.entries()) {
        const path = join(folder, `${length}-${index}`)
        writeFileSync(path, bytes)
        expected.set(path, tlshOf(bytes))
      }
    }
    const output = execFileSync('/usr/bin/tlsh', ['-r', folder], { encoding: 'latin1', stdio: 'pipe' })
    const told = output.matchAll(/^([0-9A-F]{70})\t(.+)$/gm).map(([, digest, path]) => [path, `T1${digest}`])
    const digests = [...expected].filter(([, digest]) => digest !== null)
    expect(new Map(told as Iterable<[string, string]>)).toEqual(new Map(digests))
    expect(digests.length).toBeGreaterThan(80)
  } finally {
    rmSync(folder, { recursive: true })
  }
})
