import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { askStatus, serveStatus } from './status-socket.ts'

let folder: string
beforeEach(() => {
  folder = join(mkdtempSync(join(tmpdir(), 'cordon-status-')), 'd'.repeat(120))
  mkdirSync(folder)
})
afterEach(() => rmSync(join(folder, '..'), { recursive: true, force: true }))

test('the agent answers over its socket, however deep the folder, and is not running afterwards', async () => {
  const stop = new AbortController()
  let asked = 0
  const serving = serveStatus(folder, () => ({ asked: ++asked }), stop.signal)
  await new Promise((resolve) => setTimeout(resolve, 50))
  expect(await askStatus(folder)).toEqual({ kind: 'answer', report: { asked: 1 } })
  expect(await askStatus(folder)).toEqual({ kind: 'answer', report: { asked: 2 } })
  stop.abort()
  await serving
  expect(await askStatus(folder)).toEqual({ kind: 'notRunning' })
})

test('a folder that is not there is an agent that is not running', async () => {
  expect(await askStatus(join(folder, 'none'))).toEqual({ kind: 'notRunning' })
})

test('a socket that a crash left behind is replaced', async () => {
  for (let round = 0; round < 2; round += 1) {
    const stop = new AbortController()
    const serving = serveStatus(folder, () => round, stop.signal)
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(await askStatus(folder)).toEqual({ kind: 'answer', report: round })
    stop.abort()
    await serving
  }
})
