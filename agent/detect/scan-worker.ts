/**
 * The scanner child: a process of its own that reads hostile files, so that whatever they break is not the
 * agent. It takes one open file after the other, examines it and answers. It is
 * synchronous on purpose: nothing runs beside the file at hand, and a hang is ended from outside.
 */
import { createHash } from 'node:crypto'
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs'
import type { NativeAddon } from '../native/addon.ts'
import { createExaminer, errorCodeOf } from './examine-content.ts'
import {
  DESCRIPTOR_SOCKET_FD,
  encodeFrame,
  REQUEST_BYTES_MAX,
  type ScanRequest,
  type ScanSetup,
  SETUP_BYTES_MAX,
} from './scan-protocol.ts'
import type { ScanReply } from './scan-reply.ts'
import { createYaraEngine, type YaraAddon } from './yara-engine.ts'

export interface ScanWorkerParts {
  /** Null: there is no YARA-X for this machine. */
  readonly yara: YaraAddon | null
  /** Null: descriptors cannot be passed, and there is no sandbox. */
  readonly native: Pick<NativeAddon, 'receiveDescriptor' | 'enterSandbox'> | null
}

const STDIN = 0
const STDOUT = 1
/** `nobody` and `nogroup` of Debian; what matters is that they own nothing. */
const UNPRIVILEGED_ID = 65_534
const OPEN_FILES_MAX = 64

/** Runs until the agent closes its end. Returns the exit status. */
export function runScanWorker(parts: ScanWorkerParts): number {
  const setupText = readFrame(SETUP_BYTES_MAX)
  if (setupText === null) return 0
  const setup = JSON.parse(setupText) as ScanSetup
  const engine = parts.yara === null ? null : createYaraEngine(parts.yara, setup.sources, setup.scanTimeoutMs)
  const examine = createExaminer(engine, setup)
  // What the first scan and hash load and start must be there before the sandbox closes: no file opens after it.
  engine?.scan(Buffer.from('first'))
  for (const algorithm of ['sha256', 'sha1', 'md5']) createHash(algorithm).update('first').digest('hex')
  const isolation = enterSandbox(parts, setup)
  writeReply({
    kind: 'ready',
    engine: engine === null ? 'none' : 'yara-x',
    problems: (engine?.problems ?? []).map((problem) => problem.slice(0, 1_024)),
    isolation,
  })
  const nextFile = setup.transport === 'socket' ? fileFromSocket(parts) : fileFromParent(setup.parentPid)
  for (;;) {
    const next = nextFile()
    if (next === null) return 0
    try {
      writeReply(
        next.fd < 0 ? { kind: 'unreadable', id: next.id, code: next.code } : examine(next.id, next.fd),
      )
    } finally {
      if (next.fd >= 0) closeSync(next.fd)
    }
  }
}

function enterSandbox(parts: ScanWorkerParts, setup: ScanSetup): string[] {
  const isRoot = process.getuid?.() === 0
  if (parts.native === null) {
    return [`none: without the native addon it runs as ${isRoot ? 'root' : 'the same user'}, unconfined`]
  }
  const achieved = parts.native.enterSandbox({
    userId: isRoot ? UNPRIVILEGED_ID : (process.getuid?.() ?? UNPRIVILEGED_ID),
    groupId: isRoot ? UNPRIVILEGED_ID : process.getgid?.() || UNPRIVILEGED_ID,
    openFilesMax: OPEN_FILES_MAX,
    dataBytesMax: setup.dataBytesMax,
    // Through the socket its files come open; otherwise it must open them itself.
    refusePaths: setup.transport === 'socket',
  })
  return [
    achieved.userDropped ? 'a user without rights' : 'the same user: only root can change it',
    ...(achieved.systemCallFilter ? ['no new programs, processes or sockets'] : []),
    ...(achieved.systemCallFilter && setup.transport === 'socket' ? ['opens no file'] : []),
    ...(achieved.networkNamespaceOfThread ? ['a network of its own without devices'] : []),
    `at most ${Math.round(setup.dataBytesMax / 1024 ** 2)} MiB of memory`,
  ]
}

type NextFile = { readonly id: number; readonly fd: number; readonly code: string } | null

function fileFromSocket(parts: ScanWorkerParts): () => NextFile {
  const buffer = Buffer.alloc(REQUEST_BYTES_MAX)
  return () => {
    for (;;) {
      const received = parts.native?.receiveDescriptor(DESCRIPTOR_SOCKET_FD, buffer, -1)
      if (received === undefined) return null
      // An interrupted wait: nothing came.
      if (received === null) continue
      if (received.length === 0) return null
      const request = JSON.parse(buffer.toString('utf8', 0, received.length)) as ScanRequest
      return { id: request.id, fd: received.fd, code: 'EBADF' }
    }
  }
}

/** The same user may open what the parent has open; the path is a number, nothing that a file could name. */
function fileFromParent(parentPid: number): () => NextFile {
  return () => {
    const text = readFrame(REQUEST_BYTES_MAX)
    if (text === null) return null
    const request = JSON.parse(text) as ScanRequest
    try {
      const fd = openSync(`/proc/${parentPid}/fd/${request.fd}`, constants.O_RDONLY | constants.O_NONBLOCK)
      return { id: request.id, fd, code: '' }
    } catch (error) {
      return { id: request.id, fd: -1, code: errorCodeOf(error) }
    }
  }
}

/** Null at the end of the input. */
function readFrame(bytesMax: number): string | null {
  const head = Buffer.alloc(4)
  if (readInput(head) < head.length) return null
  const length = head.readUInt32BE(0)
  if (length > bytesMax) throw new RangeError(`a frame of ${length} bytes, at most ${bytesMax}`)
  const body = Buffer.allocUnsafe(length)
  return readInput(body) < length ? null : body.toString('utf8')
}

function readInput(buffer: Buffer): number {
  let length = 0
  while (length < buffer.length) {
    const count = readSync(STDIN, buffer, length, buffer.length - length, null)
    if (count === 0) break
    length += count
  }
  return length
}

function writeReply(reply: ScanReply): void {
  const frame = encodeFrame(reply)
  for (let offset = 0; offset < frame.length; ) offset += writeSync(STDOUT, frame, offset)
}
