/** Collected files of one connection, beside its batches: bounded in flight, so that they never wait in memory. */
import { FILE_CHUNKS_MAX } from '../../shared/protocol/limits.ts'
import type { ControllerMessage, FileOffer } from '../../shared/protocol/messages.ts'
import type { Goodbye } from './ports.ts'

type FileAnswer = Extract<ControllerMessage, { kind: 'fileProgress' | 'fileRefused' }>

/** Where files go. */
export interface FileSink {
  offer(agentId: string, offer: FileOffer): Promise<FileAnswer>
  take(
    agentId: string,
    frame: Uint8Array,
  ): Promise<
    | { readonly kind: 'answer'; readonly message: FileAnswer }
    /** A later piece is answered for this one, too. */
    | { readonly kind: 'nothing' }
    | { readonly kind: 'malformed'; readonly reason: string }
  >
  /** The connection is over. */
  closed(agentId: string): void
}

export interface FileLane {
  offer(offer: FileOffer): Promise<void>
  take(frame: Uint8Array): Promise<void>
  closed(): void
}

export function createFileLane(lane: {
  readonly files: FileSink | undefined
  readonly agentId: string
  /** False, and the end of the session, when it is not open or its right has ended. */
  readonly mayGoOn: () => boolean
  readonly end: (code: Goodbye['code'], reason: string) => void
  readonly send: (message: FileAnswer) => void
}): FileLane {
  const { files, agentId } = lane
  let unanswered = 0
  let used = false
  return {
    async offer(offer) {
      if (!files) return lane.end('malformed', 'no files are taken here')
      used = true
      lane.send(await files.offer(agentId, offer))
    },
    async take(frame) {
      if (!lane.mayGoOn()) return
      if (!files) return lane.end('malformed', 'no files are taken here')
      if (unanswered >= FILE_CHUNKS_MAX) {
        return lane.end('limit', `more than ${FILE_CHUNKS_MAX} pieces of files without an answer`)
      }
      unanswered += 1
      const taken = await files.take(agentId, frame).finally(() => {
        unanswered -= 1
      })
      if (taken.kind === 'malformed') lane.end('malformed', taken.reason)
      else if (taken.kind === 'answer') lane.send(taken.message)
    },
    closed() {
      if (used) files?.closed(agentId)
    },
  }
}
