/**
 * Reaches files the way an attacker cannot redirect: component by component through directory descriptors,
 * without following a link. Node has no openat(2); `/proc/self/fd/N/name` names an entry of the open directory
 * N just so, whatever its path leads to by now.
 */
import { type BigIntStats, constants, fstatSync, readlinkSync } from 'node:fs'
import { type FileHandle, lstat, open, readdir } from 'node:fs/promises'

/** O_PATH of asm-generic/fcntl.h: a hold on an entry that opens nothing, so a FIFO or device cannot block. */
const O_PATH = 0o10000000
const PATH_BYTES_MAX = 4_096
const SLASH = 0x2f

export interface FileProblem {
  readonly kind: 'problem'
  readonly code:
    | 'badPath'
    | 'symlink'
    | 'notFound'
    | 'otherFile'
    | 'moved'
    | 'notDirectory'
    | 'notRegular'
    | 'denied'
    | 'failed'
  readonly reason: string
}

/** The directory that holds an entry, open, and the entry's name. */
export interface Place extends AsyncDisposable {
  readonly kind: 'place'
  readonly directory: FileHandle
  readonly name: Buffer
  /** Where the directory is by now, as the kernel tells it. */
  readonly realDirectory: Buffer
}

export function problem(code: FileProblem['code'], reason: string): FileProblem {
  return { kind: 'problem', code, reason }
}

/** Path of an entry of an open directory, for any call that takes a path. */
export function entryPath(directory: FileHandle, name: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from(`/proc/self/fd/${directory.fd}/`), name])
}

/**
 * Opens the directory of `path` without following any link on the way. `path` is absolute, without empty, `.`
 * or `..` components, at most 4,096 bytes.
 */
export async function openPlace(path: Buffer): Promise<Place | FileProblem> {
  const components = splitPath(path)
  const name = components?.pop()
  if (!components || !name) return problem('badPath', 'the path is not absolute and plain')
  let directory = await open('/', O_PATH | constants.O_DIRECTORY)
  for (const component of components) {
    const below = await openDirectory(directory, component)
    await directory.close()
    if (below.kind === 'problem') return below
    directory = below.directory
  }
  const held = directory
  const realDirectory = readlinkSync(`/proc/self/fd/${held.fd}`, 'buffer')
  return { kind: 'place', directory: held, name, realDirectory, [Symbol.asyncDispose]: () => held.close() }
}

/** Opens a directory below another; a symlink in its place is refused, not followed. */
export async function openDirectory(
  parent: FileHandle,
  name: Buffer,
): Promise<{ readonly kind: 'directory'; readonly directory: FileHandle } | FileProblem> {
  const flags = O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW
  try {
    return { kind: 'directory', directory: await open(entryPath(parent, name), flags) }
  } catch (error) {
    const told = name.toString('utf8')
    const stat = await lstat(entryPath(parent, name)).catch(() => null)
    if (stat?.isSymbolicLink()) return problem('symlink', `${told} on the way to the file is a symbolic link`)
    return toProblem(error, `${told} on the way to the file`)
  }
}

/** A hold on the entry itself, without opening it: links are not followed, FIFOs and devices are not touched. */
export async function holdEntry(
  directory: FileHandle,
  name: Buffer,
): Promise<{ readonly kind: 'held'; readonly entry: FileHandle; readonly stat: BigIntStats } | FileProblem> {
  try {
    const entry = await open(entryPath(directory, name), O_PATH | constants.O_NOFOLLOW)
    return { kind: 'held', entry, stat: fstatSync(entry.fd, { bigint: true }) }
  } catch (error) {
    return toProblem(error, 'the file')
  }
}

/** Opens the very inode that is held, for reading. The access time is left alone where that is allowed. */
export async function openHeld(entry: FileHandle): Promise<FileHandle | FileProblem> {
  const flags = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY
  const path = `/proc/self/fd/${entry.fd}`
  try {
    return await open(path, flags | constants.O_NOATIME).catch(() => open(path, flags))
  } catch (error) {
    return toProblem(error, 'the file')
  }
}

/** What `stat` says the entry is, when it is not a regular file. */
export function notRegular(stat: BigIntStats): FileProblem | null {
  if (stat.isFile()) return null
  if (stat.isSymbolicLink()) return problem('symlink', 'the path is a symbolic link, not a file')
  const kinds = [
    [stat.isDirectory(), 'a directory'],
    [stat.isFIFO(), 'a FIFO'],
    [stat.isSocket(), 'a socket'],
    [stat.isBlockDevice() || stat.isCharacterDevice(), 'a device'],
  ] as const
  const kind = kinds.find(([is]) => is)?.[1] ?? 'not a regular file'
  return problem('notRegular', `the path is ${kind}; only regular files are taken`)
}

/** Makes the entries of an open directory durable. */
export async function syncDirectory(directory: FileHandle): Promise<void> {
  await using readable = await open(
    `/proc/self/fd/${directory.fd}`,
    constants.O_RDONLY | constants.O_DIRECTORY,
  )
  await readable.sync()
}

/** Names in a directory of the inode, bounded: null when the directory has more entries than are looked at. */
export async function namesOfInode(
  directory: FileHandle,
  inode: bigint,
  device: bigint,
  entriesMax: number,
): Promise<Buffer[] | null> {
  const names = await readdir(`/proc/self/fd/${directory.fd}`, { encoding: 'buffer' })
  if (names.length > entriesMax) return null
  const found: Buffer[] = []
  for (const name of names) {
    const stat = await lstat(entryPath(directory, name), { bigint: true }).catch(() => null)
    if (stat?.ino === inode && stat.dev === device) found.push(name)
  }
  return found
}

/** Plain components of an absolute path, or null. */
function splitPath(path: Buffer): Buffer[] | null {
  if (path.length < 2 || path.length > PATH_BYTES_MAX || path[0] !== SLASH || path.includes(0)) return null
  const components: Buffer[] = []
  for (let start = 1; start <= path.length; ) {
    const slash = path.indexOf(SLASH, start)
    const end = slash === -1 ? path.length : slash
    const component = path.subarray(start, end)
    const text = component.toString('latin1')
    if (text === '' || text === '.' || text === '..') return null
    components.push(component)
    start = end + 1
  }
  return components
}

/** True when `path` is `folder` or lies in it, component by component. Both plain and absolute. */
export function liesIn(path: Buffer, folder: Buffer): boolean {
  const outer = folder.toString('latin1').replace(/\/+$/, '')
  const inner = path.toString('latin1')
  return inner === outer || inner.startsWith(`${outer}/`)
}

export function toProblem(error: unknown, subject: string): FileProblem {
  const code = error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined
  switch (code) {
    case 'ENOENT':
      return problem('notFound', `${subject} does not exist`)
    case 'ENOTDIR':
      return problem('notDirectory', `${subject} is not a directory`)
    case 'ELOOP':
      return problem('symlink', `${subject} is a symbolic link`)
    case 'EACCES':
    case 'EPERM':
      return problem('denied', `${subject} may not be reached by this agent (${code})`)
    case 'ENAMETOOLONG':
      return problem('badPath', `${subject} has a name that is too long`)
    default:
      return problem('failed', `${subject}: ${error instanceof Error ? error.message : String(error)}`)
  }
}
