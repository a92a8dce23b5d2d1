/**
 * Puts a quarantined file back: the same bytes, owner, group, mode, times to the nanosecond and extended
 * attributes, in the place it came from and nowhere else. The quarantine forgets it only when the probe has found
 * the whole file there. The kernel gives the time of change and the inode number anew; other names that the file
 * had are not made again.
 */
import { type BigIntStats, fstatSync } from 'node:fs'
import { statfs } from 'node:fs/promises'
import type { NativeLoad } from '../native/addon.ts'
import {
  type FileProblem,
  holdEntry,
  notRegular,
  openHeld,
  openPlace,
  type Place,
} from '../platform/linux/files.ts'
import {
  type Action,
  type ApplyResult,
  type CheckResult,
  elapsedMs,
  errorCode,
  type ProbeResult,
  type Proof,
  type Refusal,
} from './action.ts'
import { readAttributes } from './attributes.ts'
import { exactPath } from './held-file.ts'
import type { Interlock } from './interlock.ts'
import { createPlaceGuard } from './place-guard.ts'
import { clearPrivate, type RestoreHook, restoreInto } from './restoring.ts'
import { hashFile, type Manifest, type Vault } from './vault.ts'

export interface RestoreOptions {
  readonly vault: Vault
  readonly interlock: Interlock
  /** State and program of the agent: nothing is put there. */
  readonly ownFolders: readonly string[]
  /** Without the addon, times and attributes could not be given back exactly: nothing is restored. */
  readonly native: NativeLoad
  /** Tests kill the agent here. */
  readonly step?: RestoreHook
}

type Restore = Action<'restoreFile'>
type Request = Parameters<Restore['apply']>[0]

interface Ready extends AsyncDisposable {
  readonly kind: 'ready'
  readonly manifest: Manifest
  readonly place: Place
  readonly path: Buffer
}

const APPLY_TIMEOUT_MS = 10 * 60_000

