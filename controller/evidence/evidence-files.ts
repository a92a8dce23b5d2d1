/**
 * Collected files on the controller's disk: `partial/<command id>` while they come, `<sha256>` when they are whole.
 * No name here is one that an agent chose.
 */
import { createHash } from 'node:crypto'
import {
  chmodSync,
  constants,
  createReadStream,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
} from 'node:fs'
import { type FileHandle, open, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { removeFileDurably, syncFolder } from '../../shared/node/durable-file.ts'
import { FILE_CHUNK_BYTES_MAX, FILE_CHUNKS_MAX } from '../../shared/protocol/limits.ts'

/** What can have been written since the last sync: an agent has no more unanswered. */
const UNSYNCED_BYTES_MAX = FILE_CHUNKS_MAX * FILE_CHUNK_BYTES_MAX
const HASHED_AT_ONCE_BYTES = 1024 ** 2

export interface Partial extends AsyncDisposable {
  /** Everything before it is on disk. */
  readonly offset: number
  readonly handle: FileHandle
}

export interface EvidenceFiles {
  readonly folder: string
  freeBytes(): Promise<number>
  /**
   * Opens what has come of a file, or makes it. `syncedBytes` were on disk for certain; what lies behind them is
   * believed as far as no crash can have left a hole in it, and cut off beyond.
   */
  openPartial(commandId: string, syncedBytes: number): Promise<Partial>
  dropPartial(commandId: string): void
  partials(): readonly string[]
  /** Gives the whole file its name, which is its content; another command may have brought the same before. */
  keep(commandId: string, sha256: string): void
  has(sha256: string): boolean
  read(sha256: string, from: number): Readable
}

export function openEvidenceFiles(folder: string): EvidenceFiles {
  const partialFolder = join(folder, 'partial')
  for (const path of [folder, partialFolder]) {
    mkdirSync(path, { recursive: true, mode: 0o700 })
    chmodSync(path, 0o700)
  }
  const partialPath = (commandId: string) => join(partialFolder, checked(commandId, 32))
  const wholePath = (sha256: string) => join(folder, checked(sha256, 64))
  return {
    folder,
    async freeBytes() {
      const { bavail, bsize } = await statfs(folder)
      return bavail * bsize
    },
    async openPartial(commandId, syncedBytes) {
      const path = partialPath(commandId)
      const isNew = !existsSync(path)
      const handle = await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600)
      try {
        if (isNew) syncFolder(partialFolder)
        const { size } = await handle.stat()
        const offset = Math.min(size, Math.max(syncedBytes, size - UNSYNCED_BYTES_MAX))
        await handle.truncate(offset)
        return { offset, handle, [Symbol.asyncDispose]: () => handle.close() }
      } catch (error) {
        await handle.close()
        throw error
      }
    },
    dropPartial: (commandId) => removeFileDurably(partialPath(commandId)),
    partials: () => readdirSync(partialFolder).filter((name) => /^[0-9a-f]{32}$/.test(name)),
    keep(commandId, sha256) {
      if (existsSync(wholePath(sha256))) rmSync(partialPath(commandId), { force: true })
      else renameSync(partialPath(commandId), wholePath(sha256))
      syncFolder(folder)
      syncFolder(partialFolder)
    },
    has: (sha256) => existsSync(wholePath(sha256)),
    read: (sha256, from) => createReadStream(wholePath(sha256), { start: from }),
  }
}

/** SHA-256 of the first `bytes` of the file as it is on disk; null when it is shorter. */
export async function hashWhole(handle: FileHandle, bytes: number): Promise<string | null> {
  const hash = createHash('sha256')
  const buffer = Buffer.allocUnsafe(HASHED_AT_ONCE_BYTES)
  for (let position = 0; position < bytes; ) {
    const { bytesRead } = await handle.read(buffer, 0, Math.min(buffer.length, bytes - position), position)
    if (bytesRead === 0) return null
    hash.update(buffer.subarray(0, bytesRead))
    position += bytesRead
  }
  return hash.digest('hex')
}

/** Ids and hashes come from checked messages; a name that is none is a defect of this program. */
function checked(name: string, length: number): string {
  if (name.length !== length || !/^[0-9a-f]+$/.test(name)) throw new Error(`${name} is no name of evidence`)
  return name
}
