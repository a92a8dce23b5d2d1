import { execFileSync, spawnSync } from 'node:child_process'
import { linkSync, mkdirSync, mkdtempSync, rmdirSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { loadBuiltAddon } from '../../native/testing/compile.ts'
import type { FileRecord, SensorRecord } from '../records.ts'
import { unmount } from '../testing/unmount.ts'
import { createFanotifySensor } from './fanotify-sensor.ts'

const asRoot = process.geteuid?.() === 0

describe.skipIf(!asRoot)('what a new name leads to', () => {
  if (!asRoot) return
  const native = loadBuiltAddon()
  const mountPoint = mkdtempSync(join(tmpdir(), 'cordon-links-'))
  const at = (name: string) => join(mountPoint, name)

  beforeAll(() => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16m', 'cordon-test', mountPoint])
  })
  afterAll(() => {
    unmount(mountPoint)
    rmdirSync(mountPoint)
  })

  /** What is told of what `act` does, looked at once it is done. */
  async function toldOf(act: () => void): Promise<FileRecord[]> {
    const records: SensorRecord[] = []
    const stop = new AbortController()
    const sensor = createFanotifySensor({
      native,
      listMountPoints: () => [mountPoint],
      drainIntervalMs: 60_000,
    })
    const ended = sensor.run(
      (batch) => records.push(...batch),
      stop.signal,
      () => undefined,
    )
    act()
    stop.abort()
    await ended
    return records.filter((record): record is FileRecord => record.kind === 'file')
  }

  test('a symbolic link says what it says, whether or not that exists, in text or in bytes', async () => {
    const bytes = Buffer.from([0x2f, 0xff, 0x0a])
    const told = await toldOf(() => {
      symlinkSync('../else\nwhere', at('dangling'))
      symlinkSync(bytes, at('bytes'))
      symlinkSync('x'.repeat(4_095), at('long'))
    })
    expect(told).toMatchObject([
      {
        action: 'creation',
        path: at('dangling'),
        names: { type: 'symlink', links: 1, target: '../else\nwhere' },
      },
      { action: 'creation', names: { type: 'symlink', target: new Uint8Array(bytes) } },
      { action: 'creation', names: { type: 'symlink', target: 'x'.repeat(4_095) } },
    ])
  })

  test('a second name tells how many there are, and a file with one name is nothing special', async () => {
    const told = await toldOf(() => {
      writeFileSync(at('one'), '')
      mkdirSync(at('folder'))
      writeFileSync(at('two'), '')
      linkSync(at('two'), at('folder/second'))
      linkSync(at('two'), at('third'))
    })
    const names = Object.fromEntries(
      told.filter(({ action }) => action === 'creation').map((record) => [record.path, record.names]),
    )
    expect(names).toEqual({
      [at('one')]: undefined,
      [at('two')]: { type: 'file', links: 3, target: null },
      [at('folder/second')]: { type: 'file', links: 3, target: null },
      [at('third')]: { type: 'file', links: 3, target: null },
    })
  })

  test('a FIFO, a socket and a device are told as new and as no plain file; folders are not told', async () => {
    const told = await toldOf(() => {
      spawnSync('mkfifo', [at('fifo')])
      spawnSync('mknod', [at('device'), 'c', '1', '3'])
      spawnSync('python3', ['-c', `import socket; socket.socket(socket.AF_UNIX).bind('${at('socket')}')`])
      mkdirSync(at('made'))
    })
    expect(told.map(({ action, path, names }) => [action, path, names?.type])).toEqual([
      ['creation', at('fifo'), 'other'],
      ['creation', at('device'), 'other'],
      ['creation', at('socket'), 'other'],
    ])
  })

  test('a name that is gone by then leads nowhere', async () => {
    const told = await toldOf(() => {
      symlinkSync('/etc', at('brief'))
      unlinkSync(at('brief'))
    })
    expect(told).toMatchObject([
      { action: 'creation', names: null },
      { action: 'deletion', path: at('brief') },
    ])
  })

  test('a link below 200 folders, and one that lies deeper than a path can say', async () => {
    const deep = at(Array.from({ length: 200 }, (_, index) => `folder-${index}`).join('/'))
    const told = await toldOf(() => {
      mkdirSync(deep, { recursive: true })
      symlinkSync('/etc/passwd', join(deep, 'link'))
      const program = [
        `import os; os.chdir('${deep}')`,
        'for _ in range(30): os.mkdir("n" * 200); os.chdir("n" * 200)',
        'os.symlink("/etc", "lost")',
      ]
      expect(spawnSync('python3', ['-c', program.join('\n')]).status).toBe(0)
    })
    expect(told).toMatchObject([
      { path: join(deep, 'link'), names: { type: 'symlink', target: '/etc/passwd' } },
    ])
  })
})
