/**
 * Reads a backup from its first byte to its last, holding every member against the manifest. Whoever wrote it
 * had the passphrase; names, sizes and counts are checked all the same before anything reaches a disk.
 */
import { createHash } from 'node:crypto'
import { Readable, type Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createZstdDecompress } from 'node:zlib'
import { extract, type Header } from 'tar-stream'
import { BackupError } from './backup-error.ts'
import type { Progress } from './folders.ts'
import {
  MANIFEST_BYTES_MAX,
  MANIFEST_NAME,
  type Manifest,
  type Member,
  parseManifest,
  totalBytes,
} from './manifest.ts'
import { openSealed } from './sealed-stream.ts'
import { writeAll } from './write-all.ts'

/** A member as it comes out of the archive. */
type Entry = { readonly header: Header } & AsyncIterable<Buffer>

export interface ReadOptions {
  readonly file: string
  readonly passphrase: string
  readonly progress: Progress
  /** Once, before any member. What it throws ends the reading. */
  readonly begin?: (manifest: Manifest) => void
  /** Where a member goes; without it the backup is only verified. */
  readonly open?: (member: Member) => Writable
}

/** The manifest, when everything was there and as it says. Throws a `BackupError` otherwise. */
export async function readBackup(options: ReadOptions): Promise<Manifest> {
  const entries = extract()
  const ended = new AbortController()
  const plain = Readable.from(openSealed(options.file, options.passphrase))
  const decompressed = createZstdDecompress()
  const fed = Promise.all([
    pipeline(plain, decompressed, { signal: ended.signal }),
    writeAll(entries, decompressed, ended.signal),
  ])
  // What is wrong with the file ends the reading, and says more than that its content ended.
  let damage: unknown
  fed.catch((error: unknown) => {
    damage ??= error
    entries.destroy()
  })
  try {
    const iterator = (entries as AsyncIterable<unknown> as AsyncIterable<Entry>)[Symbol.asyncIterator]()
    const manifest = await readEntries(iterator, options)
    await fed
    return manifest
  } catch (error) {
    const cause = damage instanceof BackupError ? damage : error
    throw cause instanceof BackupError ? cause : new BackupError(`${options.file} cannot be read: ${cause}`)
  } finally {
    ended.abort()
    entries.destroy()
  }
}

async function readEntries(entries: AsyncIterator<Entry>, options: ReadOptions): Promise<Manifest> {
  const first = await entries.next()
  if (first.done || first.value.header.name !== MANIFEST_NAME) {
    throw new BackupError(`${options.file} does not begin with its manifest`)
  }
  const manifest = parseManifest(await readText(first.value))
  options.begin?.(manifest)
  const of = totalBytes(manifest)
  let done = 0
  // In the very order of the manifest: none is missing, none twice, none of another name.
  for (const member of manifest.members) {
    const next = await entries.next()
    if (next.done) throw new BackupError(`the backup ends before ${member.name}`)
    await readMember(next.value, member, options, (bytes) => {
      done += bytes
      options.progress(`checking ${member.name}`, done, of)
    })
  }
  if (!(await entries.next()).done) throw new BackupError('the backup holds more than its manifest names')
  return manifest
}

async function readText(entry: Entry): Promise<string> {
  const chunks: Buffer[] = []
  if ((entry.header.size ?? 0) > MANIFEST_BYTES_MAX) throw new BackupError('the manifest is too long')
  for await (const chunk of entry) chunks.push(chunk)
  return Buffer.concat(chunks).toString('utf8')
}

async function readMember(
  entry: Entry,
  member: Member,
  options: ReadOptions,
  count: (bytes: number) => void,
): Promise<void> {
  const { name, size, type } = entry.header
  if (name !== member.name || type !== 'file' || size !== member.bytes) {
    throw new BackupError(`the backup holds ${JSON.stringify(name)} (${type}) where ${member.name} should be`)
  }
  const hash = createHash('sha256')
  const counted = async function* (chunks: AsyncIterable<Buffer>) {
    for await (const chunk of chunks) {
      hash.update(chunk)
      count(chunk.length)
      yield chunk
    }
  }
  if (options.open) await pipeline(entry, counted, options.open(member))
  else for await (const _chunk of counted(entry));
  if (hash.digest('hex') !== member.sha256) throw new BackupError(`${member.name} is not what was backed up`)
}
