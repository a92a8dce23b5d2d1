/**
 * Processes as the sensors want them, read from /proc (proc(5)). Everything is best effort: a process may be gone
 * at any instant.
 */
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, readSync, statSync } from 'node:fs'
import { kernelText, splitArguments } from '../../native/kernel-bytes.ts'
import type { FileIdentity, KernelText, ProcessKey } from '../../sensors/records.ts'
import { readStat } from './processes.ts'

export interface ProcessSnapshot {
  readonly process: ProcessKey
  readonly parentPid: number
  readonly sessionId: number
  readonly userId: number
  readonly groupId: number
  /** Null for kernel threads and processes whose executable may not be read. */
  readonly executable: KernelText | null
  readonly arguments: readonly KernelText[]
  readonly argumentsTruncated: boolean
  readonly workingDirectory: KernelText | null
  readonly file: FileIdentity | null
  /** Path in the hierarchy that containers are told apart by: that of cgroup v2, or v1's of process numbers. */
  readonly cgroup: string
}

/** Bytes of /proc/PID/cmdline that are read at most. */
const ARGUMENT_BYTES_MAX = 16 * 1024

export function readProcess(pid: number): ProcessSnapshot | null {
  const stat = readStat(pid)
  if (stat === null) return null
  const owner = readOwner(pid)
  const [argumentsRead, argumentsTruncated] = readArguments(pid)
  return {
    process: { pid, startTicks: stat.startTicks },
    parentPid: stat.parentPid,
    sessionId: stat.sessionId,
    userId: owner.userId,
    groupId: owner.groupId,
    executable: readLinkText(`/proc/${pid}/exe`),
    arguments: argumentsRead,
    argumentsTruncated,
    workingDirectory: readLinkText(`/proc/${pid}/cwd`),
    file: readIdentity(`/proc/${pid}/exe`),
    cgroup: readCgroup(pid),
  }
}

/** Pids of all processes that can be seen, in no order. */
export function listPids(): number[] {
  const pids: number[] = []
  for (const name of readdirSync('/proc')) {
    const pid = Number(name)
    if (Number.isInteger(pid)) pids.push(pid)
  }
  return pids
}

/** The processes that hold this file open, by device and inode; only those whose descriptors may be read. */
export function findHolders(path: string, pidsMax: number): number[] {
  let wanted: { dev: bigint; ino: bigint }
  try {
    wanted = statSync(path, { bigint: true })
  } catch {
    return []
  }
  const holders: number[] = []
  for (const pid of listPids()) {
    if (holders.length >= pidsMax) break
    if (holdsOpen(pid, wanted)) holders.push(pid)
  }
  return holders
}

function holdsOpen(pid: number, wanted: { dev: bigint; ino: bigint }): boolean {
  let descriptors: string[]
  try {
    descriptors = readdirSync(`/proc/${pid}/fd`)
  } catch {
    return false
  }
  return descriptors.some((descriptor) => {
    try {
      const open = statSync(`/proc/${pid}/fd/${descriptor}`, { bigint: true })
      return open.ino === wanted.ino && open.dev === wanted.dev
    } catch {
      return false
    }
  })
}

function readLinkText(path: string): KernelText | null {
  try {
    return kernelText(readlinkSync(path, 'buffer'))
  } catch {
    return null
  }
}

function readIdentity(path: string): FileIdentity | null {
  try {
    const stat = statSync(path, { bigint: true })
    return {
      device: Number(stat.dev),
      inode: Number(stat.ino),
      sizeBytes: Number(stat.size),
      changedNs: stat.ctimeNs,
    }
  } catch {
    return null
  }
}

/** cgroups(7): `0::/path` is version 2; a host that uses version 1 leaves that at the root. */
function readCgroup(pid: number): string {
  try {
    const text = readFileSync(`/proc/${pid}/cgroup`, 'utf8')
    const unified = /^0::(.*)$/m.exec(text)?.[1] ?? '/'
    return unified === '/' ? (/^\d+:(?:[^:]*,)?pids(?:,[^:]*)?:(.*)$/m.exec(text)?.[1] ?? '/') : unified
  } catch {
    return '/'
  }
}

/** The host's pid of the process that `callerPid` sees as `pid` in its pid namespace (proc(5), NSpid). */
export function translatePid(callerPid: number, pid: number): number | null {
  try {
    const namespace = readlinkSync(`/proc/${callerPid}/ns/pid`)
    for (const candidate of listPids()) {
      const status = tryRead(`/proc/${candidate}/status`)
      const inner = /^NSpid:\t(?:\d+\t)*(\d+)$/m.exec(status)?.[1]
      if (Number(inner) === pid && readlinkSync(`/proc/${candidate}/ns/pid`) === namespace) return candidate
    }
  } catch {
    // The caller, or whom it named, is gone.
  }
  return null
}

function tryRead(path: string): string {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return ''
  }
}

function readOwner(pid: number): { userId: number; groupId: number } {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'latin1')
    return {
      userId: Number(/^Uid:\t(\d+)/m.exec(status)?.[1] ?? 0),
      groupId: Number(/^Gid:\t(\d+)/m.exec(status)?.[1] ?? 0),
    }
  } catch {
    return { userId: 0, groupId: 0 }
  }
}

function readArguments(pid: number): [KernelText[], boolean] {
  let descriptor: number
  try {
    descriptor = openSync(`/proc/${pid}/cmdline`, 'r')
  } catch {
    return [[], false]
  }
  try {
    const buffer = Buffer.allocUnsafe(ARGUMENT_BYTES_MAX)
    const bytes = readSync(descriptor, buffer, 0, buffer.length, 0)
    return [splitArguments(buffer.subarray(0, bytes)), bytes === buffer.length]
  } catch {
    return [[], false]
  } finally {
    closeSync(descriptor)
  }
}
