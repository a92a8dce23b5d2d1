/** Facts about the host that name it or its boot. */
import { closeSync, constants, openSync, readFileSync, readlinkSync, readSync } from 'node:fs'

/** The kernel's id of this boot (proc(5), random/boot_id). */
export function readBootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
}

/** The network namespace of this process, such as `net:[4026531840]`. */
export function readNetworkNamespace(): string {
  return readlinkSync('/proc/self/ns/net')
}

/**
 * Inodes of the namespaces of the host's first process, by the names of /proc/PID/ns; where that may not be read,
 * those of this one, which runs beside it.
 */
export function readHostNamespaces(): Readonly<Record<string, number>> {
  const inodes: Record<string, number> = {}
  for (const name of ['mnt', 'pid', 'net', 'uts', 'ipc', 'cgroup', 'user', 'time']) {
    for (const pid of ['1', 'self']) {
      const inode = namespaceInode(`/proc/${pid}/ns/${name}`)
      if (inode === null) continue
      inodes[name] = inode
      break
    }
  }
  return inodes
}

function namespaceInode(path: string): number | null {
  try {
    return Number(/\[(\d+)\]$/.exec(readlinkSync(path))?.[1])
  } catch {
    return null
  }
}

const SETTING_BYTES_MAX = 256

/** The beginning of a setting of the kernel (a file below /proc/sys), without the line's end; null: not readable. */
export function readSetting(path: string): string | null {
  if (!path.startsWith('/proc/sys/') || path.includes('/../')) return null
  let descriptor: number
  try {
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW)
  } catch {
    return null
  }
  try {
    const buffer = Buffer.alloc(SETTING_BYTES_MAX)
    return buffer.toString('utf8', 0, readSync(descriptor, buffer)).trimEnd()
  } catch {
    return null
  } finally {
    closeSync(descriptor)
  }
}

/** The number of the kernel's event source for probes in programs; null: it has none. */
export function readUprobeType(): number | null {
  try {
    const type = Number(readFileSync('/sys/bus/event_source/devices/uprobe/type', 'latin1'))
    return Number.isInteger(type) ? type : null
  } catch {
    return null
  }
}

/** Where cgroup v2 is mounted: by itself, or beside v1. Null: nowhere. */
export function findUnifiedCgroup(mountinfo = readFileSync('/proc/self/mountinfo', 'utf8')): string | null {
  for (const line of mountinfo.split('\n')) {
    const fields = line.split(' ')
    const separator = fields.indexOf('-', 6)
    if (fields[separator + 1] === 'cgroup2' && fields[3] === '/') return fields[4] ?? null
  }
  return null
}

/** When the host booted, milliseconds since 1970, by its present clock. */
export function readBootTimeMs(): number {
  const uptimeS = Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0])
  return Date.now() - uptimeS * 1_000
}

/** Milliseconds since boot, with the time asleep (CLOCK_BOOTTIME); setting the time of day changes nothing in it. */
export function readUptimeMs(): number {
  return Math.round(Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]) * 1_000)
}

/** True when systemd runs this process as one of the agent's units: the kernel's word, not a setting's. */
export function runsAsService(): boolean {
  return /\/cordon-agent(-isolation)?\.service$/m.test(readFileSync('/proc/self/cgroup', 'utf8'))
}

/** Names of users by id from passwd(5), read again when the file changes by way of `refresh`. */
export function readUserNames(path = '/etc/passwd'): ReadonlyMap<number, string> {
  const names = new Map<number, string>()
  try {
    for (const line of readFileSync(path, 'utf8').split('\n')) {
      const [name, , id] = line.split(':')
      // The first entry of an id wins, as in getpwuid(3).
      if (name && id && !names.has(Number(id))) names.set(Number(id), name)
    }
  } catch {
    // No passwd file: ids are told without names.
  }
  return names
}
