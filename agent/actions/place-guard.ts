/** Places whose files no action takes, brings back or copies: the kernel's, the agent's own, and those outside a test root. */
import { realpathSync } from 'node:fs'
import { statfs } from 'node:fs/promises'
import { type FileProblem, liesIn, type Place, problem } from '../platform/linux/files.ts'
import type { Interlock } from './interlock.ts'

const KERNEL_FOLDERS = ['/proc', '/sys', '/dev'].map((path) => Buffer.from(path))
/** A folder of ordinary files that anyone may write, whatever its name. */
const SHARED_MEMORY = Buffer.from('/dev/shm')
/** Magic numbers of file systems without files of their own (statfs(2)): proc, sysfs, cgroup, cgroup2, debugfs,
 * tracefs, securityfs, bpf, configfs, devpts. They may be mounted anywhere. */
const KERNEL_FILE_SYSTEMS: ReadonlySet<number> = new Set([
  0x9fa0, 0x62656572, 0x27e0eb, 0x63677270, 0x64626720, 0x74726163, 0x73636673, 0xcafe4a11, 0x62656570,
  0x1cd1,
])

export interface PlaceGuardOptions {
  readonly interlock: Interlock
  /** State and program of the agent: never touched. */
  readonly ownFolders: readonly string[]
}

/** Why nothing is done in this place, or null. */
export type PlaceGuard = (place: Place) => Promise<FileProblem | null>

export function createPlaceGuard(options: PlaceGuardOptions): PlaceGuard {
  const ownFolders = options.ownFolders.map(realFolder)
  return async (place) => {
    const real = Buffer.concat([place.realDirectory, Buffer.from('/'), place.name])
    const inKernel = KERNEL_FOLDERS.some((folder) => liesIn(real, folder)) && !liesIn(real, SHARED_MEMORY)
    const { type } = await statfs(`/proc/self/fd/${place.directory.fd}`)
    if (inKernel || KERNEL_FILE_SYSTEMS.has(type)) {
      return problem('denied', 'the path belongs to the kernel (/proc, /sys, /dev), where no files are taken')
    }
    if (ownFolders.some((folder) => liesIn(real, folder))) {
      return problem('denied', "the path belongs to the agent's own folders")
    }
    const permission = options.interlock.permitsFile(real)
    return permission.ok ? null : problem('denied', permission.reason)
  }
}

function realFolder(folder: string): Buffer {
  try {
    return realpathSync(folder, 'buffer')
  } catch {
    return Buffer.from(folder)
  }
}
