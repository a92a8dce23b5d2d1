/**
 * `npm run package`: each program as one file in dist/, with Node, its native addons and what ships inside it, as
 * pkg.config.json says; dist/SHA256SUMS names them. Arguments are the programs to make, all unless said.
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
// Its command line breaks what starts processes; this is the step that makes the file.
import pkgSea from '@yao-pkg/pkg/lib-es5/sea.js'
import type { PackedTable } from '../shared/node/assets.ts'
import { bundlePacked, checkNode, NODE_BINARY, WORKERS } from './build.ts'
import { buildConsole } from './build-console.ts'
import { buildNative } from './build-native.ts'
import { putVersionStub } from './package/early-version/put-stub.ts'
import { PROGRAMS, type Program } from './setup/programs.ts'
import { COMPILER, ensureSystemPrograms } from './setup/system-packages.ts'

const root = join(import.meta.dirname, '..')
const work = join(root, 'build', 'package')

interface ProgramConfig {
  readonly execArgv: readonly string[]
  /** Name to file, from the root. */
  readonly addons: Readonly<Record<string, string>>
  /** What ships, name to folder, from the root; a folder that was not built ships nothing. */
  readonly folders: Readonly<Record<string, string>>
  readonly workers: readonly (keyof typeof WORKERS)[]
}

interface Config {
  readonly pkg: {
    readonly targets: readonly string[]
    readonly outputPath: string
    readonly signature: boolean
    readonly seaConfig: Exclude<Parameters<typeof pkgSea.default>[1]['seaConfig'], undefined> & {
      readonly execArgv: readonly string[]
    }
  }
  readonly programs: Readonly<Record<Program, ProgramConfig>>
}

/** Makes the programs. Throws with what is missing and how to mend it. Returns where they are. */
export async function packagePrograms(
  say: (line: string) => void,
  programs: readonly Program[] = Object.keys(PROGRAMS) as Program[],
): Promise<string> {
  const config: Config = JSON.parse(readFileSync(join(root, 'pkg.config.json'), 'utf8'))
  const system = ensureSystemPrograms(COMPILER, say)
  if (system.kind === 'missing') throw new Error(system.mend)
  const native = buildNative()
  if (native.kind === 'failed') throw new Error(`the agent's own addon is not built: ${native.reason}`)
  await buildConsole()
  mkdirSync(work, { recursive: true })
  const nodePath = strippedNode()
  const output = join(root, config.pkg.outputPath)
  mkdirSync(output, { recursive: true })
  for (const program of programs) {
    const made = await packageProgram(program, config, nodePath)
    const path = join(output, program)
    // A program that runs keeps the file that it has.
    renameSync(made, path)
    say(`${config.pkg.outputPath}/${program}  ${(statSync(path).size / 1e6).toFixed(1)} MB`)
  }
  writeSums(output)
  return output
}

/** Symbols of Node are 18 MB that nothing reads. After the program is put in, stripping would break it. */
function strippedNode(): string {
  checkNode()
  if (!existsSync(NODE_BINARY)) throw new Error(`${NODE_BINARY} is missing: run npm ci on Linux on x86-64`)
  const stripped = join(work, 'node')
  const stampPath = `${stripped}.from`
  const stamp = sha256(NODE_BINARY)
  if (existsSync(stripped) && existsSync(stampPath) && readFileSync(stampPath, 'utf8') === stamp)
    return stripped
  const temporary = `${stripped}.new`
  copyFileSync(NODE_BINARY, temporary)
  execFileSync('strip', ['--strip-all', temporary])
  chmodSync(temporary, 0o755)
  renameSync(temporary, stripped)
  writeFileSync(stampPath, stamp)
  return stripped
}

