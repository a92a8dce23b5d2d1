import { execFileSync, spawnSync } from 'node:child_process'
import {
  closeSync,
  copyFileSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { readElfLayout } from './elf-layout.ts'
import { putVersionStub } from './put-stub.ts'

const VERSION = '1.2.3-test+4'
const sources = join(import.meta.dirname, 'testing')
let folder: string
/** A position-independent one, as it was linked. */
let original: string

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-stub-test-'))
  compile('libfarewell.so', 'farewell.c', ['-shared', '-fPIC'])
  original = compile('original', 'probe.c', ['-pie', '-fPIE', ...withLibrary()])
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function compile(name: string, source: string, flags: readonly string[]): string {
  const output = join(folder, name)
  execFileSync('gcc', ['-Wall', '-Wextra', '-Werror', '-O2', '-o', output, join(sources, source), ...flags])
  return output
}

function withLibrary(): string[] {
  return ['-Wl,--no-as-needed', `-L${folder}`, '-lfarewell', `-Wl,-rpath,${folder}`]
}

function run(path: string, args: readonly string[], stdout: 'pipe' | number = 'pipe') {
  const env = { EMPTY: '', NAME: 'value of it' }
  const ran = spawnSync(path, args, { env, encoding: 'utf8', stdio: ['ignore', stdout, 'pipe'] })
  return { code: ran.status, signal: ran.signal, stdout: ran.stdout, stderr: ran.stderr }
}

/** A copy of the original that may be changed. */
function copy(change: (bytes: Buffer) => void = () => undefined): string {
  const path = join(folder, 'copy')
  const bytes = readFileSync(original)
  change(bytes)
  writeFileSync(path, bytes, { mode: 0o755 })
  return path
}

describe.each([
  ['position independent', ['-pie', '-fPIE'], true],
  ['at a fixed address', ['-no-pie'], true],
  ['stripped', ['-pie', '-fPIE', '-s'], true],
  ['static', ['-static'], false],
  ['static and position independent', ['-static-pie', '-fPIE'], false],
])('a program %s', (name, flags, hasLibrary) => {
  let path: string
  let before: ReturnType<typeof run>[]
  const others = [
    [],
    ['--version', ''],
    ['--version', '--version'],
    ['-V', '-V'],
    ['x', '--version'],
    ['--versio'],
    ['--versions'],
    [''],
    ['-'],
    ['-v'],
    ['-VV'],
    ['x'.repeat(100_000)],
  ]
  beforeAll(() => {
    path = compile(name.replaceAll(' ', '-'), 'probe.c', [...flags, ...(hasLibrary ? withLibrary() : [])])
    before = others.map((args) => run(path, args))
    expect(putVersionStub(path, VERSION)).toEqual({ kind: 'put' })
  })

  test.each(['--version', '-V'])('%s is answered without it', (option) => {
    expect(run(path, [option])).toEqual({ code: 0, signal: null, stdout: `${VERSION}\n`, stderr: '' })
  })

  test('is given every other list of arguments as if nothing were before it', () => {
    expect(before[0]).toMatchObject({ code: 7, signal: null, stderr: '' })
    if (hasLibrary) expect(before[0]?.stdout).toMatch(/farewell\n$/)
    expect(others.map((args) => run(path, args))).toEqual(before)
  })

  test('an answer that cannot be written is a failure', () => {
    const full = openSync('/dev/full', 'w')
    try {
      expect(run(path, ['--version'], full)).toMatchObject({ code: 1, signal: null })
    } finally {
      closeSync(full)
    }
    expect(spawnSync('sh', ['-c', '"$0" --version >&-', path]).status).toBe(1)
  })
})

test('every register comes through', () => {
  const path = compile('registers', 'registers.c', ['-static', '-nostdlib'])
  expect(run(path, ['x'])).toMatchObject({ code: 0 })
  putVersionStub(path, VERSION)
  expect(run(path, ['x'])).toMatchObject({ code: 0 })
  expect(run(path, ['-V'])).toMatchObject({ code: 0, stdout: `${VERSION}\n` })
})

test('nothing but the header, one segment and the padding behind it is changed', () => {
  const path = copy()
  putVersionStub(path, VERSION)
  const [before, after] = [readFileSync(original), readFileSync(path)]
  expect(after.length).toBe(before.length)
  const file = openSync(path, 'r')
  const layout = readElfLayout(file)
  closeSync(file)
  const grown = layout.segments.find(({ address, memoryBytes }) => {
    return layout.entry >= address && layout.entry < address + memoryBytes
  })
  if (grown === undefined) throw new Error('the entry is in no segment')
  const stubStart = layout.entry - grown.address + grown.offset
  const restored = Buffer.from(after)
  restored.fill(0, stubStart, grown.offset + grown.fileBytes)
  before.copy(restored, 24, 24, 32)
  before.copy(restored, grown.headerOffset + 32, grown.headerOffset + 32, grown.headerOffset + 48)
  expect(restored.equals(before)).toBe(true)
})

test('the same program and version give the same bytes', () => {
  const [first, second] = [copy(), join(folder, 'second')]
  copyFileSync(original, second)
  putVersionStub(first, VERSION)
  putVersionStub(second, VERSION)
  expect(readFileSync(first).equals(readFileSync(second))).toBe(true)
})

test('a program of another processor is left alone', () => {
  const path = copy((bytes) => bytes.writeUInt16LE(183, 18))
  const before = readFileSync(path)
  expect(putVersionStub(path, VERSION)).toEqual({ kind: 'leftAlone' })
  expect(readFileSync(path).equals(before)).toBe(true)
})

describe('is refused, and stays as it was:', () => {
  function refused(path: string, reason: string, version = VERSION): void {
    const before = readFileSync(path)
    const start = `${path} cannot answer its version early: it `
    expect(() => putVersionStub(path, version)).toThrow(`${start}${reason}`)
    expect(readFileSync(path).equals(before)).toBe(true)
  }

  test.each([0, 1, 63, 64, 65, 300, 4096, 12_289])('a program cut to %i bytes', (length) => {
    const path = copy()
    truncateSync(path, length)
    refused(path, `ends at ${length} bytes`)
  })

  test('a program without its last byte', () => {
    const path = copy()
    const length = readFileSync(path).length - 1
    truncateSync(path, length)
    refused(path, `ends at ${length} bytes`)
  })

  test('a script', () => {
    const path = join(folder, 'script')
    writeFileSync(path, `#!/bin/sh\n${'exit 0\n'.repeat(20)}`)
    refused(path, 'is not an ELF file')
  })

  test.each<[string, string, (bytes: Buffer) => void]>([
    ['a program of 32 bits', 'is not an ELF file of 64 bits', (bytes) => bytes.writeUInt8(1, 4)],
    ['one with the big end first', 'is not an ELF file of 64 bits', (bytes) => bytes.writeUInt8(2, 5)],
    ['a core dump', 'is an ELF file but no program', (bytes) => bytes.writeUInt16LE(4, 16)],
    ['no segments', 'has no table of segments', (bytes) => bytes.writeUInt16LE(0, 56)],
    ['no sections', 'has no table of sections', (bytes) => bytes.writeUInt16LE(0, 60)],
    ['too many sections', 'has too many sections', (bytes) => bytes.writeUInt16LE(0xffff, 60)],
    ['headers of another size', 'has segments of another form', (bytes) => bytes.writeUInt16LE(57, 54)],
    ['an entry in no code', 'starts outside of its code', (bytes) => bytes.writeBigUInt64LE(0n, 24)],
    [
      'tables beyond all memory',
      'has an address or size beyond all memory',
      (bytes) => bytes.writeBigUInt64LE(1n << 63n, 32),
    ],
    ['tables beyond the file', 'ends at', (bytes) => bytes.writeBigUInt64LE(1n << 40n, 32)],
    ['padding that is not empty', 'has no', (bytes) => fillBehindCode(bytes)],
    [
      'code that may be written',
      'has no',
      (bytes) => eachCode(bytes, (at) => bytes.writeUInt32LE(7, at + 4)),
    ],
  ])('%s', (_name, reason, change) => refused(copy(change), reason))

  test('a library', () => {
    refused(join(folder, 'libfarewell.so'), 'starts outside of its code')
  })

  test.each(['', '1.0"', '1.0\n', '%s', 'x'.repeat(65)])('a version that is none: %j', (version) => {
    refused(copy(), 'was given no version', version)
  })
})

/** Headers of segments with code: by the type and the flags. */
function eachCode(bytes: Buffer, visit: (headerOffset: number) => void): void {
  const table = Number(bytes.readBigUInt64LE(32))
  for (let index = 0; index < bytes.readUInt16LE(56); index++) {
    const at = table + index * 56
    if (bytes.readUInt32LE(at) === 1 && (bytes.readUInt32LE(at + 4) & 1) !== 0) visit(at)
  }
}

/** As if something were there that no header tells of. */
function fillBehindCode(bytes: Buffer): void {
  eachCode(bytes, (at) => {
    const end = Number(bytes.readBigUInt64LE(at + 8) + bytes.readBigUInt64LE(at + 32))
    bytes.fill(1, end, Math.ceil(end / 4096) * 4096)
  })
}
