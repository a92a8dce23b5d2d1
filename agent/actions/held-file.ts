/**
 * Takes hold of a file that a command names, when all but its content is as signed: the path without links,
 * the inode, the kind, the size, and a place that the agent may touch.
 */
import type { BigIntStats } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { pause } from '../../shared/node/loop.ts'
import type { FileTarget } from '../../shared/protocol/commands.ts'
import {
  type FileProblem,
  holdEntry,
  notRegular,
  openHeld,
  openPlace,
  type Place,
  problem,
} from '../platform/linux/files.ts'
import type { Interlock } from './interlock.ts'
import { createPlaceGuard } from './place-guard.ts'
import type { Vault } from './vault.ts'

export interface FileHolderOptions {
  readonly vault: Vault
  readonly interlock: Interlock
  /** State and program of the agent, besides the vault: never touched. */
  readonly ownFolders: readonly string[]
}

export interface FileHolder {
  /**
   * Looks several times before it believes that the path leads elsewhere or nowhere, unless `enough` says
   * that this is no surprise.
   */
  hold(target: FileTarget, enough: () => boolean, signal: AbortSignal): Promise<Held | FileProblem>
}

/** Looks at a path that leads elsewhere or nowhere, some milliseconds apart, before that is believed. */
const LOOKS_MAX = 30
const COMES_AND_GOES: ReadonlySet<FileProblem['code']> = new Set([
  'symlink',
  'notFound',
  'otherFile',
  'notDirectory',
])
/** The target, held: the place it is in, the inode, and what was checked of both. */
export interface Held extends AsyncDisposable {
  readonly kind: 'held'
  readonly place: Place
  readonly stat: BigIntStats
  readonly content: FileHandle
}

export function createFileHolder(options: FileHolderOptions): FileHolder {
  const { vault } = options
  const refusedPlace = createPlaceGuard({
    interlock: options.interlock,
    ownFolders: [...options.ownFolders, vault.folder],
  })

  async function holdNow(target: FileTarget): Promise<Held | FileProblem> {
    const path = exactPath(target)
    if (!path) return problem('badPath', 'the exact bytes of the path are not those of its text')
    await using stack = new AsyncDisposableStack()
    const place = await openPlace(path)
    if (place.kind === 'problem') return place
    stack.use(place)
    const refusal = await refusedPlace(place)
    if (refusal) return refusal
    const held = await holdEntry(place.directory, place.name)
    if (held.kind === 'problem') return held
    stack.use(held.entry)
    const { stat } = held
    const irregular = notRegular(stat)
    if (irregular) return irregular
    if (
      (target.device ?? `${stat.dev}`) !== `${stat.dev}` ||
      (target.inode ?? `${stat.ino}`) !== `${stat.ino}`
    ) {
      return problem('otherFile', `another file (inode ${stat.ino}) has the path now than the one signed for`)
    }
    const tooLarge = vault.refuses(Number(stat.size))
    if (tooLarge) return problem('denied', tooLarge)
    const content = await openHeld(held.entry)
    if ('kind' in content) return content
    stack.use(content)
    const keep = stack.move()
    return { kind: 'held', place, stat, content, [Symbol.asyncDispose]: () => keep.disposeAsync() }
  }

  return {
    // An attacker who exchanges names in a loop must not get away by being out just when one look falls.
    async hold(target, enough, signal) {
      for (let look = 1; ; look += 1) {
        const result = await holdNow(target)
        if (result.kind === 'held' || !COMES_AND_GOES.has(result.code)) return result
        if (look === LOOKS_MAX || signal.aborted || enough()) return result
        await pause(1, signal)
      }
    },
  }
}

/** The bytes that were signed for; null when bytes and text are not two forms of one path. */
export function exactPath(target: Pick<FileTarget, 'path' | 'pathBytes'>): Buffer | null {
  if (target.pathBytes === null) return Buffer.from(target.path)
  const bytes = Buffer.from(target.pathBytes, 'base64')
  // The operator read the text: other bytes than it shows must not hide behind it.
  return bytes.toString('utf8') === target.path ? bytes : null
}
