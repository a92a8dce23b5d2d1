/** What mount tables of several namespaces say together: file systems to watch, and folders of containers. */
import { statSync } from 'node:fs'
import type { ContainerFolder } from './container-paths.ts'
import type { MarkTarget } from './marks.ts'
import { isServed, type MountedFilesystem, selectMounts, upperDirectory } from './mounts.ts'

export interface MountNamespace {
  /** Of /proc/PID/ns/mnt: what the namespace is told apart by. */
  readonly inode: number
  /** A process in it. */
  readonly pid: number
  /** That process has the namespace's root as its own, so that its paths are those that the kernel tells. */
  readonly seesRoot: boolean
  readonly table: string
  readonly mounts: readonly MountedFilesystem[]
}

/** `mountPoint` as the agent reaches it, `/proc/PID/root/...`, and `root` the beginning of that. */
export type ForeignMount = MarkTarget

/** Where the paths of a file system begin in events. */
interface View {
  readonly root: string
  readonly mounted: MountedFilesystem
}

const foreignMountsMax = 512
const servedReason = 'not tried: a server that does not answer would hold the agent up'

export function findForeignMounts(
  own: readonly MountedFilesystem[],
  namespaces: readonly MountNamespace[],
  procFolder: string,
): { readonly mounts: readonly ForeignMount[]; readonly folders: readonly ContainerFolder[] } {
  const views = new Map<string, View>()
  for (const [device, mounted] of selectMounts(own)) views.set(device, { root: '', mounted })
  const mounts: ForeignMount[] = []
  const folders: ContainerFolder[] = []
  // All that is no overlay first: an overlay's upper directory may lie in a file system of a later namespace.
  for (const namespace of namespaces) {
    if (!namespace.seesRoot) continue
    const root = `${procFolder}/${namespace.pid}/root`
    for (const [device, mounted] of selectMounts(namespace.mounts)) {
      if (views.has(device) || mounted.type === 'overlay' || mounts.length >= foreignMountsMax) continue
      views.set(device, { root, mounted })
      mounts.push({
        mountPoint: below(root, mounted.mountPoint),
        root,
        ...(isServed(mounted) ? { refusedBecause: servedReason } : {}),
      })
      folders.push(folderOf(namespace, below(root, mounted.mountPoint), mounted.mountPoint))
    }
  }
  for (const namespace of namespaces) {
    for (const mounted of namespace.mounts) {
      const prefix =
        mounted.type === 'overlay'
          ? upperPrefix(namespace, mounted, views, procFolder)
          : rootPrefix(mounted, views)
      if (prefix !== null) folders.push(folderOf(namespace, prefix, mounted.mountPoint))
      else if (mounted.type === 'overlay' && namespace.seesRoot && !views.has(mounted.device)) {
        // Nothing of it is seen elsewhere: what the kernel says of a mark on it is told by `status`.
        const root = `${procFolder}/${namespace.pid}/root`
        views.set(mounted.device, { root, mounted })
        if (mounts.length < foreignMountsMax)
          mounts.push({ mountPoint: below(root, mounted.mountPoint), root })
      }
    }
  }
  return { mounts, folders }
}

function folderOf({ inode }: MountNamespace, prefix: string, containerFolder: string): ContainerFolder {
  return { prefix, containerFolder, namespaceInode: inode }
}

/** The root of a container that is a plain folder of a file system that is watched; not the host's own root. */
function rootPrefix(mounted: MountedFilesystem, views: ReadonlyMap<string, View>): string | null {
  if (mounted.mountPoint !== '/') return null
  const prefix = eventPath(views.get(mounted.device), mounted.root)
  return prefix === '/' ? null : prefix
}

/** Where the upper directory of an overlay comes out in events; null when nobody can tell. */
function upperPrefix(
  namespace: MountNamespace,
  overlay: MountedFilesystem,
  views: ReadonlyMap<string, View>,
  procFolder: string,
): string | null {
  const upper = upperDirectory(overlay)
  if (upper === null) return null
  // The option says what the mounting process called it. A container's runtime mounts from the host's namespace,
  // and then the path does not exist inside; what exists inside was mounted from there.
  if (isFolder(`${procFolder}/${namespace.pid}/root${upper}`)) {
    const holder = longestMount(namespace.mounts, upper)
    const rest = holder === null ? '' : upper.slice(holder.mountPoint === '/' ? 0 : holder.mountPoint.length)
    const inside = holder === null ? null : below(holder.root === '/' ? '' : holder.root, rest)
    const prefix = holder === null || inside === null ? null : eventPath(views.get(holder.device), inside)
    if (prefix !== null) return prefix
  }
  return isFolder(upper) ? upper : null
}

/** Where a path inside a file system comes out in events; null when its mount does not hold it. */
function eventPath(view: View | undefined, insidePath: string): string | null {
  if (view === undefined) return null
  const { root, mounted } = view
  const rest = mounted.root === '/' ? insidePath : afterFolder(insidePath, mounted.root)
  if (rest === null) return null
  const path = below(root + (mounted.mountPoint === '/' ? '' : mounted.mountPoint), rest)
  return path === '' ? '/' : path
}

function afterFolder(path: string, folder: string): string | null {
  if (path === folder) return ''
  return path.startsWith(`${folder}/`) ? path.slice(folder.length) : null
}

function longestMount(mounts: readonly MountedFilesystem[], path: string): MountedFilesystem | null {
  let longest: MountedFilesystem | null = null
  for (const mounted of mounts) {
    const holds = mounted.mountPoint === '/' || afterFolder(path, mounted.mountPoint) !== null
    // Of those at one place, the last one covers the others.
    if (holds && mounted.mountPoint.length >= (longest?.mountPoint.length ?? 0)) longest = mounted
  }
  return longest
}

function below(folder: string, path: string): string {
  return path === '/' ? folder : folder + path
}

function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory()
  } catch {
    return false
  }
}