async function packageProgram(program: Program, config: Config, nodePath: string): Promise<string> {
  const { addons, folders, workers, execArgv } = config.programs[program]
  const folder = join(work, program)
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder)
  const assets: Record<string, string> = {}
  for (const [name, file] of Object.entries(addons)) assets[`addons/${name}.node`] = join(root, file)
  for (const [name, from] of Object.entries(folders))
    Object.assign(assets, filesBelow(name, join(root, from)))
  const table: PackedTable = {
    addons: Object.fromEntries(
      Object.entries(addons).map(([name, file]) => [
        name,
        { sha256: sha256(join(root, file)), size: statSync(join(root, file)).size },
      ]),
    ),
    files: Object.keys(assets)
      .filter((name) => !name.startsWith('addons/'))
      .sort(),
  }
  for (const worker of workers) {
    const file = join(folder, `${worker}.cjs`)
    await bundlePacked(`require('./${WORKERS[worker]}')`, file, table)
    assets[`workers/${worker}.cjs`] = file
  }
  const entry = join(folder, `${program}.cjs`)
  await bundlePacked(launcher(PROGRAMS[program]), entry, table)
  const output = join(folder, program)
  const [nodeRange = '', platform, arch = ''] = config.pkg.targets[0]?.split('-') ?? []
  if (platform !== 'linux') throw new Error('pkg.config.json: the one target that can be made is of linux')
  const seaConfig = {
    ...config.pkg.seaConfig,
    execArgv: [...config.pkg.seaConfig.execArgv, ...execArgv],
    // One order, so that the same inputs make the same program.
    assets: Object.fromEntries(Object.entries(assets).sort(([a], [b]) => (a < b ? -1 : 1))),
  }
  await pkgSea.default(entry, {
    targets: [{ nodeRange, platform: 'linux', arch, output }],
    signature: config.pkg.signature,
    nodePath,
    seaConfig,
  })
  chmodSync(output, 0o755)
  // Last of all: what puts the program into Node writes the file anew, and asks Node for Node's version.
  if (putVersionStub(output, packageVersion()).kind === 'put') checkStarts(output)
  return output
}

/** A program that starts no more is never handed on: the answer, and the way past it into the program. */
function checkStarts(path: string): void {
  const run = (option: string) => execFileSync(path, [option], { encoding: 'utf8', timeout: 60_000 })
  const version = run('--version')
  if (version !== `${packageVersion()}\n`)
    throw new Error(`${path} --version says ${JSON.stringify(version)}`)
  if (!run('--help').startsWith('Usage:')) throw new Error(`${path} --help does not say how it is used`)
}

/**
 * Where no stub answers before Node starts (docs/adr/0016-version-before-node.md), the version is told before
 * anything is loaded: packagers and monitors ask often, and wait.
 */
function launcher(entry: string): string {
  return `if (process.argv.length === 3 && process.argv[2] === '--version') {
    process.stdout.write(${JSON.stringify(`${packageVersion()}\n`)})
  } else {
    require('./${entry}')
  }`
}

function packageVersion(): string {
  return (JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }).version
}

/** Asset names to files. */
function filesBelow(name: string, folder: string): Record<string, string> {
  if (!existsSync(folder)) return {}
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) =>
    entry.isFile(),
  )
  return Object.fromEntries(
    files.map((entry) => {
      const path = join(entry.parentPath, entry.name)
      return [`${name}${path.slice(folder.length)}`, path]
    }),
  )
}

function writeSums(output: string): void {
  const names = Object.keys(PROGRAMS).filter((program) => existsSync(join(output, program)))
  const lines = names.sort().map((name) => `${sha256(join(output, name))}  ${name}\n`)
  writeFileSync(join(output, 'SHA256SUMS'), lines.join(''))
}

function sha256(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex')
}

if (import.meta.main) {
  const asked = process.argv.slice(2)
  const unknown = asked.filter((name) => !Object.hasOwn(PROGRAMS, name))
  if (unknown.length > 0) {
    console.error(
      `cordon: no such program: ${unknown.join(', ')}; known are ${Object.keys(PROGRAMS).join(', ')}`,
    )
    process.exitCode = 2
  } else {
    await packagePrograms((line) => console.log(line), asked.length > 0 ? (asked as Program[]) : undefined)
  }
}
