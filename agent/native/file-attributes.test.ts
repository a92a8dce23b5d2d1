import {
  closeSync,
  constants,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { loadBuiltAddon } from './testing/compile.ts'

const native = loadBuiltAddon()
const name = Buffer.from('user.note')

let folder: string
let fd: number
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-attributes-'))
  writeFileSync(join(folder, 'f'), 'content')
  fd = openSync(join(folder, 'f'), 'r+')
})
afterEach(() => {
  closeSync(fd)
  rmSync(folder, { recursive: true, force: true })
})

test('attributes are bytes: listed, read, replaced and removed through the descriptor', () => {
  const odd = Buffer.concat([Buffer.from('user.'), Buffer.from([0xff, 0x0a])])
  const before = native.listAttributes(fd).toString('latin1')
  native.setAttribute(fd, name, Buffer.from([0, 1, 255]))
  native.setAttribute(fd, odd, Buffer.alloc(0))
  expect(native.listAttributes(fd).toString('latin1').split('\0').sort()).toEqual(
    [...before.split('\0'), 'user.note', 'user.\xff\n'].sort(),
  )
  expect(native.getAttribute(fd, name)).toEqual(Buffer.from([0, 1, 255]))
  expect(native.getAttribute(fd, odd)).toEqual(Buffer.alloc(0))
  native.setAttribute(fd, name, Buffer.from('other'))
  expect(native.getAttribute(fd, name)?.toString()).toBe('other')
  native.removeAttribute(fd, name)
  native.removeAttribute(fd, name)
  expect(native.getAttribute(fd, name)).toBeNull()
})

test('times are set to the nanosecond, before 1970 too', () => {
  for (const [accessed, modified] of [
    [1_234_567_890_123_456_789n, 987_654_321_000_000_001n],
    [-1n, -1_500_000_001n],
    [0n, 4_102_444_800_999_999_999n],
  ] as const) {
    native.setTimes(fd, accessed, modified)
    const stat = lstatSync(join(folder, 'f'), { bigint: true })
    expect([stat.atimeNs, stat.mtimeNs]).toEqual([accessed, modified])
  }
})

test('a rename gives a new name and never takes one that is there', () => {
  mkdirSync(join(folder, 'd'))
  const [from, to] = [folder, join(folder, 'd')].map((path) => openSync(path, constants.O_RDONLY))
  if (from === undefined || to === undefined) throw new Error('not open')
  try {
    const renamed = () => native.renameNew(from, Buffer.from('f'), to, Buffer.from('g'))
    symlinkSync('nowhere', join(folder, 'd', 'g'))
    expect(renamed).toThrow('EEXIST')
    rmSync(join(folder, 'd', 'g'))
    renamed()
    expect(readFileSync(join(folder, 'd', 'g'), 'utf8')).toBe('content')
    expect(readdirSync(folder)).toEqual(['d'])
    expect(renamed).toThrow('ENOENT')
  } finally {
    closeSync(from)
    closeSync(to)
  }
})

test.each<[string, () => unknown]>([
  ['a descriptor that is closed', () => native.listAttributes(9_999)],
  ['no descriptor', () => native.getAttribute(-1, name)],
  ['a name that is a text', () => native.getAttribute(fd, 'user.note' as never)],
  ['an empty name', () => native.getAttribute(fd, Buffer.alloc(0))],
  ['a name with a zero', () => native.setAttribute(fd, Buffer.from('user.a\0b'), Buffer.alloc(1))],
  ['a name that is too long', () => native.setAttribute(fd, Buffer.alloc(256, 0x61), Buffer.alloc(1))],
  ['a value that is a text', () => native.setAttribute(fd, name, 'text' as never)],
  [
    'a namespace that does not exist',
    () => native.setAttribute(fd, Buffer.from('nobody.x'), Buffer.alloc(1)),
  ],
  ['a value that is too large', () => native.setAttribute(fd, name, Buffer.alloc(65_537))],
  ['a time that is a number', () => native.setTimes(fd, 1 as never, 1n)],
  ['a time beyond 64 bits', () => native.setTimes(fd, 1n << 64n, 1n)],
  ['a name with a slash', () => native.renameNew(fd, Buffer.from('a/b'), fd, Buffer.from('c'))],
  ['too few arguments', () => (native.setTimes as (fd: number) => void)(fd)],
])('%s is refused with an error', (_what, call) => {
  expect(call).toThrow()
  expect(readFileSync(join(folder, 'f'), 'utf8')).toBe('content')
})
