/**
 * The encrypted store of quarantined files. Encryption makes a file inert (no scanner finds it, nothing runs
 * it by mistake); the folder, open to the agent alone, keeps the keys. `<id>.content` is written and synced
 * first, `<id>.json` after it: a manifest means that the whole content is on disk.
 */
import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto'
import { type BigIntStats, chmodSync, constants, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import Type, { type Static } from 'typebox'
import { removeFileDurably, writeFileDurably } from '../../shared/node/durable-file.ts'
import { compileSchema, parseStrict } from '../../shared/protocol/parse.ts'
import { errorCode } from './action.ts'
import { ATTRIBUTES_MAX, type AttributeCalls, type KeptAttributes, readAttributes } from './attributes.ts'

const Hex = (bytes: number) => Type.String({ pattern: `^[0-9a-f]{${bytes * 2}}$` })
const Base64 = (bytesMax: number) =>
  Type.String({ maxLength: Math.ceil(bytesMax / 3) * 4, pattern: '^[A-Za-z0-9+/]*={0,2}$' })
const WholeNumber = Type.String({ pattern: '^-?[0-9]{1,24}$' })

/** All that is needed to put the file back exactly as it was. Times in nanoseconds since 1970. */
const Manifest = Type.Object(
  {
    v: Type.Literal(1),
    /** Command that quarantined it. */
    id: Hex(16),
    path: Type.String({ maxLength: 4_096 }),
    /** Exact bytes of the path in base64. */
    pathBytes: Type.String({ maxLength: 6_000, pattern: '^[A-Za-z0-9+/]*={0,2}$' }),
    sha256: Hex(32),
    sizeBytes: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
    device: WholeNumber,
    inode: WholeNumber,
    mode: Type.Integer({ minimum: 0, maximum: 0o177777 }),
    userId: Type.Integer({ minimum: 0, maximum: 2 ** 32 }),
    groupId: Type.Integer({ minimum: 0, maximum: 2 ** 32 }),
    /** Names that the inode had; those beyond one were left where they are. */
    links: Type.Integer({ minimum: 0, maximum: 2 ** 32 }),
    accessedNs: WholeNumber,
    modifiedNs: WholeNumber,
    changedNs: WholeNumber,
    bornNs: WholeNumber,
    /** `notRead`: taken by an agent without its native addon, which does not know what the file carried. */
    extendedAttributes: Type.Union([
      Type.Literal('notRead'),
      Type.Array(
        Type.Object({ name: Base64(255), value: Base64(64 * 1024) }, { additionalProperties: false }),
        { maxItems: ATTRIBUTES_MAX },
      ),
    ]),
    /** Attributes beyond the bounds, which were not kept. */
    attributesLeft: Type.Integer({ minimum: 0, maximum: 65_536 }),
    takenMs: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
    key: Hex(32),
    iv: Hex(12),
    tag: Hex(16),
  },
  { additionalProperties: false },
)
export type Manifest = Static<typeof Manifest>

const manifestCheck = compileSchema(Manifest)
const MANIFEST_BYTES_MAX = 512 * 1024
const CHUNK_BYTES = 256 * 1024

export interface VaultOptions {
  /** Made with mode 0700 when missing. */
  readonly folder: string
  /** Setting `quarantineFileBytesMax`. */
  readonly fileBytesMax: number
  /** Setting `quarantineBytesMax`: all files together. */
  readonly bytesMax: number
  /** Reads extended attributes; null or left out: they are not kept. */
  readonly attributes?: AttributeCalls | null
}

export interface StoreRequest {
  readonly id: string
  readonly pathBytes: Buffer
  readonly sha256: string
  readonly stat: BigIntStats
  readonly takenMs: number
  /** Told when the content is on disk and the manifest is not. */
  readonly contentWritten?: () => void
}

export type StoreResult =
  | { readonly kind: 'stored'; readonly manifest: Manifest }
  | { readonly kind: 'contentChanged'; readonly sha256: string }
  | { readonly kind: 'failed'; readonly reason: string }
  | { readonly kind: 'aborted' }

export type VaultCheck =
  | { readonly kind: 'intact'; readonly sha256: string; readonly bytes: number }
  | { readonly kind: 'missing' }
  | { readonly kind: 'damaged'; readonly reason: string }

export interface Vault {
  readonly folder: string
  /** Why a file of this size is not taken, or null. */
  refuses(sizeBytes: number): string | null
  /** Copies the open file, encrypted; it is kept only when its content has the expected hash. */
  store(source: FileHandle, request: StoreRequest, signal: AbortSignal): Promise<StoreResult>
  manifest(id: string): Manifest | null
  /** The content in chunks. Authenticated only once the last has come: an error at the end taints them all. */
  readVault(id: string): AsyncGenerator<Buffer>
  /** Decrypts the whole from disk and compares its hash and size with the manifest. */
  verify(id: string, signal: AbortSignal): Promise<VaultCheck>
  /** Newest first. A manifest that cannot be read is left out. */
  listQuarantine(): readonly Manifest[]
  /** A stored file of this path and content, whichever command took it. */
  find(pathBytes: Buffer, sha256: string): Manifest | null
  /** Removes content without a manifest, which a crash left behind. */
  discardPartial(id: string): void
  /** Forgets a stored file: manifest first, so that a crash leaves no manifest without content. */
  remove(id: string): void
}

export function createVault(options: VaultOptions): Vault {
  mkdirSync(options.folder, { recursive: true, mode: 0o700 })
  chmodSync(options.folder, 0o700)
  const contentPath = (id: string) => join(options.folder, `${id}.content`)
  const manifestPath = (id: string) => join(options.folder, `${id}.json`)

  function manifest(id: string): Manifest | null {
    let text: string
    try {
      text = readFileSync(manifestPath(id), 'utf8')
    } catch {
      return null
    }
    const parsed = parseStrict(manifestCheck, text, MANIFEST_BYTES_MAX)
    return parsed.ok && parsed.value.id === id ? parsed.value : null
  }

  function listQuarantine(): Manifest[] {
    return readdirSync(options.folder)
      .filter((name) => /^[0-9a-f]{32}\.json$/.test(name))
      .map((name) => manifest(name.slice(0, 32)))
      .filter((entry) => entry !== null)
      .sort((a, b) => b.takenMs - a.takenMs)
  }

  function discardPartial(id: string): void {
    if (manifest(id) === null) removeFileDurably(contentPath(id))
  }

  async function store(source: FileHandle, request: StoreRequest, signal: AbortSignal): Promise<StoreResult> {
    const seal = { key: randomBytes(32), iv: randomBytes(12) }
    const cipher = createCipheriv('aes-256-gcm', seal.key, seal.iv).setAAD(boundTo(request))
    const hash = createHash('sha256')
    let sizeBytes = 0
    let attributes: KeptAttributes
    try {
      attributes = readAttributes(options.attributes ?? null, source.fd)
      const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW
      await using target = await open(contentPath(request.id), flags, 0o600)
      for await (const chunk of chunksOf(source, options.fileBytesMax, signal)) {
        hash.update(chunk)
        sizeBytes += chunk.length
        await target.writeFile(cipher.update(chunk))
      }
      await target.writeFile(cipher.final())
      await target.sync()
    } catch (error) {
      rmSync(contentPath(request.id), { force: true })
      if (signal.aborted) return { kind: 'aborted' }
      return {
        kind: 'failed',
        reason: `the file could not be copied into the quarantine: ${errorCode(error)}`,
      }
    }
    const sha256 = hash.digest('hex')
    if (sha256 !== request.sha256) {
      rmSync(contentPath(request.id), { force: true })
      return { kind: 'contentChanged', sha256 }
    }
    request.contentWritten?.()
    const written = manifestOf(request, { sizeBytes, attributes }, seal, cipher.getAuthTag())
    // Syncs the folder too, and with it the name of the content.
    writeFileDurably(manifestPath(request.id), JSON.stringify(written), 0o600)
    return { kind: 'stored', manifest: written }
  }

  async function* readVault(id: string): AsyncGenerator<Buffer> {
    const entry = manifest(id)
    if (!entry) throw new Error(`quarantine ${id} has no readable manifest`)
    await using file = await open(contentPath(id), constants.O_RDONLY | constants.O_NOFOLLOW)
    const decipher = createDecipheriv(
      'aes-256-gcm',
      Buffer.from(entry.key, 'hex'),
      Buffer.from(entry.iv, 'hex'),
    )
      .setAAD(boundTo(entry))
      .setAuthTag(Buffer.from(entry.tag, 'hex'))
    for await (const chunk of chunksOf(file, entry.sizeBytes, null)) yield decipher.update(chunk)
    decipher.final()
  }

  async function verify(id: string, signal: AbortSignal): Promise<VaultCheck> {
    const entry = manifest(id)
    if (!entry) return { kind: 'missing' }
    const hash = createHash('sha256')
    let bytes = 0
    try {
      for await (const chunk of readVault(id)) {
        signal.throwIfAborted()
        hash.update(chunk)
        bytes += chunk.length
      }
    } catch (error) {
      return { kind: 'damaged', reason: errorCode(error) }
    }
    const sha256 = hash.digest('hex')
    if (sha256 === entry.sha256 && bytes === entry.sizeBytes) return { kind: 'intact', sha256, bytes }
    return { kind: 'damaged', reason: 'the content is not the one that was taken' }
  }

  return {
    folder: options.folder,
    refuses(sizeBytes) {
      if (sizeBytes > options.fileBytesMax) {
        return `the file has ${sizeBytes} bytes and quarantineFileBytesMax is ${options.fileBytesMax}; raise that setting to take it`
      }
      const held = listQuarantine().reduce((sum, entry) => sum + entry.sizeBytes, 0)
      if (held + sizeBytes <= options.bytesMax) return null
      return `the quarantine holds ${held} bytes, the file has ${sizeBytes} and quarantineBytesMax is ${options.bytesMax}; raise that setting to take it`
    },
    store,
    manifest,
    readVault,
    verify,
    listQuarantine,
    find: (pathBytes, sha256) => {
      const path = pathBytes.toString('base64')
      return listQuarantine().find((entry) => entry.pathBytes === path && entry.sha256 === sha256) ?? null
    },
    discardPartial,
    remove(id) {
      removeFileDurably(manifestPath(id))
      removeFileDurably(contentPath(id))
    },
  }
}

/** Content and manifest of two files cannot be exchanged. */
function boundTo({ id, sha256 }: { readonly id: string; readonly sha256: string }): Buffer {
  return Buffer.from(`cordon/quarantine/v1\0${id}\0${sha256}`)
}

/** Reads from the start by position. More than `bytesMax` is an error. */
async function* chunksOf(
  file: FileHandle,
  bytesMax: number,
  signal: AbortSignal | null,
): AsyncGenerator<Buffer> {
  const buffer = Buffer.allocUnsafe(CHUNK_BYTES)
  for (let position = 0; ; ) {
    signal?.throwIfAborted()
    const { bytesRead } = await file.read(buffer, 0, buffer.length, position)
    if (bytesRead === 0) return
    position += bytesRead
    if (position > bytesMax) throw new Error(`longer than ${bytesMax} bytes`)
    yield buffer.subarray(0, bytesRead)
  }
}

/** SHA-256 of the whole file, bounded like a copy. */
export async function hashFile(file: FileHandle, bytesMax: number, signal: AbortSignal): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of chunksOf(file, bytesMax, signal)) hash.update(chunk)
  return hash.digest('hex')
}

function manifestOf(
  request: StoreRequest,
  { sizeBytes, attributes }: { readonly sizeBytes: number; readonly attributes: KeptAttributes },
  seal: { readonly key: Buffer; readonly iv: Buffer },
  tag: Buffer,
): Manifest {
  const { stat } = request
  return {
    v: 1,
    id: request.id,
    path: request.pathBytes.toString('utf8'),
    pathBytes: request.pathBytes.toString('base64'),
    sha256: request.sha256,
    sizeBytes,
    device: stat.dev.toString(),
    inode: stat.ino.toString(),
    mode: Number(stat.mode),
    userId: Number(stat.uid),
    groupId: Number(stat.gid),
    links: Number(stat.nlink),
    accessedNs: stat.atimeNs.toString(),
    modifiedNs: stat.mtimeNs.toString(),
    changedNs: stat.ctimeNs.toString(),
    bornNs: stat.birthtimeNs.toString(),
    extendedAttributes: attributes.kept,
    attributesLeft: attributes.left,
    takenMs: request.takenMs,
    key: seal.key.toString('hex'),
    iv: seal.iv.toString('hex'),
    tag: tag.toString('hex'),
  }
}
