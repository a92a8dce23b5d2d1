/** Facts about the host that name it or its boot. */
import { readFileSync, readlinkSync } from 'node:fs'

/** The kernel's id of this boot (proc(5), random/boot_id). */
export function readBootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
}

/** The network namespace of this process, such as `net:[4026531840]`. */
export function readNetworkNamespace(): string {
  return readlinkSync('/proc/self/ns/net')
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
