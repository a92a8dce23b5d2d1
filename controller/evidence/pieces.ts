/** Pieces of files: whether one fits where the upload stands, how it is written, and how that is answered. */
import type { FileHandle } from 'node:fs/promises'
import { isWhole } from '../../shared/node/file-chunk.ts'
import type { ControllerMessage, FileChunkHeader } from '../../shared/protocol/messages.ts'
import type { Refusal } from './offer-check.ts'

export type FileAnswer = Extract<ControllerMessage, { kind: 'fileProgress' | 'fileRefused' }>

/** What is wrong with a piece, which no agent sends that works as it should; null when nothing is. */
export function wrongOf(piece: {
  readonly header: FileChunkHeader
  readonly payload: Buffer
  /** What was offered, and where the next piece begins. */
  readonly sizeBytes: number
  readonly next: number
}): Refusal | null {
  const { header, payload, sizeBytes, next } = piece
  const { offset } = header
  if (offset + payload.length > sizeBytes) {
    const reason = `a piece reaches to ${offset + payload.length}, and ${sizeBytes} bytes were offered`
    return { code: 'tooLarge', alert: 'moreThanOffered', reason }
  }
  if (offset !== next) {
    return {
      code: 'wrongOffset',
      alert: 'fileOutOfOrder',
      reason: `a piece begins at ${offset}, and ${next} is next`,
    }
  }
  if (isWhole(header, payload)) return null
  return {
    code: 'hashMismatch',
    alert: 'fileHashMismatch',
    reason: `the piece at ${offset} has not the hash it says`,
  }
}

export async function writeWhole(handle: FileHandle, payload: Buffer, offset: number): Promise<void> {
  for (let written = 0; written < payload.length; ) {
    const { bytesWritten } = await handle.write(payload, written, payload.length - written, offset + written)
    written += bytesWritten
  }
}

export function progress(commandId: string, offset: number, complete: boolean): FileAnswer {
  return { kind: 'fileProgress', commandId, offset, complete }
}
