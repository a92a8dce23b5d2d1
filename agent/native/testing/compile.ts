/** What tests and benches of the native layer share: the addon, built when it must be, and small C programs. */
import { execFileSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { buildNative } from '../../../scripts/build-native.ts'
import { loadNative, type NativeAddon } from '../addon.ts'

/** Builds the addon when it is out of date, and loads it. Throws with the reason when that cannot be. */
export function loadBuiltAddon(): NativeAddon {
  const built = buildNative()
  if (built.kind === 'failed') throw new Error(built.reason)
  const loaded = loadNative(built.path)
  if (!loaded.ok) throw new Error(loaded.reason)
  return loaded.native
}

/** Compiles `tiny-exit.c` into `folder` and returns the program's path. */
export function compileTinyExit(folder: string, name = 'tiny-exit'): string {
  const output = join(folder, name)
  const flags = ['-O2', '-static', '-nostdlib', '-ffreestanding', '-fno-stack-protector']
  execFileSync('gcc', [...flags, '-o', output, join(import.meta.dirname, 'tiny-exit.c')])
  return output
}

/** Compiles `generate-exec.c` into `folder` and returns the program's path. */
export function compileGenerateExec(folder: string): string {
  const output = join(folder, 'generate-exec')
  execFileSync('gcc', ['-O2', '-o', output, join(import.meta.dirname, 'generate-exec.c')])
  return output
}

/** Compiles `receive-datagrams.c` into `folder` and returns the program's path. */
export function compileReceiveDatagrams(folder: string): string {
  const output = join(folder, 'receive-datagrams')
  execFileSync('gcc', ['-O2', '-o', output, join(import.meta.dirname, 'receive-datagrams.c')])
  return output
}

/**
 * Compiles `make-activity/` into `folder` and returns the program's path. Not position-independent, and without the
 * C library's files: 32-bit calls reach its memory, and it runs in any root.
 */
export function compileMakeActivity(folder: string): string {
  const output = join(folder, 'make-activity')
  const source = join(import.meta.dirname, 'make-activity')
  const sources = readdirSync(source).filter((name) => name.endsWith('.c'))
  const flags = ['-O2', '-static', '-no-pie', '-pthread']
  execFileSync('gcc', [...flags, '-o', output, ...sources.map((name) => join(source, name))])
  return output
}

/** Compiles `make-calls.c` into `folder` and returns the program's path. */
export function compileMakeCalls(folder: string): string {
  const output = join(folder, 'make-calls')
  execFileSync('gcc', ['-O2', '-o', output, join(import.meta.dirname, 'make-calls.c')])
  return output
}
