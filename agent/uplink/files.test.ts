import { createHash, randomBytes } from 'node:crypto'
import { expect, test, vi } from 'vitest'
import { decodeFileChunk } from '../../shared/node/file-chunk.ts'
import { createSilentLogger } from '../../shared/node/logger.ts'
import { FILE_CHUNK_BYTES_MAX, FILE_CHUNKS_MAX } from '../../shared/protocol/limits.ts'
import type { FileOffer } from '../../shared/protocol/messages.ts'
import { createFileUploads } from './files.ts'

const never = () => AbortSignal.timeout(60_000)

function sourceOf(content: Buffer) {
  const offer: FileOffer = {
    kind: 'fileOffer',
    commandId: randomBytes(16).toString('hex'),
    path: '/f',
    pathBytes: null,
    sizeBytes: content.length,
    sha256: createHash('sha256').update(content).digest('hex'),
    device: '1',
    inode: '1',
    mode: 0,
    userId: 0,
    groupId: 0,
    links: 1,
    accessedNs: '0',
    modifiedNs: '0',
    changedNs: '0',
    bornNs: '0',
    copiedMs: 0,
    changedWhileRead: false,
  }
  return { offer, read: async (from: number, bytes: number) => content.subarray(from, from + bytes) }
}

/** A line that keeps what is written to it. */
function openLine() {
  const line = {
    offers: [] as FileOffer[],
    pieces: [] as { offset: number; bytes: number }[],
    queuedBytes: 0,
    offer: (message: FileOffer) => void line.offers.push(message),
    write(frame: Uint8Array, done: () => void) {
      const decoded = decodeFileChunk(frame)
      if (!decoded.ok) throw new Error(decoded.reason)
      line.pieces.push({ offset: decoded.header.offset, bytes: decoded.payload.length })
      setImmediate(done)
    },
  }
  return line
}

const start = () => createFileUploads({ logger: createSilentLogger(), busyPauseMs: 5 })
const progress = (source: { offer: FileOffer }, offset: number, complete = false) => ({
  kind: 'fileProgress' as const,
  commandId: source.offer.commandId,
  offset,
  complete,
})
/** Until nothing more is written by itself. */
const settled = (line: { pieces: unknown[] }, count: number) =>
  vi.waitFor(() => expect(line.pieces).toHaveLength(count), { timeout: 10_000 })

test('no more pieces are under way than may be unanswered, all files together', async () => {
  const uploads = start()
  const line = openLine()
  uploads.connected(line)
  const sources = [
    sourceOf(randomBytes(20 * FILE_CHUNK_BYTES_MAX)),
    sourceOf(randomBytes(20 * FILE_CHUNK_BYTES_MAX)),
  ]
  for (const source of sources) void uploads.upload(source, never())
  expect(line.offers).toHaveLength(2)
  expect(line.pieces).toHaveLength(0)
  for (const source of sources) expect(uploads.progress(progress(source, 0))).toBeNull()
  await settled(line, FILE_CHUNKS_MAX)
  const [first] = sources
  if (!first) throw new Error('no source')
  expect(uploads.progress(progress(first, FILE_CHUNK_BYTES_MAX))).toBeNull()
  await settled(line, FILE_CHUNKS_MAX + 1)
})

test('a piece waits while the socket has other things to send, and goes when it has not', async () => {
  const uploads = start()
  const line = openLine()
  uploads.connected(line)
  const source = sourceOf(randomBytes(3 * FILE_CHUNK_BYTES_MAX))
  const reads = vi.spyOn(source, 'read')
  void uploads.upload(source, never())
  line.queuedBytes = FILE_CHUNK_BYTES_MAX
  uploads.progress(progress(source, 0))
  await new Promise((resolve) => setTimeout(resolve, 60))
  expect(reads).not.toHaveBeenCalled()
  line.queuedBytes = 0
  await settled(line, 3)
})

test('a new connection gets a new offer, and bytes from where the controller says', async () => {
  const uploads = start()
  const content = randomBytes(3 * FILE_CHUNK_BYTES_MAX)
  const source = sourceOf(content)
  const outcome = uploads.upload(source, never())
  const [lost, line] = [openLine(), openLine()]
  uploads.connected(lost)
  uploads.progress(progress(source, 0))
  uploads.disconnected()
  uploads.connected(line)
  expect(line.offers).toEqual([source.offer])
  uploads.progress(progress(source, FILE_CHUNK_BYTES_MAX + 5))
  await settled(line, 2)
  expect(line.pieces.map(({ offset }) => offset)).toEqual([
    FILE_CHUNK_BYTES_MAX + 5,
    2 * FILE_CHUNK_BYTES_MAX + 5,
  ])
  uploads.progress(progress(source, content.length, true))
  expect(await outcome).toEqual({ kind: 'complete' })
})

test('a busy controller is asked again, a refusal ends it', async () => {
  const uploads = start()
  const line = openLine()
  uploads.connected(line)
  const source = sourceOf(randomBytes(10))
  const outcome = uploads.upload(source, never())
  const refused = { kind: 'fileRefused' as const, commandId: source.offer.commandId, reason: 'why' }
  uploads.refused({ ...refused, code: 'busy' })
  await vi.waitFor(() => expect(line.offers).toHaveLength(2), { timeout: 10_000 })
  uploads.refused({ ...refused, code: 'noRoom' })
  expect(await outcome).toEqual({ kind: 'refused', code: 'noRoom', reason: 'why' })
})

test('a controller that claims to have what was never sent breaks the protocol', async () => {
  const uploads = start()
  uploads.connected(openLine())
  const source = sourceOf(randomBytes(10))
  void uploads.upload(source, never())
  expect(uploads.progress(progress(source, 11))).toContain('more of a file')
  expect(uploads.progress(progress(source, 5, true))).toContain('complete')
  expect(uploads.progress(progress(sourceOf(randomBytes(1)), 1, true))).toBeNull()
})

test('an abort and a copy that is gone end it with their reason', async () => {
  const uploads = start()
  const abort = new AbortController()
  const source = sourceOf(randomBytes(10))
  const aborted = uploads.upload(source, abort.signal)
  abort.abort()
  expect(await aborted).toEqual({ kind: 'aborted' })
  uploads.connected(openLine())
  const gone = { ...source, read: async () => Promise.reject(new Error('ENOENT')) }
  const failed = uploads.upload(gone, never())
  uploads.progress(progress(gone, 0))
  expect(await failed).toMatchObject({ kind: 'failed', reason: expect.stringContaining('ENOENT') })
})
