/**
 * Opens the file to be examined so that nothing it is can hurt: no symbolic link is followed, no FIFO or device
 * is opened, nothing waits. What is opened is described from its descriptor, not from its path.
 */
import { type BigIntStats, constants, promises, readlinkSync } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import type { FileIdentity, KernelText } from '../sensors/records.ts'
import type { OwnFiles } from './own-files.ts'

export const SKIP_REASONS = [
  'vanished',
  'symlink',
  'not-regular',
  'permission',
  'own-file',
  'replaced',
  'unreadable',
  'timeout',
  'memory',
  'crashed',
  'queue-full',
  'stopped',
] as const
export type SkipReason = (typeof SKIP_REASONS)[number]

export interface ScanTarget {
  readonly path: KernelText
  /** As the kernel told it; null when unknown. */
  readonly identity: FileIdentity | null
  readonly why: 'written' | 'executed' | 'asked'
  /** The process that runs it, when `executed`: its image is reached through it when the path leads elsewhere. */
  readonly pid: number | null
}

/** Of the open descriptor. Some file systems use all 64 bits of an inode, which a number does not hold. */
export interface OpenedIdentity extends FileIdentity {
  readonly exactInode: string
}

export type OpenedTarget =
  | { readonly kind: 'opened'; readonly handle: FileHandle; readonly identity: OpenedIdentity }
  | { readonly kind: 'skipped'; readonly reason: SkipReason; readonly detail: string }

const SAFE_FLAGS = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY

/** Never throws. Node opens everything with O_CLOEXEC. */
export async function openTarget(target: ScanTarget, ownFiles: OwnFiles): Promise<OpenedTarget> {
  const opened = await openPath(target.path, ownFiles)
  if (opened.kind === 'opened') {
    if (target.identity === null || isSameFile(target.identity, opened.identity)) return opened
    await opened.handle.close()
  } else if (opened.reason !== 'vanished' && opened.reason !== 'symlink') {
    return opened
  }
  // The path may be one of another mount namespace, or its file deleted: the process still has its image.
  const image = await openImage(target, ownFiles)
  if (image !== null) return image
  return opened.kind === 'skipped' ? opened : skip('replaced', 'another file stands at the path by now')
}

async function openPath(path: KernelText, ownFiles: OwnFiles): Promise<OpenedTarget> {
  const exactPath = typeof path === 'string' ? path : Buffer.from(path)
  try {
    // Opening a device can do things, so it is not even opened.
    const before = await promises.lstat(exactPath)
    if (before.isSymbolicLink()) return skip('symlink', 'symbolic links are not followed')
    if (!before.isFile()) return skip('not-regular', 'not a regular file')
    return await openFile(exactPath, SAFE_FLAGS | constants.O_NOFOLLOW, ownFiles)
  } catch (error) {
    return skipFor(error)
  }
}

/** Null when the process is gone or runs something else. */
async function openImage(target: ScanTarget, ownFiles: OwnFiles): Promise<OpenedTarget | null> {
  if (target.why !== 'executed' || target.pid === null || target.identity === null) return null
  try {
    const opened = await openFile(`/proc/${target.pid}/exe`, SAFE_FLAGS, ownFiles)
    if (opened.kind === 'opened' && !isSameFile(target.identity, opened.identity)) {
      await opened.handle.close()
      return null
    }
    return opened
  } catch {
    return null
  }
}

async function openFile(path: string | Buffer, flags: number, ownFiles: OwnFiles): Promise<OpenedTarget> {
  const handle = await openQuietly(path, flags)
  let isKept = false
  try {
    const stats = await handle.stat({ bigint: true })
    if (!stats.isFile()) return skip('not-regular', 'not a regular file')
    if (ownFiles.has(realPathOf(handle.fd), stats)) return skip('own-file', "the agent's own state")
    isKept = true
    return { kind: 'opened', handle, identity: identityOf(stats) }
  } finally {
    if (!isKept) await handle.close()
  }
}

/** Without touching the access time where that is allowed: it is evidence. */
async function openQuietly(path: string | Buffer, flags: number): Promise<FileHandle> {
  try {
    return await promises.open(path, flags | constants.O_NOATIME)
  } catch (error) {
    if (codeOf(error) !== 'EPERM') throw error
    return promises.open(path, flags)
  }
}

function realPathOf(fd: number): string | null {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`)
  } catch {
    return null
  }
}

function identityOf(stats: BigIntStats): OpenedIdentity {
  return {
    device: Number(stats.dev),
    inode: Number(stats.ino),
    exactInode: String(stats.ino),
    sizeBytes: Number(stats.size),
    changedNs: stats.ctimeNs,
  }
}

/** Some file systems give the kernel another device number than stat(2): then size and change time decide. */
function isSameFile(told: FileIdentity, found: FileIdentity): boolean {
  if (told.inode !== found.inode) return false
  return (
    told.device === found.device || (told.sizeBytes === found.sizeBytes && told.changedNs === found.changedNs)
  )
}

function skip(reason: SkipReason, detail: string): OpenedTarget {
  return { kind: 'skipped', reason, detail }
}

function skipFor(error: unknown): OpenedTarget {
  const code = codeOf(error)
  switch (code) {
    case 'ENOENT':
    case 'ENOTDIR':
    case 'ESTALE':
      return skip('vanished', 'the file is gone')
    case 'ELOOP':
      return skip('symlink', 'symbolic links are not followed')
    case 'ENXIO':
    case 'ENODEV':
      return skip('not-regular', 'not a regular file')
    case 'EACCES':
    case 'EPERM':
      return skip('permission', 'not allowed to read it')
    default:
      return skip('unreadable', code ?? (error instanceof Error ? error.message : String(error)))
  }
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined
}
