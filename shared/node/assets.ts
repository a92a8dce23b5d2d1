/**
 * What ships beside the code: content, the console, the code of worker threads. It lies in one of three homes: in
 * the checkout, in build/ beside the bundled programs, or inside a packed program. Only this file and `addons.ts`
 * know which.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { getAsset, getRawAsset } from 'node:sea'
import { Worker, type WorkerOptions } from 'node:worker_threads'

export interface PackedTable {
  /** What each addon inside the program must be, byte for byte. */
  readonly addons: Readonly<Record<string, { readonly sha256: string; readonly size: number }>>
  /** Names of the files inside the program, sorted: `content/yara/malware.yar`. */
  readonly files: readonly string[]
}

/** Written into a packed program by `scripts/package.ts`; elsewhere there is no such name. */
declare const CORDON_PACKED: PackedTable | undefined

/** Null: this program runs from files. */
export const packed: PackedTable | null = typeof CORDON_PACKED === 'undefined' ? null : CORDON_PACKED

const SHIPPED_PREFIX = 'shipped:'

/** Where the files of one kind are: a folder, or a name that `listFolder` and `readShipped` understand. */
export function shippedFolder(kind: 'content' | 'console'): string {
  if (packed !== null) return `${SHIPPED_PREFIX}${kind}`
  const isSource = import.meta.filename.endsWith('.ts')
  const built = join(import.meta.dirname, isSource ? '../../build' : '..', kind)
  return kind === 'content' && isSource ? join(import.meta.dirname, '../content') : built
}

/** Whether the name is of what ships inside this program rather than of something on the disk. */
export function isShipped(path: string): boolean {
  return path.startsWith(SHIPPED_PREFIX)
}

/** Names of the files directly in a shipped or an ordinary folder. Throws as `readdirSync` does. */
export function listFolder(folder: string): string[] {
  if (!isShipped(folder)) {
    return readdirSync(folder, { withFileTypes: true })
      .filter((entry) => !entry.isDirectory())
      .map(({ name }) => name)
  }
  const inside = folder.slice(SHIPPED_PREFIX.length)
  const files = packed?.files ?? []
  return files.filter((file) => file === `${inside}/${basename(file)}`).map((file) => basename(file))
}

/** The bytes of a shipped file, which must not be written to, or of one on the disk. Throws when there is none. */
export function readShipped(path: string): Buffer {
  return isShipped(path) ? readPacked(path.slice(SHIPPED_PREFIX.length)) : readFileSync(path)
}

/** The bytes as they lie in the program's own pages: nothing is copied, and nothing may be written. */
export function readPacked(name: string): Buffer {
  return Buffer.from(getRawAsset(name))
}

/**
 * Starts a worker thread. `source` is its entry in the checkout; its name, without the ending, is that of an
 * entry in `WORKERS` of `scripts/build.ts`, which bundles it for the programs that name it in pkg.config.json.
 */
export function startWorker(source: string, options: WorkerOptions): Worker {
  const name = basename(source, '.ts')
  if (packed !== null) return new Worker(getAsset(`workers/${name}.cjs`, 'utf8'), { ...options, eval: true })
  return new Worker(
    import.meta.filename.endsWith('.ts') ? source : join(import.meta.dirname, `${name}.cjs`),
    options,
  )
}
