import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { FILE_PATH } from '../api/testing/fixtures.ts'
import { type MemoryController, startMemoryController } from '../api/testing/memory-controller.ts'
import { COMING_ID, EVIDENCE_CONTENT, EVIDENCE_ID } from '../api/testing/memory-evidence.ts'
import { bytesText, progressLine } from './progress.ts'
import { createOperator, type Operator } from './testing/operator.ts'

let controller: MemoryController
let operator: Operator
beforeAll(async () => {
  controller = await startMemoryController()
  operator = await createOperator(controller)
})
afterAll(async () => {
  operator[Symbol.dispose]()
  await controller[Symbol.asyncDispose]()
})

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-get-'))
  controller.damage.on = false
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const part = (path: string) => {
  const { sha256 } = controller.services.evidence.get(EVIDENCE_ID) ?? { sha256: '' }
  return `${path}.${sha256.slice(0, 12)}.part`
}

test('a list tells what is whole and how much of the rest is here, with nothing a terminal obeys', async () => {
  const { exitCode, stdout } = await operator.run(['file', 'ls'])
  expect(exitCode).toBe(0)
  expect(stdout).toMatch(/eeeeeeeeeeee +whole +web-1 +293\.0 KiB/)
  expect(stdout).toMatch(/cccccccccccc +0% here/)
  expect(stdout).not.toContain('\r')
  expect((await operator.run(['file', 'ls', '--host', 'db-1'])).stderr).toContain('No files were collected')
})

test('a file is saved for its owner alone, whole, and nothing is overwritten', async () => {
  const path = join(folder, 'saved')
  const result = await operator.run(['file', 'get', EVIDENCE_ID, path], { columns: 100 })
  expect(result.exitCode, result.stderr).toBe(0)
  expect(result.stderr).toContain('100%')
  expect(readFileSync(path).equals(EVIDENCE_CONTENT)).toBe(true)
  expect(statSync(path).mode & 0o777).toBe(0o600)
  expect(readdirSync(folder)).toEqual(['saved'])
  const again = await operator.run(['file', 'get', EVIDENCE_ID, path])
  expect(again.exitCode).toBe(2)
  expect(again.stderr).toContain('exists already')
})

test('what broke off goes on, and a wrong beginning is fetched again', async () => {
  const path = join(folder, 'saved')
  writeFileSync(part(path), EVIDENCE_CONTENT.subarray(0, 200_000))
  const resumed = await operator.run(['file', 'get', EVIDENCE_ID, path])
  expect(resumed.exitCode, resumed.stderr).toBe(0)
  expect(resumed.stderr).toContain('Going on from byte 200000')
  expect(readFileSync(path).equals(EVIDENCE_CONTENT)).toBe(true)
  const other = join(folder, 'other')
  writeFileSync(part(other), Buffer.alloc(200_000))
  const restarted = await operator.run(['file', 'get', EVIDENCE_ID, other])
  expect(restarted.exitCode, restarted.stderr).toBe(0)
  expect(restarted.stderr).toContain('starting over')
  expect(readFileSync(other).equals(EVIDENCE_CONTENT)).toBe(true)
})

test('bytes that are not those of the record are not saved', async () => {
  controller.damage.on = true
  const { exitCode, stderr } = await operator.run(['file', 'get', EVIDENCE_ID, join(folder, 'saved')])
  expect(exitCode).toBe(1)
  expect(stderr).toContain('hash is another one')
  expect(readdirSync(folder)).toEqual([])
})

test('what is not whole, or not there, is told', async () => {
  const coming = await operator.run(['file', 'get', COMING_ID, join(folder, 'x')])
  expect([coming.exitCode, coming.stderr]).toEqual([1, expect.stringContaining('not whole: 0% here')])
  expect((await operator.run(['file', 'get', '0'.repeat(32), join(folder, 'x')])).exitCode).toBe(5)
  expect(readdirSync(folder)).toEqual([])
})

test('a collection is signed for this host, path and bound', async () => {
  const words = ['file', 'collect', 'web-1', '/var/log/x', '--reason', 'test', '--yes', '--wait']
  const result = await operator.run([...words, '--max-bytes', '20M', '--json'])
  expect(result.exitCode, result.stderr).toBe(0)
  expect(result.json()).toMatchObject([
    {
      action: 'collectFile',
      class: 'C',
      state: 'done',
      args: { bytesMax: 20 * 1024 ** 2 },
      target: { kind: 'evidenceFile', path: '/var/log/x', pathBytes: null },
    },
  ])
  for (const wrong of ['17G', '0', '-1', 'x', '1.5G']) {
    expect((await operator.run([...words, '--max-bytes', wrong])).exitCode, wrong).toBe(2)
  }
  expect(
    (await operator.run(['file', 'collect', 'web-1', 'relative', '--reason', 'x', '--yes'])).exitCode,
  ).toBe(2)
  expect((await operator.run(['file', 'collect', 'web-1', '/x', '--yes'])).stderr).toContain(
    '--reason is needed',
  )
})

test('what was quarantined is listed and put back by the action that took it', async () => {
  const taken = await operator.run([
    ...['file', 'quarantine', 'web-1', FILE_PATH, '--reason', 'test', '--yes', '--wait', '--json'],
  ])
  expect(taken.exitCode, taken.stderr).toBe(0)
  const [{ id, target }] = taken.json() as [{ id: string; target: { sha256: string } }]
  expect((await operator.run(['file', 'quarantined'])).stdout).toContain(id.slice(0, 12))
  const restored = await operator.run([
    ...['file', 'restore', id.slice(0, 8), '--reason', 'false alarm', '--yes', '--wait', '--json'],
  ])
  expect(restored.exitCode, restored.stderr).toBe(0)
  const [action] = restored.json() as [{ id: string }]
  expect(action).toMatchObject({
    action: 'restoreFile',
    target: { kind: 'quarantinedFile', quarantineId: id, path: FILE_PATH, sha256: target.sha256 },
  })
  const wrong = await operator.run(['file', 'restore', action.id, '--reason', 'x', '--yes'])
  expect([wrong.exitCode, wrong.stderr]).toEqual([2, expect.stringContaining('quarantined nothing')])
})

test.each([
  [0, 0, '100%'],
  [1, 3, ' 33%'],
  [5, 4, '100%'],
])('progress of %i of %i', (done, total, text) => {
  expect(progressLine(done, total)).toContain(text)
  expect(bytesText(1_536)).toBe('1.5 KiB')
})
