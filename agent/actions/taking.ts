/**
 * Takes a file out of its place so that nobody can exchange it meanwhile: the entry is renamed, within its
 * directory, into a folder that only the agent may enter, and only then compared with the inode that was
 * meant. What turns out to be something else is put back without ever overwriting what came there since.
 * At any instant the file has a name: its own, one in the private folder, or (after `discard`) one in the
 * vault. The private folder's name follows from the command, so that a restart finds it.
 */
import { type BigIntStats, fstatSync } from 'node:fs'
import { type FileHandle, link, lstat, mkdir, rename, rmdir, unlink } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  entryPath,
  type FileProblem,
  holdEntry,
  openDirectory,
  type Place,
  problem,
  syncDirectory,
  toProblem,
} from '../platform/linux/files.ts'

const TAKEN = Buffer.from('taken')
/** An attacker may exchange the entry in a loop; each round has a fair chance to catch the right one. */
const ROUNDS_MAX = 200

/** Instants at which tests kill the agent. */
export type TakingStep = 'privateFolder' | 'taken' | 'contentWritten' | 'stored' | 'unlinked' | 'done'
export type StepHook = (step: TakingStep) => void

export interface Taken extends AsyncDisposable {
  readonly kind: 'taken'
  readonly place: Place
  readonly id: string
  readonly privateFolder: FileHandle
}

export interface Inode {
  readonly device: bigint
  readonly inode: bigint
}

const sameInode = (stat: BigIntStats, inode: Inode) => stat.ino === inode.inode && stat.dev === inode.device
/** The private folder of a command, beside the file that it is about. */
export const privateName = (id: string) => Buffer.from(`.cordon-${id}`)
/** Where a file waits whose own name was occupied when it was put back. */
const keptName = (id: string, index: number) =>
  Buffer.from(`cordon-kept-${id}${index === 0 ? '' : `-${index}`}`)
/** Wrong entries that may end up under such a name before the attacker is left to win. */
const KEPT_MAX = 16

/** Moves the entry of `place` that is `inode` into the private folder. On a problem nothing stays moved. */
export async function takeEntry(
  place: Place,
  inode: Inode,
  id: string,
  step: StepHook,
  signal: AbortSignal,
): Promise<Taken | FileProblem> {
  const folder = await makePrivateFolder(place, id)
  if (folder.kind === 'problem') return folder
  step('privateFolder')
  const taken = takenIn(place, id, folder.directory)
  for (let round = 0; round < ROUNDS_MAX && !signal.aborted; round += 1) {
    if (round > 0) await sleep(1)
    // Looked at first, so that other entries are moved as seldom as can be.
    const seen = await lstat(entryPath(place.directory, place.name), { bigint: true }).catch(() => null)
    if (!seen || !sameInode(seen, inode)) continue
    try {
      await rename(entryPath(place.directory, place.name), entryPath(folder.directory, TAKEN))
    } catch (error) {
      const why = toProblem(error, 'the file')
      if (why.code === 'notFound') continue
      await abandon(taken)
      return problem(why.code, `the file could not be moved: ${why.reason}`)
    }
    step('taken')
    if (await holds(taken, inode)) return taken
    // The folder must be empty before the next move, which would overwrite what is in it.
    if ((await putBack(taken)).kind === 'stuck') break
  }
  await abandon(taken)
  return problem('moved', 'the file was moved or exchanged while it was being taken')
}

/** True when the private folder holds this inode. */
async function holds(taken: Taken, inode: Inode): Promise<boolean> {
  const held = await holdEntry(taken.privateFolder, TAKEN)
  if (held.kind === 'problem') return false
  await held.entry.close()
  return sameInode(held.stat, inode)
}

export type PutBack =
  | { readonly kind: 'put'; readonly name: Buffer }
  | { readonly kind: 'empty' }
  /** Every name was occupied: it stays in the private folder. */
  | { readonly kind: 'stuck' }

