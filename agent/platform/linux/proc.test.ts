import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { findHolders, listPids, readProcess } from './proc.ts'

test('this process is read with its start, parent, executable and arguments', () => {
  const own = readProcess(process.pid)
  expect(own).toMatchObject({
    parentPid: process.ppid,
    executable: process.execPath,
    argumentsTruncated: false,
  })
  expect(own?.process.startTicks).toBeGreaterThan(0)
  expect(own?.file?.sizeBytes).toBeGreaterThan(1_000_000)
  expect(listPids()).toContain(process.pid)
})

test('a command line of 2 MB is cut off and says so, and what is no text stays as it is', async () => {
  // Through Python, because Node passes text alone.
  const script =
    "import os\nos.execv('/bin/sh', [b'sh', b'-c', b'read line', b'a\\nb\\x1b[2J', b'\\xff'] + [b'x'*100_000]*20)"
  const child = spawn('/usr/bin/python3', ['-c', script], { stdio: ['pipe', 'ignore', 'ignore'] })
  try {
    await expect.poll(() => readProcess(child.pid ?? 0)?.arguments[0], { timeout: 10_000 }).toBe('sh')
    const found = readProcess(child.pid ?? 0)
    expect(found?.argumentsTruncated).toBe(true)
    expect(found?.arguments.slice(0, 5)).toEqual([
      'sh',
      '-c',
      'read line',
      'a\nb\x1b[2J',
      new Uint8Array([0xff]),
    ])
    expect(found?.arguments.slice(5).join('').length).toBeLessThan(16 * 1024)
  } finally {
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
})

test('a process that is gone is null', () => {
  expect(readProcess(4_194_305)).toBeNull()
})

test('the process that holds a file open is found', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'cordon-proc-'))
  const path = join(folder, 'held')
  closeSync(openSync(path, 'w'))
  const holder = spawn('/bin/sh', ['-c', `exec 9>>"${path}"; echo open; sleep 30`], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  try {
    await new Promise((resolve) => holder.stdout.once('data', resolve))
    expect(findHolders(path, 8)).toContain(holder.pid)
  } finally {
    holder.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
  }
})
