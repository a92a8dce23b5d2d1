/** `npm run check`: types (one configuration per layer), lint and format, dead code, generated files. */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { ensureSystemPrograms, KERNEL_COMPILER } from './setup/system-packages.ts'

/** Checks need programs that nothing else needs; without them the kernel programs are compared by their hash. */
const system = ensureSystemPrograms(KERNEL_COMPILER, (line) => console.error(`cordon: ${line}`))
if (system.kind === 'missing') console.error(`cordon: ${system.mend}`)

const root = join(import.meta.dirname, '..')

interface Check {
  readonly name: string
  readonly command: readonly string[]
}

const node = (...parts: string[]) => [process.execPath, ...parts]
const checks: readonly Check[] = [
  { name: 'types', command: ['tsc', '-p', 'tsconfig.json'] },
  { name: 'types of the pure layer', command: ['tsc', '-p', 'shared/tsconfig.json'] },
  { name: 'types of the console', command: ['tsc', '-p', 'controller/console/tsconfig.json'] },
  { name: 'lint and format', command: ['biome', 'check', '--error-on-warnings', '.'] },
  { name: 'dead code', command: ['knip'] },
  { name: 'generated documents', command: node('scripts/generate-docs.ts', '--check') },
  { name: 'generated kernel programs', command: node('scripts/build-native.ts', '--check-generated') },
]

let failed = 0
for (const { name, command } of checks) {
  const [program = '', ...args] = command
  const local = join(root, 'node_modules', '.bin', program)
  const result = spawnSync(existsSync(local) ? local : program, args, { cwd: root, encoding: 'utf8' })
  const ok = result.status === 0
  console.error(`${ok ? 'ok    ' : 'FAILED'} ${name}`)
  if (!ok) {
    failed += 1
    console.error(`${result.stdout ?? ''}${result.stderr ?? ''}${result.error?.message ?? ''}`)
  }
}
if (failed > 0) console.error(`${failed} of ${checks.length} checks failed`)
process.exitCode = failed === 0 ? 0 : 1
