/**
 * Moves a file out of reach into the encrypted quarantine of the host. The file is named by path, inode and
 * content; what has changed since the signature is not taken. Whatever interrupts it, the file is in its
 * place, in a private folder beside it (a restart puts it back or goes on), or whole in the vault.
 */
import { fstatSync } from 'node:fs'
import { holdEntry, namesOfInode, openHeld, openPlace } from '../platform/linux/files.ts'
import {
  type Action,
  type ApplyResult,
  type CheckResult,
  elapsedMs,
  errorCode,
  type Proof,
} from './action.ts'
import { createFileHolder, exactPath, type Held } from './held-file.ts'
import type { Interlock } from './interlock.ts'
import { discard, findTaken, leave, putBack, type StepHook, type Taken, takeEntry } from './taking.ts'
import { hashFile, type Manifest, type Vault } from './vault.ts'

export interface QuarantineOptions {
  readonly vault: Vault
  readonly interlock: Interlock
  /** State, program and vault of the agent: never quarantined. */
  readonly ownFolders: readonly string[]
  readonly clock: () => number
  /** Tests kill the agent here. */
  readonly step?: StepHook
}

type Quarantine = Action<'quarantineFile'>
type Request = Parameters<Quarantine['apply']>[0]

const APPLY_TIMEOUT_MS = 10 * 60_000
/** Directory entries that are looked through for other names of the file. */
const NEIGHBOURS_MAX = 2_000
export function createQuarantineAction(options: QuarantineOptions): Quarantine {
  const { vault } = options
  const step = options.step ?? (() => undefined)
  const files = createFileHolder(options)

  async function check(request: Request, signal: AbortSignal): Promise<CheckResult> {
    const result = await files.hold(request.target, () => storedAs(request) !== null, signal)
    if (result.kind === 'problem') {
      const stored = result.code === 'notFound' ? storedAs(request) : null
      if (!stored) return refusal(result)
      return { kind: 'already', reason: 'the file is in the quarantine already', proof: stored }
    }
    await using held = result
    // Read before anything is touched: a file that has changed since is never even moved.
    const sha256 = await hashFile(held.content, Number(held.stat.size), signal).catch(errorCode)
    if (sha256 === request.target.sha256) return { kind: 'ready' }
    return refusal({ code: 'contentChanged', reason: changed(sha256) })
  }

  /** Proof of an earlier quarantine of this very file. The same content dropped again is another file. */
  function storedAs({ commandId, target }: Request): Proof | null {
    const path = exactPath(target)
    const entry = vault.manifest(commandId) ?? (path && vault.find(path, target.sha256))
    if (!entry) return null
    const same =
      (target.device ?? entry.device) === entry.device && (target.inode ?? entry.inode) === entry.inode
    return same ? storedProof(entry) : null
  }

  async function apply(request: Request, signal: AbortSignal): Promise<ApplyResult> {
    const startedMs = performance.now()
    await recover(request)
    const result = await files.hold(request.target, () => storedAs(request) !== null, signal)
    if (result.kind === 'problem') {
      const stored = result.code === 'notFound' ? storedAs(request) : null
      return stored
        ? { kind: 'applied', reason: 'the file was in the quarantine already', proof: stored }
        : refusal(result)
    }
    await using held = result
    const inode = { device: held.stat.dev, inode: held.stat.ino }
    const taking = await takeEntry(held.place, inode, request.commandId, step, signal)
    if (taking.kind === 'problem') return signal.aborted ? { kind: 'aborted' } : refusal(taking)
    await using taken = taking
    const kept = await storeTaken(request, held, taken, signal)
    if (kept.kind !== 'stored') return kept.result
    await discard(taken, step)
    const others = Number(held.stat.nlink) - 1
    const proof = {
      ...storedProof(kept.manifest),
      ...(await otherNames(held, others)),
      tookMs: elapsedMs(startedMs),
    }
    step('done')
    const links = others > 0 ? `; the file has ${others} other names, which still lead to its content` : ''
    return {
      kind: 'applied',
      reason: `${kept.manifest.sizeBytes} bytes are in the quarantine${links}`,
      proof,
    }
  }

  /** Copies the taken file into the vault; when that does not succeed the file gets its name back. */
  async function storeTaken(
    request: Request,
    held: Held,
    taken: Taken,
    signal: AbortSignal,
  ): Promise<{ kind: 'stored'; manifest: Manifest } | { kind: 'notStored'; result: ApplyResult }> {
    const stored = await vault.store(
      held.content,
      {
        id: request.commandId,
        pathBytes: exactPath(request.target) ?? Buffer.alloc(0),
        sha256: request.target.sha256,
        stat: held.stat,
        takenMs: options.clock(),
        contentWritten: () => step('contentWritten'),
      },
      signal,
    )
    if (stored.kind === 'stored') {
      step('stored')
      const now = fstatSync(held.content.fd, { bigint: true })
      if (now.size === held.stat.size && now.mtimeNs === held.stat.mtimeNs) return stored
      vault.remove(request.commandId)
    }
    const back = await putBack(taken)
    await leave(taken)
    const now = back.kind === 'put' ? back.name.toString('utf8') : `in .cordon-${request.commandId}`
    const ownName = back.kind === 'put' && back.name.equals(held.place.name)
    const where = ownName
      ? 'it has its name back'
      : `its name was taken meanwhile, it is now ${now} beside it`
    if (stored.kind === 'aborted') return { kind: 'notStored', result: { kind: 'aborted' } }
    if (stored.kind === 'failed') {
      const reason = `${stored.reason}; ${where}`
      return { kind: 'notStored', result: { kind: 'failed', reason, proof: {} } }
    }
    const sha256 = stored.kind === 'contentChanged' ? stored.sha256 : 'written to while it was copied'
    const reason = `${changed(sha256)}; ${where}`
    return { kind: 'notStored', result: refusal({ code: 'contentChanged', reason }) }
  }

  async function otherNames(held: Held, others: number): Promise<Proof> {
    if (others === 0) return { otherLinks: 0 }
    const { stat, place } = held
    const names = await namesOfInode(place.directory, stat.ino, stat.dev, NEIGHBOURS_MAX).catch(() => null)
    const told = names?.map((name) => name.toString('utf8')).join(', ')
    return { otherLinks: others, otherNamesHere: told ?? 'not looked for: the directory is too large' }
  }

  /** Ends what a killed run of this command began: onward when the vault has the file, else back. */
  async function recover({ commandId, target }: Request): Promise<void> {
    const path = exactPath(target)
    const place = path ? await openPlace(path) : null
    if (place?.kind !== 'place') return vault.discardPartial(commandId)
    await using _place = place
    const found = await findTaken(place, commandId)
    const manifest = vault.manifest(commandId)
    if (found) {
      await using taken = found
      const { inode } = taken
      if (inode && manifest && manifest.inode === `${inode.inode}` && manifest.device === `${inode.device}`) {
        await discard(taken, () => undefined)
      } else {
        await putBack(taken)
        await leave(taken)
      }
    }
    vault.discardPartial(commandId)
  }

  return {
    idempotent: true,
    access: 'exclusive',
    timeoutMs: APPLY_TIMEOUT_MS,
    key: (target) => `file:${target.pathBytes ?? target.path}`,
    check,
    apply,
    recover,
    async probe(request, applied, signal) {
      const stored = storedAs(request)
      const entry = stored && vault.manifest(String(stored['quarantineId']))
      const inVault = entry ? await vault.verify(entry.id, signal) : null
      const intact = inVault?.kind === 'intact' && inVault.sha256 === request.target.sha256
      const pathState = await stateOfPath(exactPath(request.target), entry, signal)
      const bytes = inVault?.kind === 'intact' ? inVault.bytes : 0
      const proof: Proof = { ...applied, ...stored, pathState, vaultIntact: intact, bytes }
      const away = pathState === 'gone' || pathState === 'other'
      if (away && intact) {
        return {
          kind: 'proved',
          reason: `${SEEN[pathState]}, and the quarantine gives back its content`,
          proof,
        }
      }
      if (!away) return { kind: 'disproved', reason: SEEN[pathState], proof }
      const damage = inVault?.kind === 'damaged' ? `is damaged: ${inVault.reason}` : 'does not exist'
      return { kind: 'disproved', reason: `${SEEN[pathState]}, but the quarantined copy ${damage}`, proof }
    },
  }
}

