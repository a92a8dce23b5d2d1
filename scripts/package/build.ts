/**
 * `npm run package:system`: dist/*.deb and dist/*.rpm of the programs in dist/, which are made first when they are
 * not there or older than their sources. `--deb` or `--rpm` makes one kind alone.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { ensureSystemPrograms, PACKAGING } from '../setup/system-packages.ts'
import { buildDeb } from './deb.ts'
import type { PackageSpec } from './package-spec.ts'
import { agentPackage, controllerPackage } from './packages.ts'
import { buildRpm } from './rpm.ts'

const root = join(import.meta.dirname, '..', '..')

const PROGRAMS = ['cordon-agent', 'cordon-controller', 'cordon'] as const

export type PackageKind = 'deb' | 'rpm'
const BUILDERS = { deb: buildDeb, rpm: buildRpm } as const

/** zstd's own scale: slower and smaller for what is handed on. */
const LEVEL = 9

/** One package file, made in a folder of its own that is gone afterwards. */
export function buildPackage(kind: PackageKind, spec: PackageSpec, output: string, level = LEVEL): string {
  const work = mkdtempSync(join(tmpdir(), 'cordon-package-'))
  try {
    mkdirSync(output, { recursive: true })
    return BUILDERS[kind](spec, { work, output, level, epochS: sourceDateEpoch() })
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

/** SOURCE_DATE_EPOCH, else the time of the last commit; without a repository the beginning of 2026. */
function sourceDateEpoch(): number {
  const given = Number(process.env.SOURCE_DATE_EPOCH)
  if (Number.isInteger(given) && given > 0) return given
  try {
    return Number(
      execFileSync('git', ['log', '-1', '--format=%ct'], { cwd: root, stdio: ['ignore', 'pipe', 'ignore'] }),
    )
  } catch {
    return Date.UTC(2026, 0, 1) / 1_000
  }
}

export function packageVersion(): string {
  return (JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }).version
}

const SOURCES = [
  ...['agent', 'controller', 'shared', 'package-lock.json', 'pkg.config.json'],
  ...['scripts/package.ts', 'scripts/package/early-version'],
] as const

/** The folder of the packed programs, which are made when one is not there or older than its sources. */
export function ensurePrograms(say: (line: string) => void): string {
  const programs = join(root, 'dist')
  const made = PROGRAMS.map((name) => join(programs, name))
  const newest = Math.max(...SOURCES.map((name) => newestBelow(join(root, name))))
  if (made.every((path) => existsSync(path) && statSync(path).mtimeMs >= newest)) return programs
  say('packing the programs into dist/')
  // In a process of its own: what loads this may load packages in another way than Node.
  execFileSync(process.execPath, [join(root, 'scripts', 'package.ts')], {
    cwd: root,
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  return programs
}

/** When the newest of the files was written, milliseconds since 1970. Tests are no part of a program. */
function newestBelow(path: string): number {
  const facts = statSync(path)
  if (!facts.isDirectory()) return path.endsWith('.test.ts') ? 0 : facts.mtimeMs
  return Math.max(
    0,
    ...readdirSync(path).map((name) => (name === 'testing' ? 0 : newestBelow(join(path, name)))),
  )
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { deb: { type: 'boolean' }, rpm: { type: 'boolean' } } })
  const kinds = (['deb', 'rpm'] as const).filter((kind) => values[kind] ?? !(values.deb || values.rpm))
  const say = (line: string) => console.log(line)
  const system = ensureSystemPrograms(PACKAGING, say)
  if (system.kind === 'missing') throw new Error(system.mend)
  const programs = ensurePrograms(say)
  for (const spec of [
    agentPackage(programs, packageVersion()),
    controllerPackage(programs, packageVersion()),
  ]) {
    for (const kind of kinds) say(buildPackage(kind, spec, programs))
  }
}
