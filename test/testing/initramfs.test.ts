import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { writeInitramfs } from './initramfs.ts'

const work = mkdtempSync(join(tmpdir(), 'cordon-initramfs-'))
afterAll(() => rmSync(work, { recursive: true, force: true }))

/** Name, mode and content of each entry, read as the format's description says. */
function entriesOf(archive: Buffer): { name: string; mode: string; content: string }[] {
  const entries: { name: string; mode: string; content: string }[] = []
  const aligned = (offset: number) => Math.ceil(offset / 4) * 4
  for (let at = 0; at < archive.length; ) {
    const field = (index: number) =>
      Number.parseInt(archive.toString('latin1', at + 6 + index * 8, at + 14 + index * 8), 16)
    expect(archive.toString('latin1', at, at + 6)).toBe('070701')
    const contentAt = aligned(at + 110 + field(11))
    entries.push({
      name: archive.toString('utf8', at + 110, at + 110 + field(11) - 1),
      mode: field(1).toString(8),
      content: archive.toString('utf8', contentAt, contentAt + field(6)),
    })
    at = aligned(contentAt + field(6))
  }
  return entries
}

test('folders come before what is in them, and content is aligned', () => {
  const from = join(work, 'from')
  const archive = join(work, 'archive')
  writeFileSync(from, 'copied')
  writeInitramfs(
    archive,
    new Map([
      ['/a/b/c', { kind: 'file', content: 'x', mode: 0o644 }],
      ['/a/d', { kind: 'copy', from, mode: 0o755 }],
      ['/dev/console', { kind: 'character-device', major: 5, minor: 1 }],
    ]),
  )
  expect(entriesOf(readFileSync(archive))).toEqual([
    { name: 'a', mode: '40755', content: '' },
    { name: 'a/b', mode: '40755', content: '' },
    { name: 'dev', mode: '40755', content: '' },
    { name: 'a/b/c', mode: '100644', content: 'x' },
    { name: 'a/d', mode: '100755', content: 'copied' },
    { name: 'dev/console', mode: '20600', content: '' },
    { name: 'TRAILER!!!', mode: '0', content: '' },
  ])
})

test('a name that is not absolute is refused', () => {
  expect(() =>
    writeInitramfs(join(work, 'refused'), new Map([['etc/x', { kind: 'file', content: '', mode: 0o644 }]])),
  ).toThrow('etc/x is no absolute name')
})
