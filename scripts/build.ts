/** `npm run build`: bundles the three programs with esbuild into build/. Native addons stay beside them. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { type BuildResult, build } from 'esbuild'

const root = join(import.meta.dirname, '..')

export const PROGRAMS = {
  'cordon-agent': 'agent/main.ts',
  'cordon-controller': 'controller/main.ts',
  cordon: 'controller/cli/cordon.ts',
} as const
export type Program = keyof typeof PROGRAMS

/** Optional packages of dependencies, which are not installed or are looked for at run time. */
const EXTERNAL = ['fsevents', 'bufferutil', 'utf-8-validate', 'osx-temperature-sensor', '*.node']

/** Bundles one program. The metafile tells which files went in. */
export function bundle(program: Program, write: boolean): Promise<BuildResult<{ metafile: true }>> {
  return build({
    absWorkingDir: root,
    entryPoints: [PROGRAMS[program]],
    outfile: join('build', `${program}.cjs`),
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node24',
    minify: true,
    sourcemap: 'linked',
    external: [...EXTERNAL, 'better-sqlite3', '@litko/yara-x-linux-x64-gnu'],
    define: { 'import.meta.dirname': '__dirname', 'import.meta.filename': '__filename' },
    logLevel: 'warning',
    metafile: true,
    write,
  })
}

async function main(): Promise<void> {
  for (const program of Object.keys(PROGRAMS) as Program[]) {
    const result = await bundle(program, true)
    const [output, facts] =
      Object.entries(result.metafile.outputs).find(([path]) => path.endsWith('.cjs')) ?? []
    console.log(
      `${output}  ${Math.round((facts?.bytes ?? 0) / 1024)} KiB from ${Object.keys(result.metafile.inputs).length} files`,
    )
  }
  if (!existsSync(join(root, 'build', 'native', 'cordon.node'))) {
    console.log('build/native/cordon.node is not built: node scripts/build-native.ts makes it')
  }
}

if (import.meta.main) await main()
