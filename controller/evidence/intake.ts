/**
 * Takes files from agents. A file is taken only for a command that asked this very agent for this very path, in the
 * size and with the hash that it offered at first; the hash is measured here, over the whole, from disk, before
 * anybody is told that the file is there. What breaks these rules ends the upload for good, and is told as an alert.
 *
 * Invariants: an offset that was answered is on disk; nothing half is kept under a hash; an agent that is not asked
 * for a file makes this program hold no memory and no disk.
 */
import type { FileHandle } from 'node:fs/promises'
import { decodeFileChunk } from '../../shared/node/file-chunk.ts'
import type { Logger } from '../../shared/node/logger.ts'
import { runEvery } from '../../shared/node/loop.ts'
import type { FileOffer } from '../../shared/protocol/messages.ts'
import type { Change } from '../api/services.ts'
import type { Alerts } from '../audit/alerts.ts'
import type { EvidenceRow } from '../state/evidence-table.ts'
import type { State } from '../state/state.ts'
import { type EvidenceFiles, hashWhole } from './evidence-files.ts'
import { endCrash, givenUpBecause } from './leftovers.ts'
import { type Refusal, refusalOf, roomProblem } from './offer-check.ts'
import { type FileAnswer, progress, writeWhole, wrongOf } from './pieces.ts'

export type ChunkTaken =
  | { readonly kind: 'answer'; readonly message: FileAnswer }
  /** The answer comes with a later piece, or there is none any more. */
  | { readonly kind: 'nothing' }
  /** The connection ends. */
  | { readonly kind: 'malformed'; readonly reason: string }

export interface Intake {
  offer(agentId: string, offer: FileOffer): Promise<FileAnswer>
  take(agentId: string, frame: Uint8Array): Promise<ChunkTaken>
  /** The agent's connection is over: what has come stays for the next one. */
  closed(agentId: string): void
  /** Gives up what nobody will finish, until `signal` aborts; resolves when every file is closed. */
  run(signal: AbortSignal): Promise<void>
}

export interface IntakeOptions {
  readonly state: State
  readonly files: EvidenceFiles
  readonly alerts: Alerts
  readonly announce: (change: Change) => void
  readonly logger: Pick<Logger, 'info' | 'error'>
  readonly nowMs: () => number
  /** Setting `evidenceFileBytesMax`. */
  readonly fileBytesMax: number
  /** Setting `evidenceBytesMax`. */
  readonly bytesMax: number
  /** Left on the disk, for events and state. */
  readonly freeBytesMin?: number
  /** Files that come at once, from all agents. */
  readonly uploadsMax?: number
}

const FREE_BYTES_MIN = 256 * 1024 ** 2
const UPLOADS_MAX = 32
/** How often progress is noted, at most. */
const NOTE_INTERVAL_MS = 500
const TIDY_INTERVAL_MS = 3_600_000
/** Uploads that ended while pieces of them were still on their way. */
const ENDED_MAX = 1_024

interface Piece {
  readonly payload: Buffer
  readonly offset: number
  readonly settle: (taken: ChunkTaken) => void
}

interface Upload {
  readonly agentId: string
  readonly row: EvidenceRow
  readonly handle: FileHandle
  /** Offset of the next piece, and up to where all is on disk. */
  next: number
  durable: number
  readonly pieces: Piece[]
  /** Resolves when all that has come is on disk or lost; null: nothing is under way. */
  work: Promise<void> | null
  connected: boolean
  notedMs: number
}