export function createRestoreAction(options: RestoreOptions): Restore {
  const { vault, native } = options
  const step = options.step ?? (() => undefined)
  const refusedPlace = createPlaceGuard({
    interlock: options.interlock,
    ownFolders: [...options.ownFolders, vault.folder],
  })

  /** The manifest and the place, when the file may go there. */
  async function prepare({ target }: Request): Promise<Ready | Refusal> {
    if (!native.ok) {
      return refusal('noAddon', `times and attributes could not be given back exactly: ${native.reason}`)
    }
    const manifest = vault.manifest(target.quarantineId)
    if (!manifest) {
      return refusal('notInQuarantine', `nothing is in this host's quarantine under ${target.quarantineId}`)
    }
    const path = exactPath(target)
    if (!path) return refusal('badPath', 'the exact bytes of the path are not those of its text')
    if (manifest.sha256 !== target.sha256 || manifest.pathBytes !== path.toString('base64')) {
      return refusal('otherFile', `quarantine ${manifest.id} holds another file than the one signed for`)
    }
    const place = await openPlace(path)
    if (place.kind === 'problem') return withMend(place)
    await using stack = new AsyncDisposableStack()
    stack.use(place)
    const problem = (await refusedPlace(place)) ?? (await taken(place)) ?? (await noRoom(place, manifest))
    if (problem) return refusal(problem.code, problem.reason)
    const keep = stack.move()
    return { kind: 'ready', manifest, place, path, [Symbol.asyncDispose]: () => keep.disposeAsync() }
  }

  async function check(request: Request): Promise<CheckResult> {
    const prepared = await prepare(request)
    if (prepared.kind === 'refused') return prepared
    await prepared[Symbol.asyncDispose]()
    return { kind: 'ready' }
  }

  async function apply(request: Request, signal: AbortSignal): Promise<ApplyResult> {
    const startedMs = performance.now()
    await recover(request)
    const prepared = await prepare(request)
    if (prepared.kind === 'refused' || !native.ok) {
      return prepared.kind === 'refused' ? prepared : refusal('noAddon', 'the native addon is missing')
    }
    await using ready = prepared
    const { manifest, place, path } = ready
    const { commandId } = request
    const restored = await restoreInto(
      { place, path, commandId, manifest, vault, calls: native.native, step },
      signal,
    )
    switch (restored.kind) {
      case 'aborted':
        return restored
      case 'nameTaken':
        return refusal('nameTaken', NAME_TAKEN)
      case 'damaged':
        return { kind: 'failed', reason: `the quarantined copy is damaged: ${restored.reason}`, proof: {} }
      case 'problem':
        if (restored.code !== 'failed') return refusal(restored.code, restored.reason)
        return { kind: 'failed', reason: restored.reason, proof: {} }
      case 'restored': {
        step('done')
        const { device, inode } = restored
        const proof = { ...proofOf(manifest), device, inode, tookMs: elapsedMs(startedMs) }
        return {
          kind: 'applied',
          reason: `${manifest.sizeBytes} bytes are back${linksTold(manifest)}`,
          proof,
        }
      }
    }
  }

  /** Ends what a killed run of this command began. */
  async function recover({ commandId, target }: Request): Promise<void> {
    const path = exactPath(target)
    const place = path ? await openPlace(path) : null
    if (place?.kind !== 'place') return
    await using _place = place
    await clearPrivate(place, commandId)
  }

  async function probe(
    { target }: Request,
    applied: Proof | null,
    signal: AbortSignal,
  ): Promise<ProbeResult> {
    const manifest = vault.manifest(target.quarantineId)
    const found = await findFile(exactPath(target), signal)
    const seen = { ...applied, quarantineId: target.quarantineId, inQuarantine: manifest !== null }
    if (found.kind === 'problem') return { kind: 'disproved', reason: found.reason, proof: seen }
    const differs = found.sha256 === target.sha256 ? differences(found, manifest) : ['content']
    const proof = { ...seen, ...found.proof, differs: differs.join(', ') }
    if (differs.length > 0) {
      const reason = `what has the path now differs from the quarantined file in: ${differs.join(', ')}`
      return { kind: 'disproved', reason, proof }
    }
    step('proved')
    if (manifest) vault.remove(manifest.id)
    step('forgotten')
    const told = manifest
      ? `with content, owner, mode, time and attributes as they were${linksTold(manifest)}`
      : 'and the quarantine had given it back already'
    return {
      kind: 'proved',
      reason: `the file is in its place, ${told}`,
      proof: { ...proof, inQuarantine: false },
    }
  }

  interface Found {
    readonly kind: 'found'
    readonly stat: BigIntStats
    readonly sha256: string
    readonly attributes: Manifest['extendedAttributes']
    readonly proof: Proof
  }

  async function findFile(path: Buffer | null, signal: AbortSignal): Promise<Found | FileProblem> {
    const place = path ? await openPlace(path) : null
    if (place?.kind !== 'place') return place ?? { kind: 'problem', code: 'badPath', reason: 'no such path' }
    await using _place = place
    const held = await holdEntry(place.directory, place.name)
    if (held.kind === 'problem') return held
    await using entry = held.entry
    const irregular = notRegular(held.stat)
    if (irregular) return irregular
    const content = await openHeld(entry)
    if ('kind' in content) return content
    await using reading = content
    const { stat } = held
    const sha256 = await hashFile(reading, Number(stat.size), signal).catch(errorCode)
    const attributes = readAttributes(native.ok ? native.native : null, reading.fd).kept
    const proof = {
      contentHash: sha256,
      bytes: Number(stat.size),
      device: `${stat.dev}`,
      inode: `${stat.ino}`,
      mode: Number(stat.mode).toString(8),
      userId: Number(stat.uid),
      groupId: Number(stat.gid),
      modifiedNs: `${stat.mtimeNs}`,
      extendedAttributes: attributes === 'notRead' ? attributes : attributes.length,
    }
    return { kind: 'found', stat: fstatSync(reading.fd, { bigint: true }), sha256, attributes, proof }
  }

  /** The time of access is left out: whoever read the file since has changed it. */
  function differences({ stat, attributes }: Found, manifest: Manifest | null): string[] {
    if (!manifest) return []
    const same: Readonly<Record<string, boolean>> = {
      size: Number(stat.size) === manifest.sizeBytes,
      mode: Number(stat.mode) === manifest.mode,
      owner: Number(stat.uid) === manifest.userId,
      group: Number(stat.gid) === manifest.groupId,
      'time of modification': `${stat.mtimeNs}` === manifest.modifiedNs,
      'extended attributes':
        manifest.extendedAttributes === 'notRead' ||
        JSON.stringify(attributes) === JSON.stringify(manifest.extendedAttributes),
    }
    return Object.keys(same).filter((name) => !same[name])
  }

  return {
    idempotent: true,
    access: 'exclusive',
    timeoutMs: APPLY_TIMEOUT_MS,
    key: (target) => `file:${target.pathBytes ?? target.path}`,
    check,
    apply,
    recover,
    probe,
  }
}

const NAME_TAKEN = 'another file has the path now, and it is not overwritten; move it away and ask again'

async function taken(place: Place): Promise<{ code: string; reason: string } | null> {
  const held = await holdEntry(place.directory, place.name)
  if (held.kind === 'problem') return held.code === 'notFound' ? null : held
  await held.entry.close()
  return { code: 'nameTaken', reason: NAME_TAKEN }
}

async function noRoom(
  place: Place,
  { sizeBytes }: Manifest,
): Promise<{ code: string; reason: string } | null> {
  const { bavail, bsize } = await statfs(`/proc/self/fd/${place.directory.fd}`)
  if (bavail * bsize >= sizeBytes) return null
  return {
    code: 'noRoom',
    reason: `the file has ${sizeBytes} bytes and its file system only ${bavail * bsize} free; make room and ask again`,
  }
}

function withMend({ code, reason }: FileProblem): Refusal {
  if (code !== 'notFound') return refusal(code, reason)
  return refusal('parentMissing', `${reason}; make the folder again, with its owner and mode, and ask again`)
}

function linksTold({ links }: Manifest): string {
  return links > 1 ? `; the ${links - 1} other names that it had are not made again` : ''
}

function proofOf(manifest: Manifest): Proof {
  return {
    quarantineId: manifest.id,
    bytes: manifest.sizeBytes,
    contentHash: manifest.sha256,
    otherLinksNotRestored: Math.max(0, manifest.links - 1),
    ...(manifest.attributesLeft === 0 ? {} : { attributesNotKept: manifest.attributesLeft }),
    ...(manifest.extendedAttributes === 'notRead' ? { attributes: 'were not read when it was taken' } : {}),
  }
}

function refusal(code: string, reason: string): Refusal {
  return { kind: 'refused', code, reason }
}
