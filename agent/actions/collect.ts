/**
 * Copies a file to the controller. Applied means that the copy is whole on this host, out of reach of whoever
 * changes the file; proved means that the controller has said that it holds the same bytes. In between lie as many
 * connections as it takes. The file itself is only read.
 */
import type { BigIntStats } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import type { FileOffer } from '../../shared/protocol/messages.ts'
import { type FileProblem, holdEntry, notRegular, openHeld, openPlace } from '../platform/linux/files.ts'
import type { FileUploads } from '../uplink/files.ts'
import {
  type Action,
  type ApplyResult,
  type CheckResult,
  elapsedMs,
  type ProbeResult,
  type Proof,
  type Refusal,
} from './action.ts'
import { exactPath } from './held-file.ts'
import type { Interlock } from './interlock.ts'
import { createPlaceGuard } from './place-guard.ts'
import type { Spool } from './spool.ts'

export interface CollectOptions {
  readonly spool: Spool
  readonly uploads: Pick<FileUploads, 'upload'>
  readonly interlock: Interlock
  /** State and program of the agent: its keys are nobody's evidence. */
  readonly ownFolders: readonly string[]
  /** Whether the command has not ended: what is kept for others is removed. */
  readonly isOpen: (commandId: string) => boolean
  readonly clock: () => number
  /** Tests change the file here. */
  readonly copied?: (bytes: number) => void
}

type Collect = Action<'collectFile'>
type Request = Parameters<Collect['apply']>[0]

interface Held extends AsyncDisposable {
  readonly kind: 'held'
  readonly stat: BigIntStats
  readonly content: FileHandle
}

/** A large file over a thin line, or a host that is away over night. */
const TIMEOUT_MS = 24 * 3_600_000

export function createCollectAction(options: CollectOptions): Collect {
  const { spool, uploads } = options
  const refusedPlace = createPlaceGuard({
    interlock: options.interlock,
    ownFolders: [...options.ownFolders, spool.folder],
  })
  spool.tidy(options.isOpen)

  async function hold({ target, args }: Request): Promise<Held | Refusal> {
    const path = exactPath(target)
    if (!path) return refusal('badPath', 'the exact bytes of the path are not those of its text')
    const place = await openPlace(path)
    if (place.kind === 'problem') return refused(place)
    await using _place = place
    const denied = await refusedPlace(place)
    if (denied) return refused(denied)
    const held = await holdEntry(place.directory, place.name)
    if (held.kind === 'problem') return refused(held)
    await using entry = held.entry
    const irregular = notRegular(held.stat)
    if (irregular) return refused(irregular)
    const size = Number(held.stat.size)
    if (size > args.bytesMax) {
      return refusal('tooLarge', `the file has ${size} bytes, and at most ${args.bytesMax} were asked for`)
    }
    const full = await spool.refuses(size)
    if (full !== null) return refusal('noRoom', full)
    const content = await openHeld(entry)
    if ('kind' in content) return refused(content)
    const stat = await content.stat({ bigint: true })
    return { kind: 'held', stat, content, [Symbol.asyncDispose]: () => content.close() }
  }

  async function check(request: Request): Promise<CheckResult> {
    const offer = spool.offer(request.commandId)
    if (offer) return { kind: 'already', reason: 'the file was copied already', proof: proofOf(offer) }
    const held = await hold(request)
    if (held.kind === 'refused') return held
    await held[Symbol.asyncDispose]()
    return { kind: 'ready' }
  }

  async function apply(request: Request, signal: AbortSignal): Promise<ApplyResult> {
    const startedMs = performance.now()
    spool.tidy((id) => id === request.commandId || options.isOpen(id))
    const result = await hold(request)
    if (result.kind === 'refused') return result
    await using held = result
    const { path, pathBytes } = request.target
    const copied = await spool.copy(
      held.content,
      {
        id: request.commandId,
        path,
        pathBytes,
        stat: held.stat,
        copiedMs: options.clock(),
        ...(options.copied ? { copied: options.copied } : {}),
      },
      signal,
    )
    if (copied.kind === 'aborted') return copied
    if (copied.kind === 'failed') return { ...copied, proof: {} }
    const { offer } = copied
    const changed = offer.changedWhileRead ? ', while somebody wrote to it' : ''
    return {
      kind: 'applied',
      reason: `${offer.sizeBytes} bytes are copied${changed}; they go to the controller`,
      proof: { ...proofOf(offer), tookMs: elapsedMs(startedMs) },
    }
  }

  /** The controller is the one that can show that it has the file. */
  async function probe(
    { commandId }: Request,
    applied: Proof | null,
    signal: AbortSignal,
  ): Promise<ProbeResult> {
    const offer = spool.offer(commandId)
    if (!offer) {
      const reason = 'no copy of the file waits on this host'
      return { kind: applied ? 'disproved' : 'unknown', reason, proof: applied ?? {} }
    }
    const source = { offer, read: (offset: number, bytes: number) => spool.read(commandId, offset, bytes) }
    const outcome = await uploads.upload(source, signal)
    const proof = { ...applied, ...proofOf(offer) }
    switch (outcome.kind) {
      case 'complete':
        spool.dropContent(commandId)
        return { kind: 'proved', reason: 'the controller has the whole file, with the same hash', proof }
      case 'refused':
        spool.remove(commandId)
        return {
          kind: 'disproved',
          reason: `the controller did not take it: ${outcome.reason}`,
          proof: { ...proof, code: outcome.code },
        }
      case 'failed':
        return { kind: 'disproved', reason: outcome.reason, proof }
      case 'aborted':
        return { kind: 'disproved', reason: 'the controller did not fetch it in time', proof }
    }
  }

  return {
    idempotent: true,
    access: 'shared',
    timeoutMs: TIMEOUT_MS,
    key: (target) => `collect:${target.pathBytes ?? target.path}`,
    check,
    apply,
    probe,
  }
}

function proofOf(offer: FileOffer): Proof {
  return {
    bytes: offer.sizeBytes,
    contentHash: offer.sha256,
    changedWhileRead: offer.changedWhileRead,
    device: offer.device,
    inode: offer.inode,
    mode: offer.mode.toString(8),
    userId: offer.userId,
    groupId: offer.groupId,
    modifiedNs: offer.modifiedNs,
  }
}

function refused({ code, reason }: FileProblem): Refusal {
  if (code !== 'symlink') return refusal(code, reason)
  return refusal(code, `${reason}; links are not followed: name the file that it leads to`)
}

function refusal(code: string, reason: string): Refusal {
  return { kind: 'refused', code, reason }
}
