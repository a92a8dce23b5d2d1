/** Examines one open file: runs the rules over it and takes its facts, in one reading. Part of the scanner child. */
import { createHash, type Hash, hash } from 'node:crypto'
import { fstatSync, readSync } from 'node:fs'
import { createByteEntropy } from './byte-entropy.ts'
import { mimeTypeOf } from './file-type.ts'
import type { ScanSetup } from './scan-protocol.ts'
import type { ExaminedReply, ScanReply } from './scan-reply.ts'
import { createTlsh, TLSH_BYTES_MAX } from './tlsh.ts'
import type { YaraEngine } from './yara-engine.ts'

/** Files up to this size share one buffer; larger ones another, which grows to hold the largest. */
const SHARED_BUFFER_BYTES = 1024 ** 2
const HEADER_BYTES_MAX = 32
const ALGORITHMS = ['sha256', 'sha1', 'md5'] as const

type Examiner = (id: number, fd: number) => ScanReply
type WholeFacts = Pick<ExaminedReply, 'hashes' | 'tlsh' | 'entropy'>

export function createExaminer(
  engine: YaraEngine | null,
  setup: Pick<ScanSetup, 'scanBytesMax' | 'hashBytesMax'>,
): Examiner {
  const shared = Buffer.allocUnsafeSlow(SHARED_BUFFER_BYTES)
  let large = shared
  const takeFacts = createFactTaker(shared)

  /** One buffer for each file would wait for the garbage collector, which sees a few bytes of each. */
  function bufferFor(bytes: number): Buffer {
    if (bytes <= shared.length) return shared
    if (bytes > large.length) {
      large = Buffer.allocUnsafeSlow(Math.min(setup.scanBytesMax, 2 ** Math.ceil(Math.log2(bytes))))
    }
    return large
  }

  function scan(data: Buffer): Pick<ExaminedReply, 'scanProblem' | 'hits'> {
    if (engine === null) return { scanProblem: 'no-engine', hits: [] }
    try {
      return { scanProblem: null, hits: engine.scan(data) as ExaminedReply['hits'] }
    } catch (error) {
      const isTimeout = error instanceof Error && error.message.includes('timed out')
      return { scanProblem: isTimeout ? 'timeout' : 'failed', hits: [] }
    }
  }

  return (id, fd) => {
    try {
      const sizeBytes = fstatSync(fd).size
      const headBytes = Math.min(sizeBytes, setup.scanBytesMax)
      const target = bufferFor(headBytes)
      const head = target.subarray(0, readFully(fd, target.subarray(0, headBytes), 0))
      const { scanProblem, hits } = scan(head)
      // Before the rest is read, which may come into the same buffer.
      const header = head.toString('hex', 0, HEADER_BYTES_MAX)
      const mimeType = mimeTypeOf(head)
      const isTooLarge = sizeBytes > setup.hashBytesMax
      const facts = isTooLarge ? { hashes: null, tlsh: null, entropy: null } : takeFacts(fd, head, sizeBytes)
      const after = fstatSync(fd, { bigint: true })
      return {
        kind: 'examined',
        id,
        sizeBytes: Number(after.size),
        changedNs: String(after.ctimeNs),
        ...facts,
        header,
        mimeType,
        scannedBytes: head.length,
        scanProblem,
        hits,
      }
    } catch (error) {
      return { kind: 'unreadable', id, code: errorCodeOf(error) }
    }
  }
}

/** Facts of the file's first `sizeBytes`, of which `head` is read already. `buffer` may hold the head. */
function createFactTaker(buffer: Buffer): (fd: number, head: Buffer, sizeBytes: number) => WholeFacts {
  const entropy = createByteEntropy()
  const tlsh = createTlsh()
  const digests = (digestOf: (name: (typeof ALGORITHMS)[number]) => string): WholeFacts => ({
    hashes: { sha256: digestOf('sha256'), sha1: digestOf('sha1'), md5: digestOf('md5') },
    tlsh: tlsh.digest(),
    entropy: entropy.bitsPerByte(),
  })

  return (fd, head, sizeBytes) => {
    entropy.reset()
    tlsh.reset()
    entropy.update(head)
    // A content that will be too long for a digest is not begun.
    if (sizeBytes <= TLSH_BYTES_MAX) tlsh.update(head)
    if (head.length >= sizeBytes) return digests((name) => hash(name, head, 'hex'))
    const hashes = Object.fromEntries(ALGORITHMS.map((name) => [name, createHash(name)])) as Hashes
    for (const name of ALGORITHMS) hashes[name].update(head)
    // A file that grows while it is read must not be read without end.
    for (let offset = head.length; offset < sizeBytes; ) {
      const length = readFully(fd, buffer.subarray(0, Math.min(buffer.length, sizeBytes - offset)), offset)
      if (length === 0) break
      const part = buffer.subarray(0, length)
      for (const name of ALGORITHMS) hashes[name].update(part)
      entropy.update(part)
      if (sizeBytes <= TLSH_BYTES_MAX) tlsh.update(part)
      offset += length
    }
    return digests((name) => hashes[name].digest('hex'))
  }
}

type Hashes = Record<(typeof ALGORITHMS)[number], Hash>

/** Fills the buffer from the offset, short only at the end of the file. */
function readFully(fd: number, buffer: Buffer, offset: number): number {
  let length = 0
  while (length < buffer.length) {
    const count = readSync(fd, buffer, length, buffer.length - length, offset + length)
    if (count === 0) break
    length += count
  }
  return length
}

/** As the reply may carry it. */
export function errorCodeOf(error: unknown): string {
  const code = error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined
  return code !== undefined && /^[A-Z0-9_]{1,32}$/.test(code) ? code : 'FAILED'
}
