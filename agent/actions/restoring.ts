/**
 * Makes a file whole in a private folder beside its place, with all that it carried, and only then gives it its
 * name, never one that is taken. Whatever interrupts it, the name leads to nothing or to the whole file; what
 * stays in the private folder, whose name follows from the command, is removed by the next start.
 */
import { createHash } from 'node:crypto'
import { constants, fstatSync } from 'node:fs'
import { type FileHandle, link, open, rmdir, unlink } from 'node:fs/promises'
import {
  entryPath,
  type FileProblem,
  openDirectory,
  openPlace,
  type Place,
  problem,
  syncDirectory,
} from '../platform/linux/files.ts'
import { errorCode } from './action.ts'
import { type AttributeCalls, writeAttributes } from './attributes.ts'
import { isPrivate, makePrivateFolder, privateName } from './taking.ts'
import type { Manifest, Vault } from './vault.ts'

const RESTORED = Buffer.from('restored')
const PERMISSION_BITS = 0o7777
/** What file systems without hard links answer. */
const NO_LINKS: ReadonlySet<string> = new Set(['EPERM', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'])

/** Instants at which tests kill the agent. */
export type RestoreStep =
  | 'privateFolder'
  | 'halfWritten'
  | 'written'
  | 'dressed'
  | 'placed'
  | 'unlinked'
  | 'done'
  | 'proved'
  | 'forgotten'
export type RestoreHook = (step: RestoreStep) => void

export interface RestoreWork {
  readonly place: Place
  /** Exact bytes of the path that `place` was opened by. */
  readonly path: Buffer
  readonly commandId: string
  readonly manifest: Manifest
  readonly vault: Vault
  readonly calls: AttributeCalls
  readonly step: RestoreHook
}

export type Restored =
  | { readonly kind: 'restored'; readonly device: string; readonly inode: string }
  | { readonly kind: 'nameTaken' }
  | { readonly kind: 'damaged'; readonly reason: string }
  | { readonly kind: 'aborted' }
  | FileProblem

export async function restoreInto(work: RestoreWork, signal: AbortSignal): Promise<Restored> {
  const { place, commandId, step } = work
  const folder = await makePrivateFolder(place, commandId)
  if (folder.kind === 'problem') return folder
  await using directory = folder.directory
  step('privateFolder')
  try {
    return await restoreThrough(directory, work, signal)
  } finally {
    await removePrivate(place, directory, commandId)
    await syncDirectory(place.directory)
    step('unlinked')
  }
}

async function restoreThrough(
  directory: FileHandle,
  work: RestoreWork,
  signal: AbortSignal,
): Promise<Restored> {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW
  await using file = await open(entryPath(directory, RESTORED), flags, 0o600)
  try {
    const damage = await writeWhole(file, work, signal)
    if (damage !== null) return { kind: 'damaged', reason: damage }
    work.step('written')
    await dress(file, work)
  } catch (error) {
    if (signal.aborted) return { kind: 'aborted' }
    return problem('failed', `the file could not be made as it was: ${messageOf(error)}`)
  }
  work.step('dressed')
  if (!(await leadsTo(work.path, work.place))) {
    return problem('moved', 'the folder was moved or exchanged while the file was being restored')
  }
  const named = await giveName(directory, work)
  if (named.kind !== 'named') return named
  work.step('placed')
  const { dev, ino } = fstatSync(file.fd, { bigint: true })
  return { kind: 'restored', device: `${dev}`, inode: `${ino}` }
}

/** Null, or how the vault's copy is not what was taken. Nothing is believed before its end was authenticated. */
async function writeWhole(
  file: FileHandle,
  { vault, manifest, step }: RestoreWork,
  signal: AbortSignal,
): Promise<string | null> {
  const hash = createHash('sha256')
  let bytes = 0
  const chunks = vault.readVault(manifest.id)
  try {
    for (;;) {
      signal.throwIfAborted()
      // Errors of reading are damage; those of writing are the caller's.
      const next = await chunks.next().catch(errorCode)
      if (typeof next === 'string') return next
      if (next.done) break
      hash.update(next.value)
      await file.writeFile(next.value)
      if (bytes === 0) step('halfWritten')
      bytes += next.value.length
    }
  } finally {
    // Closes the vault's file when the end was not reached.
    await chunks.return(undefined)
  }
  const same = hash.digest('hex') === manifest.sha256 && bytes === manifest.sizeBytes
  return same ? null : 'the content is not the one that was taken'
}

/** A change of owner takes away setuid and capabilities, and an access list changes the mode: so in this order. */
async function dress(file: FileHandle, { manifest, calls }: RestoreWork): Promise<void> {
  const now = fstatSync(file.fd)
  if (now.uid !== manifest.userId || now.gid !== manifest.groupId) {
    await file.chown(manifest.userId, manifest.groupId)
  }
  if (manifest.extendedAttributes !== 'notRead') {
    writeAttributes(calls, file.fd, manifest.extendedAttributes)
  }
  await file.chmod(manifest.mode & PERMISSION_BITS)
  calls.setTimes(file.fd, BigInt(manifest.accessedNs), BigInt(manifest.modifiedNs))
  await file.sync()
}

/** Whether the path still leads into this very directory. */
async function leadsTo(path: Buffer, place: Place): Promise<boolean> {
  const again = await openPlace(path)
  if (again.kind === 'problem') return false
  await using _again = again
  const [was, is] = [place, again].map(({ directory }) => fstatSync(directory.fd, { bigint: true }))
  return was?.ino === is?.ino && was?.dev === is?.dev
}

async function giveName(
  directory: FileHandle,
  { place, calls }: RestoreWork,
): Promise<{ readonly kind: 'named' } | { readonly kind: 'nameTaken' } | FileProblem> {
  try {
    await link(entryPath(directory, RESTORED), entryPath(place.directory, place.name))
    return { kind: 'named' }
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return { kind: 'nameTaken' }
    if (!NO_LINKS.has(errorCode(error)))
      return problem('failed', `no name could be given: ${messageOf(error)}`)
  }
  try {
    calls.renameNew(directory.fd, RESTORED, place.directory.fd, place.name)
    return { kind: 'named' }
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return { kind: 'nameTaken' }
    return problem('failed', `no name could be given: ${messageOf(error)}`)
  }
}

/** Ends what a killed run of this command left beside the file's place. The file's own name is not touched. */
export async function clearPrivate(place: Place, commandId: string): Promise<void> {
  const folder = await openDirectory(place.directory, privateName(commandId))
  if (folder.kind === 'problem') return
  await using directory = folder.directory
  if (isPrivate(directory)) await removePrivate(place, directory, commandId)
}

async function removePrivate(place: Place, directory: FileHandle, commandId: string): Promise<void> {
  await unlink(entryPath(directory, RESTORED)).catch(() => undefined)
  await rmdir(entryPath(place.directory, privateName(commandId))).catch(() => undefined)
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
