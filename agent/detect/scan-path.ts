/** Examines the files below a path on demand, behind whatever just happened on the host. */

import { isUtf8 } from 'node:buffer'
import type { Dir } from 'node:fs'
import { promises } from 'node:fs'
import type { Finding } from '../../shared/events/detection.ts'
import type { KernelText } from '../sensors/records.ts'
import type { Detection } from './detection.ts'
import { fileFactsOf } from './file-facts.ts'
import type { SkipReason } from './open-target.ts'
import type { ScanOutcome } from './scan-outcome.ts'
import type { Scanner } from './scanner.ts'

export interface ScanPathOptions {
  readonly scanner: Scanner
  /** Emits what is found. */
  readonly detection: Detection
  readonly filesMax: number
  readonly depthMax?: number
  /** Stay on the device of the path itself. */
  readonly oneDevice?: boolean
  readonly signal: AbortSignal
  readonly onMatch?: (match: PathMatch) => void
}

export interface PathMatch {
  readonly path: string
  readonly sha256: string | null
  readonly device: number
  readonly inode: string
  readonly sizeBytes: number
  readonly finding: Finding
}

type PathSkipReason = SkipReason | 'other-device' | 'too-deep' | 'too-many' | 'cancelled' | 'partly-scanned'

export interface ScanPathSummary {
  /** Files that were examined. */
  readonly files: number
  /** Bytes that the rules saw, counting a cached result as read. */
  readonly bytes: number
  readonly matches: number
  readonly skipped: readonly { readonly reason: PathSkipReason; readonly count: number }[]
}

const DEPTH_MAX = 64
/** Enough that the child always has a next file. */
const CONCURRENCY = 4

/** Symbolic links are not followed, also when the path is one. Never rejects for what it finds on the way. */
export async function scanPath(path: KernelText, options: ScanPathOptions): Promise<ScanPathSummary> {
  const skipped = new Map<PathSkipReason, number>()
  let files = 0
  let bytes = 0
  let matches = 0
  const skip = (reason: PathSkipReason) => void skipped.set(reason, (skipped.get(reason) ?? 0) + 1)

  function take(file: KernelText, outcome: ScanOutcome): void {
    if (outcome.kind === 'skipped') {
      skip(outcome.reason)
      return
    }
    const { facts, identity } = outcome
    files += 1
    bytes += facts.scannedBytes
    // It counts as examined, and still a person must know that rules did not see all of it.
    if (facts.scannedBytes < identity.sizeBytes || facts.scanProblem !== null) skip('partly-scanned')
    const findings = options.detection.handleAsked({ path: file, identity, why: 'written' }, outcome)
    for (const finding of findings) {
      matches += 1
      options.onMatch?.({
        path: fileFactsOf(file, null, null)['file.path'],
        sha256: facts.hashes?.sha256 ?? null,
        device: identity.device,
        inode: identity.exactInode,
        sizeBytes: identity.sizeBytes,
        finding,
      })
    }
  }

  const running = new Set<Promise<void>>()
  let submitted = 0
  for await (const file of walk(path, options, skip)) {
    if (options.signal.aborted) {
      skip('cancelled')
      break
    }
    if (submitted >= options.filesMax) {
      skip('too-many')
      break
    }
    submitted += 1
    const one = options.scanner
      .examine({ path: file, identity: null, why: 'asked', pid: null })
      .then((outcome) => take(file, outcome))
      .finally(() => running.delete(one))
    running.add(one)
    if (running.size >= CONCURRENCY) await Promise.race(running)
  }
  await Promise.all(running)
  return {
    files,
    bytes,
    matches,
    skipped: [...skipped].map(([reason, count]) => ({ reason, count })),
  }
}

/** Files in the order of the folders; what is no file is told to `skip`. Folders above a depth are not entered. */
async function* walk(
  path: KernelText,
  options: ScanPathOptions,
  skip: (reason: PathSkipReason) => void,
): AsyncGenerator<KernelText> {
  const root = typeof path === 'string' ? Buffer.from(path) : Buffer.from(path)
  const rootDevice = await deviceOf(root)
  const folders: { readonly path: Buffer; readonly depth: number }[] = []
  const first = await kindOf(root)
  if (first === 'folder') folders.push({ path: root, depth: 0 })
  else if (first === 'file') yield readable(root)
  else skip(first)

  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    if (options.signal.aborted) {
      skip('cancelled')
      return
    }
    if ((options.oneDevice ?? true) && (await deviceOf(folder.path)) !== rootDevice) {
      skip('other-device')
      continue
    }
    for await (const entry of entriesOf(folder.path, skip)) {
      const child = Buffer.concat([folder.path, SLASH, Buffer.from(entry.name, 'latin1')])
      if (entry.kind === 'file') yield readable(child)
      else if (entry.kind !== 'folder') skip(entry.kind)
      else if (folder.depth + 1 > (options.depthMax ?? DEPTH_MAX)) skip('too-deep')
      else folders.push({ path: child, depth: folder.depth + 1 })
    }
  }
}

const SLASH = Buffer.from('/')

type EntryKind = 'file' | 'folder' | 'symlink' | 'not-regular' | 'vanished' | 'permission' | 'unreadable'

/** Names are read as Latin-1, which keeps every byte. */
async function* entriesOf(
  folder: Buffer,
  skip: (reason: PathSkipReason) => void,
): AsyncGenerator<{ readonly name: string; readonly kind: EntryKind }> {
  let directory: Dir
  try {
    directory = await promises.opendir(folder, { encoding: 'latin1' })
  } catch (error) {
    skip(reasonFor(error))
    return
  }
  try {
    for await (const entry of directory) {
      const kind = entry.isFile()
        ? 'file'
        : entry.isDirectory()
          ? 'folder'
          : entry.isSymbolicLink()
            ? 'symlink'
            : 'not-regular'
      yield { name: entry.name, kind }
    }
  } catch (error) {
    skip(reasonFor(error))
  }
}

async function kindOf(path: Buffer): Promise<EntryKind> {
  try {
    const stats = await promises.lstat(path)
    if (stats.isDirectory()) return 'folder'
    if (stats.isSymbolicLink()) return 'symlink'
    return stats.isFile() ? 'file' : 'not-regular'
  } catch (error) {
    return reasonFor(error)
  }
}

async function deviceOf(path: Buffer): Promise<number | null> {
  try {
    return (await promises.lstat(path)).dev
  } catch {
    return null
  }
}

function reasonFor(error: unknown): 'vanished' | 'permission' | 'unreadable' {
  const code = error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined
  if (code === 'ENOENT' || code === 'ENOTDIR') return 'vanished'
  return code === 'EACCES' || code === 'EPERM' ? 'permission' : 'unreadable'
}

function readable(path: Buffer): KernelText {
  return isUtf8(path) ? path.toString('utf8') : path
}
