/**
 * Sends collected files over whatever connection there is. The controller says from where on it wants a file; after
 * every break the file is offered anew, so that neither end need remember more than what is on its disk.
 *
 * Invariants: never more unanswered pieces than `FILE_CHUNKS_MAX`, all files together; a piece is handed to the
 * socket only when little waits there, so that at most one lies before a batch or a command's state.
 */
import { encodeFileChunk } from '../../shared/node/file-chunk.ts'
import type { Logger } from '../../shared/node/logger.ts'
import { FILE_CHUNK_BYTES_MAX, FILE_CHUNKS_MAX } from '../../shared/protocol/limits.ts'
import type { ControllerMessage, FileOffer } from '../../shared/protocol/messages.ts'

type Progress = Extract<ControllerMessage, { kind: 'fileProgress' }>
type Refused = Extract<ControllerMessage, { kind: 'fileRefused' }>

export interface FileSource {
  readonly offer: FileOffer
  /** At most `bytesMax` bytes from `offset`; rejects when they are not there any more. */
  read(offset: number, bytesMax: number): Promise<Buffer>
}

export type UploadOutcome =
  /** The controller has the whole file, with the hash that was offered, on its disk. */
  | { readonly kind: 'complete' }
  | { readonly kind: 'refused'; readonly code: Refused['code']; readonly reason: string }
  | { readonly kind: 'failed'; readonly reason: string }
  | { readonly kind: 'aborted' }

/** One connection, from its welcome to its end. */
export interface FileLine {
  offer(message: FileOffer): void
  /** `done` when the frame left the socket's queue. */
  write(frame: Uint8Array, done: () => void): void
  readonly queuedBytes: number
}

export interface FileUploads {
  /** Resolves when the controller has the file or refuses it, however many connections that takes. */
  upload(source: FileSource, signal: AbortSignal): Promise<UploadOutcome>
  connected(line: FileLine): void
  disconnected(): void
  /** Null, or what the controller did that it must not. */
  progress(message: Progress): string | null
  refused(message: Refused): string | null
}

/** Above it a piece waits: what matters more must not stand in a queue behind it. */
const QUEUED_BYTES_MAX = FILE_CHUNK_BYTES_MAX / 2
const DRAIN_PAUSE_MS = 20
const BUSY_PAUSE_MS = 30_000

interface Upload {
  readonly source: FileSource
  readonly settle: (outcome: UploadOutcome) => void
  /** `waiting`: for a connection, or for a busy controller. */
  state: 'waiting' | 'offered' | 'sending' | 'ended'
  next: number
  /** Ends of the pieces that are not answered. */
  unanswered: number[]
  sending: boolean
  timer: NodeJS.Timeout | null
}

export interface FileUploadsOptions {
  readonly logger: Pick<Logger, 'info'>
  readonly busyPauseMs?: number
}

