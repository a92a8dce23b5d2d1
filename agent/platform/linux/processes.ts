/**
 * Processes as Linux shows them in /proc (proc(5)), and handles on them that a reused pid cannot fool.
 * Reading is synchronous on purpose: a look at one process is some ten microseconds, and what was read
 * together must not be torn apart by other work of the agent.
 */
import { createHash } from 'node:crypto'
import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
} from 'node:fs'
import { open } from 'node:fs/promises'
import { constants as os } from 'node:os'
import type { ProcessKey } from '../../sensors/records.ts'

/** One line of /proc/PID/stat, as far as it is used. */
export interface ProcessStat extends ProcessKey {
  /** As the process named itself, each byte one character. */
  readonly name: string
  /** One letter, such as `R`, `S`, `T` or `Z`. */
  readonly state: string
  readonly parentPid: number
  readonly sessionId: number
  readonly threads: number
  readonly kernelThread: boolean
  /** On its way out: it cannot fork any more, and its executable and folder are released already. */
  readonly exiting: boolean
}

/** What decides whether an action may touch a process. Read at the time of the action. */
export interface ProcessFacts extends ProcessStat {
  /** Path bytes of the running executable, null when there is none or it may not be read. */
  readonly executable: Buffer | null
  readonly workingDirectory: Buffer | null
  /** Cgroup paths over all hierarchies, as /proc/PID/cgroup tells them. */
  readonly cgroups: readonly string[]
  /** False when its paths are those of another mount namespace and so mean something else here. */
  readonly sameMounts: boolean
  /** Pids from the parent up to the first process. */
  readonly ancestors: readonly number[]
}

const STAT_BYTES_MAX = 4_096
const ANCESTORS_MAX = 256
/** PF_KTHREAD and PF_EXITING of linux/sched.h. */
const KERNEL_THREAD_FLAG = 0x0020_0000
const EXITING_FLAG = 0x4
const DELETED = Buffer.from(' (deleted)')

/**
 * Parses /proc/PID/stat. The name may hold spaces, parentheses and newlines, so fields are counted from the
 * last closing parenthesis, which no later field can hold. Null when the text is not such a line.
 */
export function parseStat(bytes: Uint8Array): ProcessStat | null {
  if (bytes.length > STAT_BYTES_MAX) return null
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')
  const nameStart = text.indexOf(' (')
  const nameEnd = text.lastIndexOf(') ')
  if (nameStart < 1 || nameEnd < nameStart + 2) return null
  // fields[0] is the state, field 3 of proc(5).
  const fields = text.slice(nameEnd + 2).split(' ', 20)
  const state = fields[0] ?? ''
  const pid = wholeNumber(text.slice(0, nameStart))
  const parentPid = wholeNumber(fields[1])
  const sessionId = wholeNumber(fields[3])
  const flags = wholeNumber(fields[6])
  const threads = wholeNumber(fields[17])
  const startTicks = wholeNumber(fields[19]?.trimEnd())
  if (pid === null || pid === 0 || parentPid === null || sessionId === null) return null
  if (flags === null || threads === null || startTicks === null || !/^[A-Za-z]$/.test(state)) return null
  const kernelThread = (flags & KERNEL_THREAD_FLAG) !== 0
  const exiting = (flags & EXITING_FLAG) !== 0 && threads <= 1
  const name = text.slice(nameStart + 2, nameEnd)
  return { pid, startTicks, name, state, parentPid, sessionId, threads, kernelThread, exiting }
}

function wholeNumber(text: string | undefined): number | null {
  if (text === undefined || text === '' || text.length > 16) return null
  let number = 0
  for (let index = 0; index < text.length; index += 1) {
    const digit = text.charCodeAt(index) - 48
    if (digit < 0 || digit > 9) return null
    number = number * 10 + digit
  }
  return Number.isSafeInteger(number) ? number : null
}

/** The process that has this pid now, or null when none has. */
export function readStat(pid: number): ProcessStat | null {
  return readStatInto(Buffer.allocUnsafe(STAT_BYTES_MAX), pid)
}

/** Every process that can be seen, by pid. Not one instant: what starts during the walk may be missing. */
export function listStats(): Map<number, ProcessStat> {
  return lookAtProcesses().stats
}

export interface ProcessLook {
  readonly stats: Map<number, ProcessStat>
  /** Pids that were listed and were gone before they could be read: whose child may not have been listed. */
  readonly vanished: readonly number[]
}