/** Gives the entry its name back, or another one beside it when its own was occupied since. */
export async function putBack(taken: Taken): Promise<PutBack> {
  const { place, privateFolder } = taken
  const from = entryPath(privateFolder, TAKEN)
  const stat = await lstat(from, { bigint: true }).catch(() => null)
  if (!stat) return { kind: 'empty' }
  const others = Array.from({ length: KEPT_MAX }, (_, index) => keptName(taken.id, index))
  for (const name of [place.name, ...others]) {
    const to = entryPath(place.directory, name)
    const there = await lstat(to, { bigint: true }).catch(() => null)
    // A crash between link and unlink of an earlier attempt: it has its name back already.
    const linked = there?.ino === stat.ino && there.dev === stat.dev
    if (there && !linked) continue
    if (linked || (await linkNew(from, to, stat))) {
      await unlink(from).catch(() => undefined)
      await syncDirectory(place.directory)
      return { kind: 'put', name }
    }
  }
  return { kind: 'stuck' }
}

/** Adds a name without overwriting. Directories, and file systems without links, can only be renamed. */
async function linkNew(from: Buffer, to: Buffer, stat: BigIntStats): Promise<boolean> {
  try {
    if (!stat.isDirectory()) await link(from, to)
    else await rename(from, to)
    return true
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    if (code === 'EEXIST' || code === 'ENOTEMPTY' || code === 'ENOTDIR') return false
    const free = (await lstat(to).catch(() => null)) === null
    if (!free || !['EPERM', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'].includes(code ?? '')) throw error
    await rename(from, to)
    return true
  }
}

/** Removes the taken entry for good: its content is in the vault. */
export async function discard(taken: Taken, step: StepHook): Promise<void> {
  await unlink(entryPath(taken.privateFolder, TAKEN))
  step('unlinked')
  await leave(taken)
  await syncDirectory(taken.place.directory)
}

/** Removes the empty private folder; one that is not empty, or was moved away, stays. */
export async function leave(taken: Taken): Promise<void> {
  await rmdir(entryPath(taken.place.directory, privateName(taken.id))).catch(() => undefined)
}

async function abandon(taken: Taken): Promise<void> {
  await leave(taken)
  await taken.privateFolder.close()
}

/** What an earlier run of this command left behind in the private folder, or null. */
export async function findTaken(place: Place, id: string): Promise<(Taken & { inode: Inode | null }) | null> {
  const folder = await openDirectory(place.directory, privateName(id))
  if (folder.kind === 'problem') return null
  if (!isPrivate(folder.directory)) {
    await folder.directory.close()
    return null
  }
  const taken = takenIn(place, id, folder.directory)
  const held = await holdEntry(folder.directory, TAKEN)
  if (held.kind === 'problem') return { ...taken, inode: null }
  await held.entry.close()
  return { ...taken, inode: { device: held.stat.dev, inode: held.stat.ino } }
}

function takenIn(place: Place, id: string, privateFolder: FileHandle): Taken {
  return { kind: 'taken', place, id, privateFolder, [Symbol.asyncDispose]: () => privateFolder.close() }
}

export async function makePrivateFolder(
  place: Place,
  id: string,
): Promise<{ readonly kind: 'directory'; readonly directory: FileHandle } | FileProblem> {
  try {
    await mkdir(entryPath(place.directory, privateName(id)), 0o700)
  } catch (error) {
    return toProblem(error, "a private folder in the file's directory")
  }
  const folder = await openDirectory(place.directory, privateName(id))
  if (folder.kind === 'problem') return folder
  if (isPrivate(folder.directory)) return folder
  await folder.directory.close()
  return problem('failed', 'the private folder was exchanged by somebody else')
}

/** Ours, and closed to everybody else: who may rename it still cannot reach into it. */
export function isPrivate(folder: FileHandle): boolean {
  const stat = fstatSync(folder.fd)
  return stat.isDirectory() && stat.uid === process.geteuid?.() && (stat.mode & 0o077) === 0
}