export function createFileUploads(options: FileUploadsOptions): FileUploads {
  const busyPauseMs = options.busyPauseMs ?? BUSY_PAUSE_MS
  const uploads = new Map<string, Upload>()
  let line: FileLine | null = null

  const unansweredOfAll = () =>
    [...uploads.values()].reduce((sum, { unanswered }) => sum + unanswered.length, 0)

  function end(upload: Upload, outcome: UploadOutcome): void {
    if (upload.state === 'ended') return
    upload.state = 'ended'
    if (upload.timer) clearTimeout(upload.timer)
    uploads.delete(upload.source.offer.commandId)
    upload.settle(outcome)
    pumpAll()
  }

  function offer(upload: Upload): void {
    if (!line || upload.state === 'ended') return
    upload.state = 'offered'
    upload.unanswered = []
    line.offer(upload.source.offer)
  }

  function later(upload: Upload, afterMs: number, what: () => void): void {
    if (upload.timer) clearTimeout(upload.timer)
    upload.timer = setTimeout(() => {
      upload.timer = null
      what()
    }, afterMs)
  }

  function pumpAll(): void {
    for (const upload of uploads.values()) pump(upload)
  }

  /** One piece, then another look at what else there is to do. */
  function pump(upload: Upload): void {
    const { sizeBytes } = upload.source.offer
    if (!line || upload.sending || upload.state !== 'sending' || upload.next >= sizeBytes) return
    if (unansweredOfAll() >= FILE_CHUNKS_MAX) return
    if (line.queuedBytes > QUEUED_BYTES_MAX) {
      later(upload, DRAIN_PAUSE_MS, () => pump(upload))
      return
    }
    upload.sending = true
    const offset = upload.next
    const bytes = Math.min(FILE_CHUNK_BYTES_MAX, sizeBytes - offset)
    upload.next += bytes
    upload.unanswered.push(upload.next)
    sendPiece(upload, line, offset, bytes)
      .catch((error) => {
        const reason = error instanceof Error ? error.message : String(error)
        end(upload, { kind: 'failed', reason: `the copy on this host cannot be read: ${reason}` })
      })
      .finally(() => {
        upload.sending = false
        pump(upload)
      })
  }

  async function sendPiece(upload: Upload, over: FileLine, offset: number, bytes: number): Promise<void> {
    const { commandId } = upload.source.offer
    const payload = await upload.source.read(offset, bytes)
    if (payload.length !== bytes) throw new Error(`it ends at ${offset + payload.length}`)
    const frame = await encodeFileChunk({ commandId, offset }, payload)
    // Meanwhile the connection may have ended, or the controller asked for another place.
    if (over === line && upload.state === 'sending' && upload.unanswered.includes(offset + bytes)) {
      over.write(frame, () => pump(upload))
    }
  }

  return {
    upload(source, signal) {
      const { commandId } = source.offer
      return new Promise((resolve) => {
        if (signal.aborted || uploads.has(commandId)) {
          resolve(
            signal.aborted ? { kind: 'aborted' } : { kind: 'failed', reason: 'it is on its way already' },
          )
          return
        }
        const abort = () => end(upload, { kind: 'aborted' })
        const upload: Upload = {
          source,
          settle(outcome) {
            signal.removeEventListener('abort', abort)
            resolve(outcome)
          },
          state: 'waiting',
          next: 0,
          unanswered: [],
          sending: false,
          timer: null,
        }
        signal.addEventListener('abort', abort, { once: true })
        uploads.set(commandId, upload)
        offer(upload)
      })
    },
    connected(now) {
      line = now
      for (const upload of uploads.values()) offer(upload)
    },
    disconnected() {
      line = null
      for (const upload of uploads.values()) {
        upload.state = 'waiting'
        upload.unanswered = []
      }
    },
    progress(message) {
      const upload = uploads.get(message.commandId)
      // It may have been aborted here, with the answer on its way.
      if (!upload) return null
      const { sizeBytes } = upload.source.offer
      const isFirst = upload.state === 'offered'
      if (message.offset > (isFirst ? sizeBytes : upload.next)) return 'it has more of a file than was sent'
      if (message.complete) {
        if (message.offset !== sizeBytes) return 'it calls a file complete that is not'
        end(upload, { kind: 'complete' })
        return null
      }
      if (isFirst) {
        if (message.offset > 0)
          options.logger.info(
            { command: message.commandId, offset: message.offset },
            'a file goes on from where it was',
          )
        upload.state = 'sending'
        upload.next = message.offset
      }
      upload.unanswered = upload.unanswered.filter((ending) => ending > message.offset)
      pumpAll()
      return null
    },
    refused(message) {
      const upload = uploads.get(message.commandId)
      if (!upload) return null
      if (message.code === 'busy') {
        upload.state = 'waiting'
        upload.unanswered = []
        later(upload, busyPauseMs, () => {
          if (upload.state === 'waiting') offer(upload)
        })
        return null
      }
      end(upload, { kind: 'refused', code: message.code, reason: message.reason })
      return null
    },
  }
}
