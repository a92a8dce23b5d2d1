/**
 * Copies of files that wait for the controller to fetch them. `<id>.content` is written and synced first,
 * `<id>.json`, which is the offer word for word, after it: an offer means that the whole copy is on disk.
 */
import { createHash } from 'node:crypto'
import {
  type BigIntStats,
  chmodSync,
  constants,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs'
import { type FileHandle, open, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { removeFileDurably, writeFileDurably } from '../../shared/node/durable-file.ts'
import { CONTROL_BYTES_MAX } from '../../shared/protocol/limits.ts'
import { AGENT_MESSAGES, type FileOffer } from '../../shared/protocol/messages.ts'
import { compileSchema, parseStrict } from '../../shared/protocol/parse.ts'
import { errorCode } from './action.ts'

const CHUNK_BYTES = 256 * 1024
/** Left on the disk whatever is collected: buffer and journal are there too. */
const FREE_BYTES_MIN = 128 * 1024 ** 2
const NAME = /^([0-9a-f]{32})\.(json|content)$/

const offerCheck = compileSchema(AGENT_MESSAGES.fileOffer)

export interface SpoolOptions {
  /** Made with mode 0700 when missing. */
  readonly folder: string
  /** Setting `collectBytesMax`. */
  readonly bytesMax: number
  readonly freeBytesMin?: number
}

export interface CopyRequest {
  readonly id: string
  readonly path: string
  readonly pathBytes: string | null
  readonly stat: BigIntStats
  readonly copiedMs: number
  /** Told after each piece. */
  readonly copied?: (bytes: number) => void
}

export type CopyResult =
  | { readonly kind: 'copied'; readonly offer: FileOffer }
  | { readonly kind: 'failed'; readonly reason: string }
  | { readonly kind: 'aborted' }

export interface Spool {
  readonly folder: string
  /** Why a file of this size is not taken, or null. */
  refuses(sizeBytes: number): Promise<string | null>
  /** Copies the open file up to the size that it had, so that one that grows without end comes to an end. */
  copy(source: FileHandle, request: CopyRequest, signal: AbortSignal): Promise<CopyResult>
  offer(id: string): FileOffer | null
  read(id: string, offset: number, bytesMax: number): Promise<Buffer>
  /** The controller has it: the offer stays until the command has ended. */
  dropContent(id: string): void
  remove(id: string): void
  /** Removes what is there for commands that are over. */
  tidy(isOpen: (id: string) => boolean): void
}

export function createSpool(options: SpoolOptions): Spool {
  const { folder } = options
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  chmodSync(folder, 0o700)
  const contentPath = (id: string) => join(folder, `${id}.content`)
  const offerPath = (id: string) => join(folder, `${id}.json`)

  function offer(id: string): FileOffer | null {
    try {
      const parsed = parseStrict(offerCheck, readFileSync(offerPath(id), 'utf8'), CONTROL_BYTES_MAX)
      return parsed.ok && parsed.value.commandId === id ? parsed.value : null
    } catch {
      return null
    }
  }

  function heldBytes(): number {
    return readdirSync(folder).reduce(
      (sum, name) => sum + (statSync(join(folder, name), { throwIfNoEntry: false })?.size ?? 0),
      0,
    )
  }

  async function copy(source: FileHandle, request: CopyRequest, signal: AbortSignal): Promise<CopyResult> {
    const { id, stat } = request
    remove(id)
    const hash = createHash('sha256')
    const sizeMax = Number(stat.size)
    let sizeBytes = 0
    try {
      const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW
      await using target = await open(contentPath(id), flags, 0o600)
      const buffer = Buffer.allocUnsafe(CHUNK_BYTES)
      while (sizeBytes < sizeMax) {
        signal.throwIfAborted()
        const wanted = Math.min(buffer.length, sizeMax - sizeBytes)
        const { bytesRead } = await source.read(buffer, 0, wanted, sizeBytes)
        if (bytesRead === 0) break
        const chunk = buffer.subarray(0, bytesRead)
        hash.update(chunk)
        await target.writeFile(chunk)
        sizeBytes += bytesRead
        request.copied?.(sizeBytes)
      }
      await target.sync()
    } catch (error) {
      rmSync(contentPath(id), { force: true })
      if (signal.aborted) return { kind: 'aborted' }
      return { kind: 'failed', reason: `the file could not be copied: ${errorCode(error)}` }
    }
    const made = offerOf(request, sizeBytes, hash.digest('hex'), await source.stat({ bigint: true }))
    // Syncs the folder too, and with it the name of the content.
    writeFileDurably(offerPath(id), JSON.stringify(made), 0o600)
    return { kind: 'copied', offer: made }
  }

  function remove(id: string): void {
    removeFileDurably(offerPath(id))
    removeFileDurably(contentPath(id))
  }

  return {
    folder,
    async refuses(sizeBytes) {
      const held = heldBytes()
      if (held + sizeBytes > options.bytesMax) {
        return `${held} bytes wait to be fetched, the file has ${sizeBytes} and collectBytesMax is ${options.bytesMax}; raise that setting to take it`
      }
      const { bavail, bsize } = await statfs(folder)
      const free = bavail * bsize
      const left = options.freeBytesMin ?? FREE_BYTES_MIN
      if (free - sizeBytes >= left) return null
      return `the file has ${sizeBytes} bytes, and of the ${free} that are free where the agent keeps its state ${left} stay free; make room there`
    },
    copy,
    offer,
    async read(id, offset, bytesMax) {
      await using file = await open(contentPath(id), constants.O_RDONLY | constants.O_NOFOLLOW)
      const buffer = Buffer.alloc(bytesMax)
      let filled = 0
      while (filled < bytesMax) {
        const { bytesRead } = await file.read(buffer, filled, bytesMax - filled, offset + filled)
        if (bytesRead === 0) break
        filled += bytesRead
      }
      return buffer.subarray(0, filled)
    },
    dropContent: (id) => removeFileDurably(contentPath(id)),
    remove,
    tidy(isOpen) {
      const ids = new Set(readdirSync(folder).flatMap((name) => NAME.exec(name)?.[1] ?? []))
      for (const id of ids) if (!isOpen(id)) remove(id)
    },
  }
}

function offerOf(request: CopyRequest, sizeBytes: number, sha256: string, after: BigIntStats): FileOffer {
  const { stat } = request
  return {
    kind: 'fileOffer',
    commandId: request.id,
    path: request.path,
    pathBytes: request.pathBytes,
    sizeBytes,
    sha256,
    device: `${stat.dev}`,
    inode: `${stat.ino}`,
    mode: Number(stat.mode),
    userId: Number(stat.uid),
    groupId: Number(stat.gid),
    links: Number(stat.nlink),
    accessedNs: `${stat.atimeNs}`,
    modifiedNs: `${stat.mtimeNs}`,
    changedNs: `${stat.ctimeNs}`,
    bornNs: `${stat.birthtimeNs}`,
    copiedMs: request.copiedMs,
    changedWhileRead:
      after.size !== stat.size ||
      after.mtimeNs !== stat.mtimeNs ||
      after.ctimeNs !== stat.ctimeNs ||
      sizeBytes !== Number(stat.size),
  }
}
