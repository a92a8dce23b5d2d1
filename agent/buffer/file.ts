/** The buffer's file as a file: setting it aside, noticing that it is gone, noting that the agent lives. */
import { closeSync, existsSync, futimesSync, openSync, renameSync, statSync } from 'node:fs'

const SIDE_FILES = ['-wal', '-shm'] as const

/** Renames the database and its log out of the way and returns the new name. Nothing is ever deleted. */
export function setFileAside(path: string, nowMs: number): string {
  const stamp = new Date(nowMs).toISOString().replace(/[-:]/g, '').replace(/\.\d+/, '')
  let aside = `${path}.aside-${stamp}`
  for (let attempt = 2; existsSync(aside) && attempt < 1_000; attempt += 1) {
    aside = `${path}.aside-${stamp}-${attempt}`
  }
  for (const suffix of ['', ...SIDE_FILES]) {
    if (existsSync(path + suffix)) renameSync(path + suffix, aside + suffix)
  }
  return aside
}

/** Device and inode of the file, or null when there is none. */
export function fileIdentity(path: string): string | null {
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false })
  return stat ? `${stat.dev}:${stat.ino}` : null
}

/** Bytes of a database and its log; 0 when there is none. */
export function diskBytes(path: string): number {
  return ['', '-wal'].reduce(
    (sum, suffix) => sum + (statSync(path + suffix, { throwIfNoEntry: false })?.size ?? 0),
    0,
  )
}

/** Milliseconds since 1970 when the file was made, as far as its file system knows; 0 when there is none. */
export function bornMs(path: string): number {
  return Math.floor(statSync(path, { throwIfNoEntry: false })?.birthtimeMs ?? 0)
}

/**
 * A file whose time says when the agent was last known to have everything on disk. Setting a time costs no
 * write to disk, so that an idle host stays idle; after a power cut it may be some seconds old.
 */
export function touchAlive(path: string, nowMs: number): void {
  try {
    const fd = openSync(path, 'a', 0o600)
    try {
      futimesSync(fd, nowMs / 1_000, nowMs / 1_000)
    } finally {
      closeSync(fd)
    }
  } catch {
    // Without it the window of a crash starts at the last commit.
  }
}

/** Milliseconds since 1970 of the last touch; 0 when there was none. */
export function lastAliveMs(path: string): number {
  return Math.floor(statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0)
}
