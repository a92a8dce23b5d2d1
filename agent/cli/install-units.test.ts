import { execFile, spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { loadBuiltAddon } from '../native/testing/compile.ts'
import { AGENT_UNIT, AGENT_UNITS } from './install-units.ts'

const canBound = process.geteuid?.() === 0 && spawnSync('setpriv', ['--version']).status === 0
const program = join(import.meta.dirname, '../sensors/testing/tell-layers.ts')
const addonPath = join(import.meta.dirname, '../../build/native/cordon.node')

/** Which layers can work for a process that `prefix` begins. */
async function tellLayers(...prefix: string[]): Promise<unknown> {
  const [command = '', ...words] = [...prefix, process.execPath, program, 'auto', addonPath]
  const { stdout } = await promisify(execFile)(command, words, { timeout: 30_000 })
  return JSON.parse(stdout)
}

test.skipIf(!canBound)(
  'the rights that the service keeps are enough for every layer that root has',
  async () => {
    loadBuiltAddon()
    const lines = [...AGENT_UNITS[AGENT_UNIT].matchAll(/^CapabilityBoundingSet=(.+)$/gm)]
    const rights = lines.flatMap(([, names = '']) => names.toLowerCase().split(' '))
    expect(rights.length).toBeGreaterThan(3)
    const bounds = ['-all', ...rights.map((right) => right.replace('cap_', '+'))].join()
    const bounded = ['setpriv', '--bounding-set', bounds, '--inh-caps=-all', '--no-new-privs']
    expect(await tellLayers(...bounded)).toEqual(await tellLayers())
  },
)
