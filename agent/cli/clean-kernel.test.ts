import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { createProgramRunner, type RunProgram } from '../platform/linux/firewall-programs.ts'
import { cleanKernel } from './clean-kernel.ts'

const noNft: RunProgram = async () => ({ kind: 'missing' })
let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cordon-clean-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

function clean(runProgram: RunProgram, keepRules = false) {
  const state = join(folder, 'state')
  return cleanKernel({ keepRules, runProgram, stateFolder: state, temporaryFolder: folder, clock: Date.now })
}

describe.skipIf(process.geteuid?.() !== 0)('in a network namespace of its own (needs root)', () => {
  const namespace = `cordon-clean-${process.pid}`
  const within = ['ip', 'netns', 'exec', namespace]
  const nft = (...words: string[]) =>
    execFileSync('ip', ['netns', 'exec', namespace, 'nft', ...words], { encoding: 'utf8' })
  beforeEach(() => {
    execFileSync('ip', ['netns', 'add', namespace])
    nft(
      'add table inet cordon; add table bridge cordon; add table inet cordon_of_others; add table ip cordon',
    )
  })
  afterEach(() => {
    execFileSync('ip', ['netns', 'delete', namespace])
  })

  test('rules that a killed agent left go in one step, and nobody else`s; a second time finds nothing', async () => {
    const cleaned = await clean(createProgramRunner(within))
    expect(cleaned).toEqual({ removed: ['table inet cordon', 'table bridge cordon'], problems: [] })
    expect(nft('list', 'tables')).toBe('table inet cordon_of_others\ntable ip cordon\n')
    expect(await clean(createProgramRunner(within))).toEqual({ removed: [], problems: [] })
  })

  test('rules that a record keeps in force stay as they are', async () => {
    const before = nft('list', 'ruleset')
    expect(await clean(createProgramRunner(within), true)).toEqual({ removed: [], problems: [] })
    expect(nft('list', 'ruleset')).toBe(before)
  })

  test('a firewall that refuses is told, not taken for clean', async () => {
    const ran = await clean(createProgramRunner(['ip', 'netns', 'exec', `${namespace}-missing`]))
    expect(ran.removed).toEqual([])
    expect(ran.problems).toEqual([expect.stringContaining('nft list tables')])
  })
})

test('files that a killed agent left go, those of others and of programs at work stay', async () => {
  const old = new Date(Date.now() - 3_600_000)
  for (const name of [
    'cordon-addon-Ab12_x',
    'cordon-addon-Ab12Cd',
    'cordon-addon-Young1',
    'state',
    'state/addons',
  ]) {
    mkdirSync(join(folder, name))
  }
  for (const name of ['cordon-addon-Ab12_x', 'cordon-addon-Ab12Cd']) utimesSync(join(folder, name), old, old)
  writeFileSync(join(folder, 'cordon-addon-File12'), '')
  utimesSync(join(folder, 'cordon-addon-File12'), old, old)
  for (const name of [
    'identity.json',
    'identity.json.0123456789ab.new',
    'addons/a.node.0123456789ab.new',
    'x.new',
  ]) {
    writeFileSync(join(folder, 'state', name), '')
  }
  const { removed, problems } = await clean(noNft)
  expect(problems).toEqual([])
  expect([...removed].sort()).toEqual(
    [
      'cordon-addon-Ab12Cd',
      'state/addons/a.node.0123456789ab.new',
      'state/identity.json.0123456789ab.new',
    ].map((name) => join(folder, name)),
  )
  expect(readdirSync(join(folder, 'state')).sort()).toEqual(['addons', 'identity.json', 'x.new'])
})

test('without a state folder there is nothing to clean', async () => {
  expect(await clean(noNft)).toEqual({ removed: [], problems: [] })
})
