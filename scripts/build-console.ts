/**
 * Builds the console into build/console: an index and files named by their content. A build whose sources have
 * not changed is left as it is.
 */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join, relative } from 'node:path'
import { type BuildOptions, type BuildResult, build } from 'esbuild'

const root = join(import.meta.dirname, '..')
const source = join(root, 'controller', 'console')
const folder = join(root, 'build', 'console')
const assets = join(folder, 'assets')
const stampPath = join(root, 'build', 'console.sha256')

export type ConsoleBuild =
  | { readonly kind: 'present' }
  | { readonly kind: 'built'; readonly durationMs: number; readonly files: number }

/** Rejects when the sources do not compile. */
export async function buildConsole(): Promise<ConsoleBuild> {
  const wanted = hashOfSources()
  if (isBuilt() && readFileSync(stampPath, 'utf8') === wanted) return { kind: 'present' }
  const started = performance.now()
  const { outputFiles, metafile } = await bundleConsole()
  mkdirSync(assets, { recursive: true })
  for (const { path, contents } of outputFiles) put(join(assets, basename(path)), contents)
  put(join(folder, 'index.html'), Buffer.from(indexOf(metafile)))
  put(stampPath, Buffer.from(wanted))
  const kept = new Set(outputFiles.map(({ path }) => basename(path)))
  for (const name of readdirSync(assets)) if (!kept.has(name)) rmSync(join(assets, name), { force: true })
  return { kind: 'built', durationMs: performance.now() - started, files: outputFiles.length }
}

function isBuilt(): boolean {
  return existsSync(stampPath) && existsSync(join(folder, 'index.html'))
}

/** The console's files in memory. The metafile tells which files went in. */
export function bundleConsole(): Promise<BuildResult<BuildOptions & { metafile: true; write: false }>> {
  return build({
    absWorkingDir: root,
    entryPoints: ['controller/console/main.tsx'],
    outdir: 'build/console/assets',
    bundle: true,
    splitting: true,
    format: 'esm',
    target: ['chrome120', 'firefox121', 'safari17'],
    jsx: 'automatic',
    minify: true,
    legalComments: 'none',
    entryNames: '[name]-[hash]',
    chunkNames: '[name]-[hash]',
    assetNames: '[name]-[hash]',
    loader: { '.woff2': 'file' },
    define: { 'process.env.NODE_ENV': '"production"' },
    tsconfig: 'controller/console/tsconfig.json',
    logLevel: 'warning',
    metafile: true,
    write: false,
  })
}

function indexOf(metafile: BuildResult<{ metafile: true }>['metafile']): string {
  const outputs = Object.keys(metafile.outputs).map((path) => `/assets/${basename(path)}`)
  const only = (pattern: RegExp) => outputs.filter((name) => pattern.test(name))
  const [script = ''] = only(/\/main-[^/]*\.js$/)
  const [style = ''] = only(/\.css$/)
  const fonts = only(/\.woff2$/).map(
    (name) => `<link rel="preload" href="${name}" as="font" type="font/woff2" crossorigin>`,
  )
  return [
    '<!doctype html>',
    '<html lang="en">',
    '<head>',
    '<meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    '<meta name="color-scheme" content="dark light">',
    '<title>Cordon</title>',
    '<link rel="icon" href="/icon.svg" type="image/svg+xml">',
    ...fonts,
    `<link rel="stylesheet" href="${style}">`,
    '</head>',
    '<body>',
    '<div id="app"></div>',
    '<noscript>The console needs JavaScript. The program <code>cordon</code> does the same without.</noscript>',
    `<script type="module" src="${script}"></script>`,
    '</body>',
    '</html>',
    '',
  ].join('\n')
}

/** Sources, packages and this file: what a build comes from. */
function hashOfSources(): string {
  const hash = createHash('sha256')
  const names = readdirSync(source, { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.(tsx?|css|json)$/.test(name) && !/\.test\.tsx?$/.test(name))
    .sort()
  const files = [...names.map((name) => join(source, name)), join(root, 'package-lock.json')]
  for (const path of [...files, import.meta.filename]) {
    hash.update(relative(root, path)).update(readFileSync(path))
  }
  return hash.digest('hex')
}

/** Whole or not at all: a controller may start in the middle of a build. */
function put(path: string, bytes: Uint8Array): void {
  const temporary = `${path}.${process.pid}.part`
  writeFileSync(temporary, bytes)
  renameSync(temporary, path)
}

if (import.meta.main) console.log(await buildConsole())
