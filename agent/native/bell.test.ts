import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmdirSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test, vi } from 'vitest'
import { loadBuiltAddon } from './testing/compile.ts'

const asRoot = process.getuid?.() === 0
const native = loadBuiltAddon()

function tmpfsMount() {
  const path = mkdtempSync(join(tmpdir(), 'cordon-bell-'))
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'cordon-test', path])
  return {
    path,
    [Symbol.dispose]: () => {
      execFileSync('umount', ['--lazy', path])
      rmdirSync(path)
    },
  }
}

describe.skipIf(!asRoot)('a bell', () => {
  const isOver = { timeout: 5_000, interval: 1 }

  test('of a fanotify group rings once after each arming, and not after the group is closed', async () => {
    using mount = tmpfsMount()
    const group = native.fanotifyOpen()
    native.fanotifyMark(group, mount.path, '/')
    let rings = 0
    native.fanotifyBell(group, () => {
      rings++
    })
    expect(() => native.fanotifyBell(group, () => {})).toThrow('EBUSY')
    writeFileSync(join(mount.path, 'before'), '')
    await sleep(50)
    expect(rings).toBe(0)
    native.fanotifyArmBell(group)
    await vi.waitFor(() => expect(rings).toBe(1), isOver)
    await sleep(50)
    expect(rings).toBe(1)
    native.fanotifyDrain(group, Buffer.alloc(65_536))
    native.fanotifyArmBell(group)
    await sleep(50)
    expect(rings).toBe(1)
    writeFileSync(join(mount.path, 'after'), '')
    await vi.waitFor(() => expect(rings).toBe(2), isOver)
    native.fanotifyArmBell(group)
    native.fanotifyClose(group)
    await sleep(50)
    expect(rings).toBe(2)
    expect(() => native.fanotifyArmBell(group)).toThrow('EBADF')
  })

  test('of kernel programs is rung by the first record after a sleep', async () => {
    const programs = native.bpfOpen(1024 ** 2, '/sys/fs/cgroup', false)
    const buffer = Buffer.alloc(65_536)
    const drainAll = () => {
      while (native.bpfDrain(programs, buffer) > 0);
    }
    let rings = 0
    try {
      native.bpfBell(programs, () => {
        rings++
      })
      // The rest of the machine may ring as well, so that only whether it comes is compared.
      for (let round = 1; round <= 20; round++) {
        drainAll()
        const before = rings
        native.bpfArmBell(programs)
        execFileSync('/bin/true')
        await vi.waitFor(() => expect(rings).toBeGreaterThan(before), isOver)
      }
    } finally {
      native.bpfClose(programs)
    }
  })

  test('wants a function', () => {
    const group = native.fanotifyOpen()
    expect(() => native.fanotifyBell(group, 1 as never)).toThrow('callback must be a function')
    expect(() => native.fanotifyBell({} as never, () => {})).toThrow('handle')
    native.fanotifyClose(group)
  })
})
