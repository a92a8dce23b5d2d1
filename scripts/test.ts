/**
 * `npm test`: sets up what the tests need, then runs them. `--long` runs the campaigns in full; other
 * arguments go to vitest.
 */
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { buildNative } from './build-native.ts'
import {
  BROWSER,
  COMPILER,
  CONNECTION_LISTING,
  CONTAINERS,
  ensureSystemPrograms,
  FIREWALL,
  GUESTS,
  PACKAGING,
} from './setup/system-packages.ts'

const root = join(import.meta.dirname, '..')
const resultsPath = join(root, 'build', 'test-results.json')
const long = process.argv.includes('--long')
const rest = process.argv.slice(2).filter((argument) => argument !== '--long')

const say = (line: string) => console.error(`cordon: ${line}`)
const programs = [...COMPILER, ...CONNECTION_LISTING, ...FIREWALL, ...BROWSER, ...PACKAGING]
const system = ensureSystemPrograms([...programs, ...(long ? [...CONTAINERS, ...GUESTS] : [])], say)
if (system.kind === 'missing') say(system.mend)
const native = buildNative()
if (native.kind === 'failed') say(`the kernel sensors are not built: ${native.reason}`)

// In a process of its own: what it loads is not the tests' business.
const packaged =
  native.kind !== 'failed' &&
  spawnSync(process.execPath, [join(root, 'scripts', 'package.ts')], {
    cwd: root,
    stdio: ['ignore', 'ignore', 'inherit'],
  }).status === 0
if (!packaged) say('the packed programs are not made: their tests make them, and tell why they cannot')

mkdirSync(join(root, 'build'), { recursive: true })
rmSync(resultsPath, { force: true })
const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${resultsPath}`]
const vitest = spawn(
  process.execPath,
  [join(root, 'node_modules', 'vitest', 'vitest.mjs'), 'run', ...reporters, ...rest],
  {
    cwd: root,
    stdio: 'inherit',
    env: {
      ...process.env,
      ...(long ? { CORDON_TEST_LONG: '1' } : {}),
      ...(packaged ? { CORDON_TEST_PACKAGED: '1' } : {}),
      // What users run starts faster, too; the long run takes the source, as `npm start` does.
      ...(packaged && !long ? { CORDON_TEST_PROGRAMS: 'dist' } : {}),
    },
  },
)
for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, () => vitest.kill(signal))
process.on('SIGINT', () => undefined)
vitest.on('exit', (code) => {
  process.exitCode = tell() ? (code ?? 1) : 1
})

/** One plain line for machines that read logs. False when no test ran: nothing was proved then. */
function tell(): boolean {
  let counts: { numPassedTests: number; numFailedTests: number; numPendingTests: number }
  try {
    counts = JSON.parse(readFileSync(resultsPath, 'utf8'))
  } catch {
    say('vitest left no results')
    return false
  }
  console.log(
    `${counts.numPassedTests} passed, ${counts.numFailedTests} failed, ${counts.numPendingTests} skipped`,
  )
  return counts.numPassedTests > 0
}
