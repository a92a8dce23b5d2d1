/** Which file systems are marked and which refused, kept in step with what is mounted. */
import type { GroupHandle, NativeAddon } from '../../native/addon.ts'

export interface MarkTarget {
  readonly mountPoint: string
  /** `/`, or what leads to another mount namespace's root. */
  readonly root: string
  /** Why it is not even tried; it is listed as refused. */
  readonly refusedBecause?: string
}

export interface RefusedMount {
  readonly mountPoint: string
  /** What the kernel said, such as `fanotify_mark: Operation not supported (EOPNOTSUPP)`. */
  readonly reason: string
}

export function createMarks(native: NativeAddon) {
  const watched = new Set<string>()
  const refused = new Map<string, string>()

  const mark = (handle: GroupHandle, { mountPoint, root }: MarkTarget) => {
    try {
      native.fanotifyMark(handle, mountPoint, root)
      watched.add(mountPoint)
      refused.delete(mountPoint)
    } catch (error) {
      watched.delete(mountPoint)
      refused.set(mountPoint, error instanceof Error ? error.message : String(error))
    }
  }
  return {
    watched: () => [...watched],
    refused: () => [...refused].map(([mountPoint, reason]) => ({ mountPoint, reason })),
    /** Marks all again: where another file system is mounted by now, the mark goes to that one. */
    update(handle: GroupHandle, targets: readonly MarkTarget[]) {
      const present = new Set(targets.map(({ mountPoint }) => mountPoint))
      for (const mountPoint of [...watched, ...refused.keys()]) {
        if (present.has(mountPoint)) continue
        native.fanotifyForget(handle, mountPoint)
        watched.delete(mountPoint)
        refused.delete(mountPoint)
      }
      for (const target of targets) {
        if (target.refusedBecause === undefined) mark(handle, target)
        else refused.set(target.mountPoint, target.refusedBecause)
      }
    },
    clear() {
      watched.clear()
      refused.clear()
    },
  }
}