/** One walk through all processes, and what it cannot vouch for. */
export function lookAtProcesses(): ProcessLook {
  const stats = new Map<number, ProcessStat>()
  const vanished: number[] = []
  const buffer = Buffer.allocUnsafe(STAT_BYTES_MAX)
  for (const name of readdirSync('/proc')) {
    const pid = wholeNumber(name)
    if (pid === null) continue
    const stat = readStatInto(buffer, pid)
    if (stat) stats.set(pid, stat)
    else vanished.push(pid)
  }
  return { stats, vanished }
}

/** Half the cost of readFileSync, which asks for the size of a file that has none. */
function readStatInto(buffer: Buffer, pid: number): ProcessStat | null {
  return tryRead(() => {
    const descriptor = openSync(`/proc/${pid}/stat`, constants.O_RDONLY)
    try {
      return parseStat(buffer.subarray(0, readSync(descriptor, buffer, 0, buffer.length, null)))
    } finally {
      closeSync(descriptor)
    }
  })
}

/** True when nothing of it runs any more. A leader that exited before its threads looks like a zombie but is not. */
export function isDead(stat: ProcessStat): boolean {
  return stat.state === 'X' || stat.state === 'x' || (stat.state === 'Z' && stat.threads <= 1)
}

/**
 * Whether any thread of a process that was sent SIGSTOP can still run. `blocked`: not before it comes out of
 * the kernel, where it waits uninterruptibly (as the parent does whose vfork(2) child is stopped).
 */
export function standing(stat: ProcessStat): 'still' | 'blocked' | 'moving' {
  const threads = stat.threads <= 1 ? [] : (tryRead(() => readdirSync(`/proc/${stat.pid}/task`)) ?? [])
  const states = threads.map((thread) => {
    const bytes = tryRead(() => readFileSync(`/proc/${stat.pid}/task/${Number(thread)}/stat`))
    return (bytes && parseStat(bytes)?.state) ?? 'X'
  })
  const all = stat.threads <= 1 ? [stat.state] : states
  if (all.every((state) => /^[TtZXx]$/.test(state))) return 'still'
  return all.every((state) => /^[TtZXxD]$/.test(state)) ? 'blocked' : 'moving'
}

/** All that the interlock asks about the process that has this pid now; null when none has. */
export function readFacts(pid: number, known?: ReadonlyMap<number, ProcessStat>): ProcessFacts | null {
  const stat = readStat(pid)
  if (!stat) return null
  const facts: ProcessFacts = {
    ...stat,
    executable: withoutDeleted(tryRead(() => readlinkSync(`/proc/${pid}/exe`, 'buffer'))),
    workingDirectory: withoutDeleted(tryRead(() => readlinkSync(`/proc/${pid}/cwd`, 'buffer'))),
    cgroups: parseCgroups(tryRead(() => readFileSync(`/proc/${pid}/cgroup`, 'utf8')) ?? ''),
    sameMounts: readNamespace('mnt', pid) === readNamespace('mnt', 'self'),
    ancestors: ancestorsOf(stat, known),
  }
  // The pid may have passed to another process while its files were read: then nothing was read of either.
  return readStat(pid)?.startTicks === stat.startTicks ? facts : null
}

/** Pids from the parent of `stat` up to the first process, from `known` where it has them. */
export function ancestorsOf(stat: ProcessStat, known?: ReadonlyMap<number, ProcessStat>): number[] {
  const ancestors: number[] = []
  let parentPid = stat.parentPid
  while (parentPid > 0 && ancestors.length < ANCESTORS_MAX && !ancestors.includes(parentPid)) {
    ancestors.push(parentPid)
    const parent = known?.get(parentPid) ?? readStat(parentPid)
    if (!parent) break
    parentPid = parent.parentPid
  }
  return ancestors
}

/** Paths of `hierarchy:controllers:path` lines (cgroups(7)); a path may hold colons. */
export function parseCgroups(text: string): string[] {
  return text
    .split('\n')
    .map((line) => /^[0-9]+:[^:]*:(\/.*)$/.exec(line)?.[1])
    .filter((path) => path !== undefined)
}

/** Such as `net:[4026531840]` (namespaces(7)); null when it may not be read. */
export function readNamespace(kind: 'net' | 'mnt', pid: number | 'self' = 'self'): string | null {
  return tryRead(() => readlinkSync(`/proc/${pid}/ns/${kind}`))
}

export type ExecutableHash =
  | { readonly kind: 'hashed'; readonly sha256: string; readonly bytes: number }
  | { readonly kind: 'unreadable'; readonly reason: string }

