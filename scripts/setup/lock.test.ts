import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { takeLock } from './lock.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-lock-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

test('a second taker is told who holds it, and gets it after the release', () => {
  const first = takeLock(folder)
  if (!first.ok) throw new Error('the lock of an empty folder is free')
  first.describe('http://localhost:1')
  const second = takeLock(folder)
  expect(second).toMatchObject({ ok: false, holder: { pid: process.pid, url: 'http://localhost:1' } })
  first.release()
  const third = takeLock(folder)
  expect(third.ok).toBe(true)
  if (third.ok) third.release()
})

test.each([
  ['a process that is gone', '{"pid":4194305,"startTicks":1,"url":""}'],
  ['a pid that another process has now', `{"pid":${process.pid},"startTicks":1,"url":""}`],
  ['half-written text', '{"pid":'],
])('a lock left by %s is taken over', (_, text) => {
  writeFileSync(join(folder, 'lock'), text)
  const lock = takeLock(folder)
  expect(lock.ok).toBe(true)
  if (lock.ok) lock.release()
})
