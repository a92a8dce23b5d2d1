import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { loadSettings, type SettingTable } from './settings.ts'

const TABLE = {
  folder: { type: 'text', summary: 'Where', environment: 'T_FOLDER', fallback: '/var/lib/t' },
  level: {
    type: 'choice',
    choices: ['info', 'warn'],
    summary: 'How much',
    environment: 'T_LEVEL',
    fallback: 'info',
  },
  port: { type: 'number', minimum: 0, maximum: 65_535, summary: 'Port', environment: 'T_PORT', fallback: 0 },
  quiet: { type: 'flag', summary: 'Quiet', environment: 'T_QUIET', fallback: false },
  paths: { type: 'list', itemsMax: 2, summary: 'Paths', environment: 'T_PATHS', fallback: [] },
} as const satisfies SettingTable

let folder: string
let file: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-settings-'))
  file = join(folder, 'settings.json')
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

test('the environment wins over the file and the file over the fallback', () => {
  writeFileSync(file, JSON.stringify({ port: 1, level: 'warn' }))
  const result = loadSettings(TABLE, file, { T_PORT: '2', T_PATHS: '/a:/b' })
  expect(result).toEqual({
    ok: true,
    settings: { folder: '/var/lib/t', level: 'warn', port: 2, quiet: false, paths: ['/a', '/b'] },
  })
  if (result.ok) expect(Object.isFrozen(result.settings)).toBe(true)
})

test('all problems are told at once, each with its setting and the mend', () => {
  writeFileSync(file, JSON.stringify({ port: 70_000, colour: 'red', quiet: 'yes' }))
  const result = loadSettings(TABLE, file, { T_LEVEL: 'loud', T_PATHS: '/a:/b:/c' })
  expect(result).toEqual({
    ok: false,
    problems: [
      `${file}: "colour" is not a setting; known are folder, level, port, quiet, paths`,
      'T_LEVEL: must be one of info, warn',
      `${file}: "port": must be a number from 0 to 65535`,
      `${file}: "quiet": must be true or false`,
      'T_PATHS: must be a list of at most 2 texts',
    ],
  })
})

test.each(['{', 'null', '[]', '"text"'])('a file that holds %s is refused by name', (text) => {
  writeFileSync(file, text)
  const result = loadSettings(TABLE, file, {})
  expect(result.ok).toBe(false)
  if (!result.ok) expect(result.problems[0]).toContain(file)
})

test('"__proto__" in a file is an unknown setting and changes nothing', () => {
  writeFileSync(file, '{"__proto__":{"quiet":true}}')
  const result = loadSettings(TABLE, file, {})
  expect(result.ok).toBe(false)
  expect(({} as Record<string, unknown>)['quiet']).toBeUndefined()
})

test('a missing file names the file and the mend', () => {
  const result = loadSettings(TABLE, join(folder, 'none.json'), {})
  expect(result).toEqual({
    ok: false,
    problems: [`${join(folder, 'none.json')}: cannot be read (ENOENT); give --config another file`],
  })
})
