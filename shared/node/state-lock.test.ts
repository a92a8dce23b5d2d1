import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { holdStateFolder } from './state-lock.ts'

test('a state folder is held by one at a time, and free again after it', () => {
  const folder = mkdtempSync(join(tmpdir(), 'cordon-lock-'))
  try {
    const first = holdStateFolder(join(folder, 'state'))
    expect(first).not.toBeNull()
    expect(holdStateFolder(join(folder, 'state'))).toBeNull()
    first?.[Symbol.dispose]()
    const second = holdStateFolder(join(folder, 'state'))
    expect(second).not.toBeNull()
    second?.[Symbol.dispose]()
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

test('a holder that is killed leaves nothing behind', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'cordon-lock-'))
  const source = `
    import { holdStateFolder } from ${JSON.stringify(join(import.meta.dirname, 'state-lock.ts'))}
    globalThis.held = holdStateFolder(${JSON.stringify(folder)})
    console.log('held')
    setInterval(() => undefined, 1_000)`
  const holder = spawn(process.execPath, ['--input-type=module', '-e', source], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  try {
    await once(holder.stdout, 'data')
    expect(holdStateFolder(folder)).toBeNull()
    holder.kill('SIGKILL')
    await once(holder, 'close')
    const held = holdStateFolder(folder)
    expect(held).not.toBeNull()
    held?.[Symbol.dispose]()
  } finally {
    holder.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
  }
})
