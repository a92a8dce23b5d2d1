import { execFileSync, spawnSync } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { readSymbolOffsets } from './elf-symbols.ts'
import { findPamLibraries, PAM_FUNCTIONS } from './pam-library.ts'

const LIBRARY = '/lib/x86_64-linux-gnu/libpam.so.0'
const wanted = new Set<string>(PAM_FUNCTIONS)

let root: string
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'cordon-pam-'))
  mkdirSync(join(root, 'usr/lib'), { recursive: true })
})
afterEach(() => rmSync(root, { recursive: true, force: true }))

describe.skipIf(!existsSync(LIBRARY))('the library of this host', () => {
  test('is found once, with the offsets that readelf tells', () => {
    const { libraries } = findPamLibraries(['', '', '/proc/self/root'])
    expect(libraries).toHaveLength(1)
    const [library] = libraries
    const listed = spawnSync('/usr/bin/readelf', ['-W', '--dyn-syms', '-l', LIBRARY], { encoding: 'utf8' })
    if (listed.error !== undefined) return
    const load = [
      ...listed.stdout.matchAll(/LOAD\s+0x(\w+)\s+0x(\w+)\s+0x\w+\s+0x(\w+)\s+0x\w+\s+\S* ?E/g),
    ][0]
    const [offset = 0, address = 0] = [load?.[1], load?.[2]].map((text) => Number.parseInt(text ?? '0', 16))
    for (const name of PAM_FUNCTIONS) {
      const value = new RegExp(`: ([0-9a-f]{16}) .* ${name}@@`).exec(listed.stdout)?.[1] ?? ''
      expect(library?.symbols[name]).toBe(Number.parseInt(value, 16) - address + offset)
    }
  })

  test('cut, or with any one byte changed, is read or refused, and nothing else', () => {
    const elf = readFileSync(LIBRARY)
    for (let bytes = 0; bytes < elf.length; bytes += 997) {
      const read = readSymbolOffsets(elf.subarray(0, bytes), wanted)
      expect(read.ok ? read.symbols.size : read.reason.length).toBeGreaterThan(0)
    }
    for (let at = 0; at < 8_192; at += 7) {
      const changed = Buffer.from(elf)
      changed.fill(0xff, at, at + 8)
      const read = readSymbolOffsets(changed, wanted)
      expect(read.ok ? read.symbols.size <= 4 : read.reason.length > 0).toBe(true)
    }
  })

  test('is found in a container through its link, and a link that leaves the root leads nowhere', () => {
    copyFileSync(LIBRARY, join(root, 'usr/lib/libpam.so.0.85.1'))
    symlinkSync('libpam.so.0.85.1', join(root, 'usr/lib/libpam.so.0'))
    mkdirSync(join(root, 'usr/lib64'))
    symlinkSync(LIBRARY, join(root, 'usr/lib64/libpam.so.0'))
    expect(findPamLibraries([root])).toMatchObject({
      libraries: [
        { path: join(root, 'usr/lib/libpam.so.0.85.1'), symbols: { pam_authenticate: expect.any(Number) } },
      ],
      refused: [],
    })
  })
})

test.each([
  ['empty', Buffer.alloc(0)],
  ['text', Buffer.from('#!/bin/sh\n'.repeat(100))],
  ['zero bytes', Buffer.alloc(4_096)],
  [
    'a header and 0xff',
    Buffer.concat([Buffer.from('7f454c460201010000000000000000000300', 'hex'), Buffer.alloc(4_096, 0xff)]),
  ],
  ['5 MB', Buffer.alloc(5 * 1024 * 1024)],
])('what is no library is refused with a reason: %s', (_, content) => {
  writeFileSync(join(root, 'usr/lib/libpam.so.0'), content)
  const found = findPamLibraries([root])
  expect(found.libraries).toEqual([])
  expect(found.refused).toEqual([
    { path: join(root, 'usr/lib/libpam.so.0'), reason: expect.stringMatching(/^it /) },
  ])
})

test('a FIFO in its place blocks nothing, and roots that are gone do no harm', () => {
  execFileSync('mkfifo', [join(root, 'usr/lib/libpam.so.0')])
  expect(findPamLibraries([root, '/proc/0/root', '/no/such/root'])).toEqual({
    libraries: [],
    refused: [{ path: join(root, 'usr/lib/libpam.so.0'), reason: 'not a regular file' }],
  })
})