export function createIntake(options: IntakeOptions): Intake {
  const { state, files, alerts, logger, nowMs } = options
  const uploads = new Map<string, Upload>()
  const opening = new Set<string>()
  const ended = new Set<string>()
  endCrash(state, files)

  async function offer(agentId: string, message: FileOffer): Promise<FileAnswer> {
    const { commandId } = message
    const checked = refusalOf(state, agentId, message, options.fileBytesMax)
    if (checked.kind === 'refused') return refuse(agentId, commandId, checked)
    if (checked.kind === 'complete') return progress(commandId, message.sizeBytes, true)
    const open = uploads.get(commandId)
    if (open) {
      open.connected = true
      while (open.work) await open.work
      if (uploads.get(commandId) === open) {
        open.next = open.durable
        return progress(commandId, open.durable, false)
      }
      return await offer(agentId, message)
    }
    if (opening.has(commandId) || uploads.size + opening.size >= (options.uploadsMax ?? UPLOADS_MAX)) {
      return refuse(agentId, commandId, {
        code: 'busy',
        reason: 'other files are coming; offer it again later',
      })
    }
    opening.add(commandId)
    try {
      return await begin(agentId, message, checked.hostName)
    } catch (error) {
      return lost(agentId, commandId, error)
    } finally {
      opening.delete(commandId)
    }
  }

  async function begin(agentId: string, message: FileOffer, hostName: string): Promise<FileAnswer> {
    const { commandId, sizeBytes } = message
    const known = state.evidence.get(commandId)
    if (!known) {
      const freeBytes = (await files.freeBytes()) - (options.freeBytesMin ?? FREE_BYTES_MIN)
      const held = state.evidence.heldBytes()
      const full = roomProblem({ sizeBytes, heldBytes: held, bytesMax: options.bytesMax, freeBytes })
      if (full) return refuse(agentId, commandId, full)
    }
    const row = known ?? noted(agentId, message, hostName)
    const partial = await files.openPartial(commandId, row.received_bytes)
    const upload: Upload = {
      agentId,
      row,
      handle: partial.handle,
      next: Math.min(partial.offset, sizeBytes),
      durable: Math.min(partial.offset, sizeBytes),
      pieces: [],
      work: null,
      connected: true,
      notedMs: nowMs(),
    }
    uploads.set(commandId, upload)
    ended.delete(commandId)
    logger.info({ agentId, command: commandId, sizeBytes, offset: upload.durable }, 'a file is coming')
    if (upload.durable < sizeBytes) return progress(commandId, upload.durable, false)
    const answer = Promise.withResolvers<FileAnswer>()
    start(upload, async () => answer.resolve(await finish(upload)))
    return await answer.promise
  }

  function noted(agentId: string, message: FileOffer, hostName: string): EvidenceRow {
    state.evidence.offered({
      command_id: message.commandId,
      agent_id: agentId,
      host_name: hostName,
      path: message.path,
      size_bytes: message.sizeBytes,
      sha256: message.sha256,
      offer: JSON.stringify(message),
      offered_ms: nowMs(),
    })
    const row = state.evidence.get(message.commandId)
    if (!row) throw new Error(`the note of ${message.commandId} is gone`)
    return row
  }

  async function take(agentId: string, frame: Uint8Array): Promise<ChunkTaken> {
    const decoded = decodeFileChunk(frame)
    if (!decoded.ok) return { kind: 'malformed', reason: decoded.reason }
    const { header, payload } = decoded
    const upload = uploads.get(header.commandId)
    if (!upload || upload.agentId !== agentId || !upload.connected) {
      if (ended.has(header.commandId)) return { kind: 'nothing' }
      const reason = `a piece of a file for command ${header.commandId}, which it had not offered`
      alerts.raise('unassignedUpload', agentId, `It sent ${reason}.`)
      return { kind: 'malformed', reason }
    }
    const { next, row } = upload
    const wrong = wrongOf({ header, payload, sizeBytes: row.size_bytes, next })
    if (wrong) return { kind: 'answer', message: await giveUp(upload, wrong) }
    upload.next += payload.length
    return await new Promise((settle) => {
      upload.pieces.push({ payload, offset: header.offset, settle })
      if (!upload.work) start(upload, () => writeAll(upload))
    })
  }

  function start(upload: Upload, work: () => Promise<void>): void {
    upload.work = work()
      .catch((error) =>
        logger.error({ error: String(error), command: upload.row.command_id }, 'an upload failed'),
      )
      .finally(() => {
        upload.work = null
        if (!upload.connected) release(upload)
      })
  }

  /** Whatever has come by now is written, synced once, and answered with one message. */
  async function writeAll(upload: Upload): Promise<void> {
    while (upload.pieces.length > 0) {
      const pieces = upload.pieces.splice(0)
      const last = pieces.at(-1)
      let message: FileAnswer
      try {
        for (const { payload, offset } of pieces) await writeWhole(upload.handle, payload, offset)
        await upload.handle.datasync()
        upload.durable = (last?.offset ?? 0) + (last?.payload.length ?? 0)
        if (isOver(upload)) message = progress(upload.row.command_id, upload.durable, false)
        else if (upload.durable === upload.row.size_bytes) message = await finish(upload)
        else message = note(upload)
      } catch (error) {
        message = lost(upload.agentId, upload.row.command_id, error)
      }
      for (const piece of pieces)
        piece.settle(piece === last ? { kind: 'answer', message } : { kind: 'nothing' })
    }
  }

  function note(upload: Upload): FileAnswer {
    const { command_id: commandId } = upload.row
    if (nowMs() - upload.notedMs >= NOTE_INTERVAL_MS) {
      upload.notedMs = nowMs()
      state.evidence.received(commandId, upload.durable, nowMs())
      tell(commandId)
    }
    return progress(commandId, upload.durable, false)
  }

  async function finish(upload: Upload): Promise<FileAnswer> {
    const { command_id: commandId, size_bytes: sizeBytes, sha256 } = upload.row
    const measured = await hashWhole(upload.handle, sizeBytes)
    if (isOver(upload)) return progress(commandId, upload.durable, false)
    if (measured !== sha256) {
      const reason = `the file that came has the hash ${measured}, not ${sha256} as offered`
      return await giveUp(upload, { code: 'hashMismatch', alert: 'fileHashMismatch', reason })
    }
    await upload.handle.sync()
    state.evidence.completed(commandId, nowMs())
    files.keep(commandId, sha256)
    forget(upload)
    await upload.handle.close()
    logger.info({ agentId: upload.agentId, command: commandId, sizeBytes, sha256 }, 'a file is whole')
    tell(commandId)
    return progress(commandId, sizeBytes, true)
  }

  /** The end of an upload that nothing can mend: nothing of it is kept. */
  async function giveUp(upload: Upload, { code, reason, alert }: Refusal): Promise<FileAnswer> {
    const { command_id: commandId } = upload.row
    if (!isOver(upload)) {
      forget(upload)
      await upload.handle.close()
      files.dropPartial(commandId)
      state.evidence.failed(commandId, reason.slice(0, 512), nowMs())
      tell(commandId)
    }
    return refuse(upload.agentId, commandId, { code, reason, ...(alert ? { alert } : {}) })
  }

  /** The disk failed us, or is full: told, and nothing half stays. */
  function lost(agentId: string, commandId: string, error: unknown): FileAnswer {
    const isFull = ['ENOSPC', 'EDQUOT'].includes((error as NodeJS.ErrnoException).code ?? '')
    const reason = isFull
      ? `the controller's disk is full; make room in ${files.folder} and ask for the file again`
      : `the controller could not store the file: ${String(error)}`
    logger.error({ agentId, command: commandId, error: String(error) }, 'a file could not be stored')
    const upload = uploads.get(commandId)
    if (upload) {
      forget(upload)
      upload.handle.close().catch(() => undefined)
    }
    files.dropPartial(commandId)
    if (state.evidence.get(commandId)?.state === 'receiving') {
      state.evidence.failed(commandId, reason.slice(0, 512), nowMs())
    }
    tell(commandId)
    return refuse(agentId, commandId, { code: isFull ? 'noRoom' : 'failed', reason })
  }

  const isOver = (upload: Upload) => uploads.get(upload.row.command_id) !== upload

  function forget(upload: Upload): void {
    const { command_id: commandId } = upload.row
    uploads.delete(commandId)
    ended.add(commandId)
    const oldest = ended.values().next().value
    if (ended.size > ENDED_MAX && oldest !== undefined) ended.delete(oldest)
  }

  /** Nobody sends any more: what is on disk is noted, and the file closed. */
  function release(upload: Upload): void {
    if (isOver(upload)) return
    const { command_id: commandId } = upload.row
    uploads.delete(commandId)
    state.evidence.received(commandId, upload.durable, nowMs())
    upload.handle
      .close()
      .catch((error) => logger.error({ error: String(error) }, 'a file could not be closed'))
    tell(commandId)
  }

  function refuse(agentId: string, commandId: string, { code, reason, alert }: Refusal): FileAnswer {
    if (alert) alerts.raise(alert, agentId, `Command ${commandId}: ${reason}.`)
    return { kind: 'fileRefused', commandId, code, reason: reason.slice(0, 512) }
  }

  function tell(commandId: string): void {
    const action = state.actions.get(commandId)
    if (action) options.announce({ kind: 'action', id: commandId, state: action.state })
  }

  function closed(agentId: string): void {
    for (const upload of uploads.values()) {
      if (upload.agentId !== agentId) continue
      upload.connected = false
      if (!upload.work) release(upload)
    }
  }

  /** A command that ended, or an agent that stays away, leaves nothing half here. */
  async function tidy(): Promise<void> {
    for (const row of state.evidence.receiving()) {
      const reason = givenUpBecause(state, row, nowMs())
      if (reason === null) continue
      const upload = uploads.get(row.command_id)
      if (upload) await giveUp(upload, { code: 'ended', reason })
      else {
        files.dropPartial(row.command_id)
        state.evidence.failed(row.command_id, reason, nowMs())
      }
    }
  }

  return {
    offer,
    take,
    closed,
    async run(signal) {
      await runEvery(TIDY_INTERVAL_MS, signal, tidy)
      for (const upload of [...uploads.values()]) {
        upload.connected = false
        await upload.work
        release(upload)
      }
    },
  }
}
