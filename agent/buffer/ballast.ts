/**
 * Blocks kept for class 0: a file of zeroes beside the database. When the disk is full it gives its blocks
 * back piece by piece, each just before a write that needs it, so that whoever filled the disk has little time
 * to take them.
 */
import { closeSync, fdatasyncSync, openSync, statfsSync, statSync, truncateSync, writeSync } from 'node:fs'

const CHUNK = new Uint8Array(256 * 1024)

/**
 * Makes the file `bytes` long, with real blocks. False when the disk has no room, or so little that the reserve
 * would take half of it; what was there is kept then.
 */
export function growBallast(path: string, bytes: number): boolean {
  const present = ballastBytes(path)
  if (present >= bytes) return true
  let fd: number | undefined
  try {
    fd = openSync(path, 'a', 0o600)
    const disk = statfsSync(path)
    if (disk.bavail * disk.bsize < 2 * (bytes - present)) return false
    let size = present
    while (size < bytes) {
      const written = writeSync(fd, CHUNK, 0, Math.min(CHUNK.length, bytes - size))
      if (written === 0) throw new Error('the disk took nothing')
      size += written
    }
    fdatasyncSync(fd)
    return true
  } catch {
    if (fd !== undefined) shrinkBallast(path, present)
    return false
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
}

/** Shortens the file to `bytes` and frees the rest. */
export function shrinkBallast(path: string, bytes: number): void {
  try {
    if (ballastBytes(path) > bytes) truncateSync(path, bytes)
  } catch {
    // Without ballast the write that follows fails, and is tried again later.
  }
}

/** Bytes that the file holds now. */
function ballastBytes(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0
}