/**
 * SHA-256 of what the process runs, also when its file was unlinked or replaced: the link in /proc leads to
 * the inode. The caller compares the start time after this opened the file, to know whose it is.
 */
export async function hashExecutable(
  pid: number,
  bytesMax: number,
  signal: AbortSignal,
): Promise<ExecutableHash> {
  try {
    await using file = await open(`/proc/${pid}/exe`, constants.O_RDONLY | constants.O_NONBLOCK)
    const stat = fstatSync(file.fd)
    if (!stat.isFile()) return { kind: 'unreadable', reason: 'the executable is not a regular file' }
    if (stat.size > bytesMax) {
      return {
        kind: 'unreadable',
        reason: `the executable has ${stat.size} bytes, at most ${bytesMax} are read`,
      }
    }
    const hash = createHash('sha256')
    const chunk = Buffer.allocUnsafe(Math.min(1_048_576, stat.size + 1))
    let bytes = 0
    while (bytes <= bytesMax) {
      signal.throwIfAborted()
      const { bytesRead } = await file.read(chunk, 0, chunk.length, bytes)
      if (bytesRead === 0) break
      hash.update(chunk.subarray(0, bytesRead))
      bytes += bytesRead
    }
    return { kind: 'hashed', sha256: hash.digest('hex'), bytes }
  } catch (error) {
    return { kind: 'unreadable', reason: error instanceof Error ? error.message : String(error) }
  }
}

export type ActionSignal = 'SIGSTOP' | 'SIGCONT' | 'SIGKILL'

/** A hold on one process. With a pidfd the kernel keeps it to that process, whatever becomes of the pid. */
export interface ProcessHandle extends Disposable {
  readonly pid: number
  /** How signals are sent, for the proof. */
  readonly method: 'pidfd' | 'kill(2)'
  send(signal: ActionSignal): 'sent' | 'gone' | 'denied'
  exited(): boolean
}

/** Takes hold of the process that has this pid now; null when none has. */
export type OpenProcess = (pid: number) => ProcessHandle | null

/** The calls of the native addon that handles need: pidfd_open(2), pidfd_send_signal(2), poll(2). */
export interface PidfdCalls {
  /** The descriptor; throws with `code` ESRCH when no process has the pid. */
  pidfdOpen(pid: number): number
  /** Throws with `code` ESRCH or EPERM. */
  pidfdSendSignal(descriptor: number, signal: number): void
  /** True when the process has ended, at the latest after `timeoutMs`. */
  pidfdWaitExited(descriptor: number, timeoutMs: number): boolean
}

export function createPidfdOpener(calls: PidfdCalls): OpenProcess {
  return (pid) => {
    let descriptor: number
    try {
      descriptor = calls.pidfdOpen(pid)
    } catch (error) {
      if (hasCode(error, 'ESRCH') || hasCode(error, 'EINVAL')) return null
      throw error
    }
    return {
      pid,
      method: 'pidfd',
      send: (signal) => sending(() => calls.pidfdSendSignal(descriptor, os.signals[signal])),
      exited: () => calls.pidfdWaitExited(descriptor, 0),
      [Symbol.dispose]: () => closeSync(descriptor),
    }
  }
}

/**
 * Without the addon: the start time is compared before each signal. Between the comparison and the signal
 * lies a gap of microseconds in which the pid could be reused, so the proof names the method.
 */
export const openProcessByPid: OpenProcess = (pid) => {
  const opened = readStat(pid)
  if (!opened) return null
  const current = () => {
    const stat = readStat(pid)
    return stat && stat.startTicks === opened.startTicks && !isDead(stat) ? stat : null
  }
  return {
    pid,
    method: 'kill(2)',
    send: (signal) => (current() ? sending(() => process.kill(pid, signal)) : 'gone'),
    exited: () => current() === null,
    [Symbol.dispose]: () => undefined,
  }
}

function sending(send: () => void): 'sent' | 'gone' | 'denied' {
  try {
    send()
    return 'sent'
  } catch (error) {
    if (hasCode(error, 'ESRCH')) return 'gone'
    if (hasCode(error, 'EPERM')) return 'denied'
    throw error
  }
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && (error as NodeJS.ErrnoException).code === code
}

/** A process may end between any two reads: what cannot be read is null. */
function tryRead<Value>(read: () => Value): Value | null {
  try {
    return read()
  } catch {
    return null
  }
}

function withoutDeleted(path: Buffer | null): Buffer | null {
  if (!path?.subarray(-DELETED.length).equals(DELETED)) return path
  return path.subarray(0, -DELETED.length)
}
