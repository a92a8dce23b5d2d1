/**
 * Reads files whose folders others may write to. Every component below the root is opened without following links,
 * so that a link planted in a home or a container leads the agent nowhere; FIFOs and devices are not opened.
 * Node has no openat(2); `/proc/self/fd/N/name` names an entry of the open folder N.
 */
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  opendirSync,
  openSync,
  readlinkSync,
  readSync,
} from 'node:fs'
import { bytesOf, type ExactPath } from './exact-path.ts'

/** What a path names now. */
export type Standing =
  | { readonly kind: 'absent' }
  /** `target` is bytes, as an exact path. */
  | { readonly kind: 'link'; readonly target: string }
  | {
      readonly kind: 'file'
      /** At most as many bytes as were asked for. */
      readonly content: Buffer
      readonly sizeBytes: number
      /** `device:inode`, exact. */
      readonly identity: string
      readonly changedNs: bigint
      /** Everybody may read it (S_IROTH). */
      readonly readByOthers: boolean
    }
  | { readonly kind: 'other'; readonly reason: string }

export interface FolderEntry {
  readonly name: ExactPath
  readonly isFolder: boolean
}

/** `inside` is absolute and lies below `root` ('' is the host's own root). Never throws. */
export type ReadFile = (root: ExactPath, inside: ExactPath, bytesMax: number) => Standing
/** Entries of a folder, at most `entriesMax`; none when there is no such folder. Never throws. */
export type ListFolder = (root: ExactPath, inside: ExactPath, entriesMax: number) => readonly FolderEntry[]

/** O_PATH of asm-generic/fcntl.h: a hold on a folder that reads nothing. */
const O_PATH = 0o10000000
const folderFlags = O_PATH | constants.O_DIRECTORY
const fileFlags = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW | constants.O_NOCTTY
const READ_BY_OTHERS = 0o004
const PATH_BYTES_MAX = 4_096

export const readSafely: ReadFile = (root, inside, bytesMax) => {
  try {
    return withFolder(root, inside, false, (folder, name) => readEntry(entryOf(folder, name), bytesMax))
  } catch (error) {
    return standingOf(error)
  }
}

export const listSafely: ListFolder = (root, inside, entriesMax) => {
  try {
    return withFolder(root, inside, true, (folder) => {
      const entries: FolderEntry[] = []
      const opened = opendirSync(`/proc/self/fd/${folder}`, { encoding: 'latin1' })
      try {
        for (let entry = opened.readSync(); entry !== null; entry = opened.readSync()) {
          if (entries.length >= entriesMax) break
          entries.push({ name: entry.name, isFolder: entry.isDirectory() })
        }
      } finally {
        opened.closeSync()
      }
      return entries
    })
  } catch {
    return []
  }
}

function withFolder<Result>(
  root: ExactPath,
  inside: ExactPath,
  whole: boolean,
  use: (folder: number, name: string) => Result,
): Result {
  if (root.length + inside.length > PATH_BYTES_MAX || inside.includes('\0')) throw failure('ENOENT')
  const components = inside.split('/').filter((component) => component !== '' && component !== '.')
  if (components.includes('..')) throw failure('ENOENT')
  const name = whole ? '' : (components.pop() ?? '')
  let folder = openSync(root === '' ? '/' : bytesOf(root), folderFlags)
  try {
    for (const component of components) {
      const below = openSync(entryOf(folder, component), folderFlags | constants.O_NOFOLLOW)
      closeSync(folder)
      folder = below
    }
    return use(folder, name)
  } finally {
    closeSync(folder)
  }
}

function readEntry(path: Buffer, bytesMax: number): Standing {
  // Opening a device can do things, so what the name leads to is looked at first.
  const before = lstatSync(path)
  if (before.isSymbolicLink()) return { kind: 'link', target: readlinkSync(path, 'latin1') }
  if (!before.isFile()) return { kind: 'other', reason: 'not a regular file' }
  const descriptor = openSync(path, fileFlags)
  try {
    const stat = fstatSync(descriptor, { bigint: true })
    if (!stat.isFile()) return { kind: 'other', reason: 'not a regular file' }
    const room = Buffer.allocUnsafe(Math.min(bytesMax, Math.max(Number(stat.size), 4_096)))
    let bytes = 0
    while (bytes < room.length) {
      const read = readSync(descriptor, room, bytes, room.length - bytes, bytes)
      if (read === 0) break
      bytes += read
    }
    return {
      kind: 'file',
      content: room.subarray(0, bytes),
      sizeBytes: Math.max(Number(stat.size), bytes),
      identity: `${stat.dev}:${stat.ino}`,
      changedNs: stat.mtimeNs,
      readByOthers: (Number(stat.mode) & READ_BY_OTHERS) !== 0,
    }
  } finally {
    closeSync(descriptor)
  }
}

function entryOf(folder: number, name: string): Buffer {
  return bytesOf(`/proc/self/fd/${folder}/${name}`)
}

function failure(code: string): Error {
  return Object.assign(new Error(code), { code })
}

/** A folder on the way that is gone, or is a link by now, leaves nothing at the path. */
function standingOf(error: unknown): Standing {
  const code = error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined
  if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ELOOP') return { kind: 'absent' }
  return { kind: 'other', reason: `cannot be read (${code ?? 'unknown error'})` }
}