type PathState = 'gone' | 'other' | 'same' | 'sameContent'
const SEEN: Readonly<Record<PathState, string>> = {
  gone: 'nothing has the path any more',
  other: 'another file has the path now',
  same: 'the file is still in its place',
  sameContent: 'a new file with the same content has the path now',
}

/** Looks at the path anew. Inode numbers are reused, so the time of birth tells a new file from the old one. */
async function stateOfPath(
  path: Buffer | null,
  entry: Manifest | null,
  signal: AbortSignal,
): Promise<PathState> {
  const place = path ? await openPlace(path) : null
  if (place?.kind !== 'place') return 'gone'
  await using _place = place
  const held = await holdEntry(place.directory, place.name)
  if (held.kind === 'problem') return 'gone'
  await using file = held.entry
  if (!entry) return 'same'
  const { dev, ino, birthtimeNs, size } = held.stat
  const same = entry.device === `${dev}` && entry.inode === `${ino}` && entry.bornNs === `${birthtimeNs}`
  if (same) return 'same'
  if (!held.stat.isFile() || Number(size) !== entry.sizeBytes) return 'other'
  const content = await openHeld(file)
  if ('kind' in content) return 'other'
  await using reading = content
  const sha256 = await hashFile(reading, entry.sizeBytes, signal).catch(errorCode)
  return sha256 === entry.sha256 ? 'sameContent' : 'other'
}

function storedProof(entry: Manifest): Proof {
  return {
    quarantineId: entry.id,
    bytes: entry.sizeBytes,
    contentHash: entry.sha256,
    device: entry.device,
    inode: entry.inode,
    extendedAttributes: entry.extendedAttributes === 'notRead' ? 'notRead' : entry.extendedAttributes.length,
    ...(entry.attributesLeft === 0 ? {} : { attributesNotKept: entry.attributesLeft }),
  }
}

function changed(sha256: string): string {
  return `the content of the file is not the one signed for (now: ${sha256})`
}

function refusal({ code, reason }: { readonly code: string; readonly reason: string }) {
  return { kind: 'refused' as const, code, reason }
}
