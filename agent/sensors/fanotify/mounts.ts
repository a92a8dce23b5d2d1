/**
 * Which file systems to watch: one mount point for each, from /proc/self/mountinfo (proc(5)). File systems of the
 * kernel's own, which hold no files that somebody put there, are left out.
 */

const kernelFilesystems: ReadonlySet<string> = new Set([
  ...['proc', 'sysfs', 'cgroup', 'cgroup2', 'devpts', 'bpf', 'tracefs', 'debugfs', 'securityfs', 'mqueue'],
  ...[
    'hugetlbfs',
    'pstore',
    'configfs',
    'fusectl',
    'binfmt_misc',
    'autofs',
    'efivarfs',
    'nsfs',
    'rpc_pipefs',
  ],
  ...['selinuxfs', 'ramfs', 'sockfs', 'pipefs', 'anon_inodefs', 'devtmpfs', 'nfsd', 'resctrl'],
])

/** Served by somebody who may not answer: even asking for their size can take for ever. */
const servedFilesystems: ReadonlySet<string> = new Set([
  ...['nfs', 'nfs4', 'cifs', 'smb3', 'ceph', 'afs', '9p', 'lustre', 'fuse', 'ocfs2', 'gfs2'],
])

export function isServed({ type }: MountedFilesystem): boolean {
  return servedFilesystems.has(type) || type.startsWith('fuse.')
}

const mountPointsMax = 512
const parsedMountsMax = 8_192

export interface MountedFilesystem {
  /** `major:minor` */
  readonly device: string
  /** The folder inside the file system that is mounted: `/` unless it is a bind mount. */
  readonly root: string
  readonly mountPoint: string
  readonly type: string
  /** Options of the file system, as they stand there. */
  readonly options: string
}

/** Mount points, one for each file system, in the order of mounting and bounded in number. */
export function selectMountPoints(mountinfo: string): string[] {
  return [...selectMounts(parseMounts(mountinfo)).values()]
    .slice(0, mountPointsMax)
    .map((mounted) => mounted.mountPoint)
}

/** The mount that each file system is best seen through, by device. */
export function selectMounts(mounts: readonly MountedFilesystem[]): Map<string, MountedFilesystem> {
  const chosen = new Map<string, MountedFilesystem>()
  for (const mounted of mounts) {
    const earlier = chosen.get(mounted.device)
    // Paths come out below the mount point, so a mount of the whole file system beats one of a part.
    if (earlier === undefined || (earlier.root !== '/' && mounted.root === '/'))
      chosen.set(mounted.device, mounted)
  }
  return chosen
}

/** All mounts of file systems that somebody puts files into, bounded in number. */
export function parseMounts(mountinfo: string): MountedFilesystem[] {
  const mounts: MountedFilesystem[] = []
  for (const line of mountinfo.split('\n')) {
    const mounted = parseLine(line)
    if (mounted === undefined || kernelFilesystems.has(mounted.type)) continue
    if (mounts.push(mounted) === parsedMountsMax) break
  }
  return mounts
}

/** `36 35 98:0 /root /mount options optional... - type source super-options` */
function parseLine(line: string): MountedFilesystem | undefined {
  const fields = line.split(' ')
  const separator = fields.indexOf('-', 6)
  const [, , device, root, mountPoint] = fields
  const type = fields[separator + 1]
  if (separator === -1 || !device || !root || !mountPoint?.startsWith('/') || !type) return undefined
  const options = fields[separator + 3] ?? ''
  return { device, root: unescapeOctal(root), mountPoint: unescapeOctal(mountPoint), type, options }
}

/** The folder that an overlay file system writes to, as whoever mounted it named it; null when it has none. */
export function upperDirectory(mounted: MountedFilesystem): string | null {
  if (mounted.type !== 'overlay') return null
  // A comma inside a path is escaped with a backslash, which itself is written as three octal digits.
  const option = mounted.options
    .split(/(?<!\\134),/)
    .find((each) => each.startsWith('upperdir='))
    ?.slice('upperdir='.length)
  if (option === undefined) return null
  const path = unescapeOctal(option).replace(/\\(.)/gs, '$1')
  return path.startsWith('/') ? path : null
}

/** Space, tab, newline and backslash are written as three octal digits. */
function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)))
}
