import { expect, test } from 'vitest'
import { createScanAction, type ScanPath } from './scan.ts'

const request = {
  commandId: 'a'.repeat(32),
  target: { kind: 'path', path: '/srv' },
  args: { filesMax: 3 },
} as const
const signal = AbortSignal.timeout(60_000)
const summary = { files: 3, bytes: 12, matches: 1, skipped: 2 }

test('the figures of a scan are its proof, and the bound is handed on', async () => {
  const asked: unknown[] = []
  const scanPath: ScanPath = async (path, { filesMax }) => {
    asked.push([path, filesMax])
    return { kind: 'scanned', summary }
  }
  const action = createScanAction(scanPath)
  const applied = await action.apply(request, signal)
  expect(applied).toMatchObject({ kind: 'applied', proof: summary })
  expect(asked).toEqual([['/srv', 3]])
  expect(await action.probe(request, summary, signal)).toMatchObject({ kind: 'proved', proof: summary })
})

test('a scan that a crash cut short is unknown, so that it is done again', async () => {
  const action = createScanAction(async () => ({ kind: 'scanned', summary }))
  expect(action.idempotent).toBe(true)
  expect(await action.probe(request, null, signal)).toMatchObject({ kind: 'unknown' })
})

test.each([
  [{ kind: 'failed', reason: 'the path does not exist' }, 'failed'],
  [{ kind: 'aborted' }, 'aborted'],
] as const)('a scan that ended with %j says so', async (result, kind) => {
  expect(await createScanAction(async () => result).apply(request, signal)).toMatchObject({ kind })
})
