import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { readSealedFile, readSealedKey, writeSealedFile, writeSealedKey } from './sealed-file.ts'
import { generateSigningKey, rawPublicKey } from './signing.ts'

const options = { purpose: 'operator-key', passphrase: 'correct horse', scryptCost: 2 ** 10 }
let folder: string
let path: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-sealed-'))
  path = join(folder, 'key.json')
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

test('a key comes back as it was, from a file only its owner may read', async () => {
  const key = generateSigningKey()
  await writeSealedKey(path, key, options)
  expect(statSync(path).mode & 0o777).toBe(0o600)
  expect(readdirSync(folder)).toEqual(['key.json'])
  const opened = await readSealedKey(path, options)
  if (!opened.ok) throw new Error(opened.error.reason)
  expect(rawPublicKey(opened.value)).toBe(rawPublicKey(key))
})

test('the secret is not in the file, and the same secret never looks the same', async () => {
  const secret = Buffer.from('a secret that is easy to find')
  await writeSealedFile(path, secret, options)
  const first = readFileSync(path, 'utf8')
  expect(first).not.toContain(secret.toString('base64').slice(0, 12))
  await writeSealedFile(path, secret, options)
  expect(readFileSync(path, 'utf8')).not.toBe(first)
})

test('a wrong passphrase, another purpose and a changed byte are told apart from damage', async () => {
  await writeSealedFile(path, Buffer.from('secret'), options)
  expect(await readSealedFile(path, { ...options, passphrase: 'wrong' })).toMatchObject({
    error: { kind: 'wrongPassphrase' },
  })
  expect(await readSealedFile(path, { ...options, purpose: 'root-key' })).toMatchObject({
    error: { kind: 'malformed' },
  })
  const file = JSON.parse(readFileSync(path, 'utf8')) as Record<string, string>
  for (const field of ['salt', 'iv', 'tag']) {
    const value = file[field] ?? ''
    const changed = { ...file, [field]: (value[0] === '0' ? '1' : '0') + value.slice(1) }
    writeFileSync(path, JSON.stringify(changed))
    expect(await readSealedFile(path, options)).toMatchObject({ error: { kind: 'wrongPassphrase' } })
  }
  writeFileSync(path, JSON.stringify({ ...file, purpose: 'root-key' }))
  expect(await readSealedFile(path, { ...options, purpose: 'root-key' })).toMatchObject({
    error: { kind: 'wrongPassphrase' },
  })
})

test.each(['', '{', '{}', '{"v":2}', 'null'])('the hostile content %s is refused', async (content) => {
  writeFileSync(path, content, { mode: 0o600 })
  expect(await readSealedFile(path, options)).toMatchObject({ error: { kind: 'malformed' } })
})

test('a cost that would take all memory is refused before it is tried', async () => {
  await writeSealedFile(path, Buffer.from('secret'), options)
  const file = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>
  writeFileSync(path, JSON.stringify({ ...file, scryptCost: 2 ** 30 }))
  expect(await readSealedFile(path, options)).toMatchObject({ error: { kind: 'malformed' } })
})

test('a missing file and one that others may read name the mend', async () => {
  expect(await readSealedFile(path, options)).toMatchObject({ error: { kind: 'missing' } })
  await writeSealedFile(path, Buffer.from('secret'), options)
  chmodSync(path, 0o644)
  const result = await readSealedFile(path, options)
  expect(result).toMatchObject({
    error: { kind: 'openToOthers', reason: expect.stringContaining('chmod 600') },
  })
})
