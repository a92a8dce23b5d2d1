import { spawn } from 'node:child_process'
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
