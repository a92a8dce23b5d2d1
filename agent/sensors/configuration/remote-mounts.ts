/**
 * Mount points whose server may not answer, from /proc/self/mountinfo (proc(5)). Reading below them can block for
 * good, and below an automounter it mounts; so the watch looks at nothing there.
 */

const REMOTE_TYPES =
  /^(?:nfs4?|cifs|smb3?|smbfs|afs|ceph|glusterfs|lustre|9p|autofs|ncpfs|ocfs2|gfs2|orangefs|beegfs|fuse\..*|fuse)$/
const MOUNT_POINTS_MAX = 1_024

export function remoteMountPoints(mountinfo: string): string[] {
  const points: string[] = []
  for (const line of mountinfo.split('\n')) {
    // id, parent, device, root, mount point, options, optional fields, "-", type, source, options
    const [place, source] = line.split(' - ')
    const mountPoint = place?.split(' ')[4]
    const type = source?.split(' ')[0] ?? ''
    if (mountPoint === undefined || mountPoint === '/' || !REMOTE_TYPES.test(type)) continue
    if (points.length >= MOUNT_POINTS_MAX) break
    points.push(
      mountPoint.replace(/\\([0-7]{3})/g, (_, octal: string) =>
        String.fromCharCode(Number.parseInt(octal, 8)),
      ),
    )
  }
  return points
}
