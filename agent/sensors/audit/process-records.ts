/** What processes run, and what they do to others, to their memory and to what they may do. */
import { readFileSync, readlinkSync, statSync } from 'node:fs'
import { kernelText } from '../../native/kernel-bytes.ts'
import type {
  ExecCircumstances,
  ExecRecord,
  FileIdentity,
  KernelText,
  ProcessAccessRecord,
  ProcessKey,
  ProcessReference,
  SensorRecord,
} from '../records.ts'
import type { ArgumentCollector } from './arguments.ts'
import { intArgument, type ObservedCall, referenceTo } from './observed-call.ts'
import { NAMESPACE_FLAGS, NAMESPACE_TIME_FLAG } from './rules.ts'

const deleted = ' (deleted)'
const memoryFile = '/memfd:'
/** A program that is started by the number of a descriptor: fexecve(3), or a shell with such a path. */
const descriptorPath = /^\/(?:dev|proc\/(?:self|thread-self|\d+))\/fd\/\d+$/

type Operation = ProcessAccessRecord['operation']
/** Requests of ptrace(2), those that rules ask for. */
const ptraceOperations: Readonly<Record<number, Operation>> = {
  1: 'ptrace-read',
  2: 'ptrace-read',
  3: 'ptrace-read',
  4: 'ptrace-write',
  5: 'ptrace-write',
  6: 'ptrace-write',
  13: 'ptrace-write',
  16: 'ptrace-attach',
  16901: 'ptrace-write',
  16902: 'ptrace-seize',
}

export function execRecord(
  call: ObservedCall,
  process: ProcessKey,
  parent: ProcessKey,
  sessionId: number,
  collected: ArgumentCollector | null,
): ExecRecord {
  const { arguments: found, truncated } = collected?.result() ?? { arguments: [], truncated: true }
  return {
    kind: 'exec',
    timestampMs: call.timestampMs,
    process,
    parent,
    userId: call.userId,
    groupId: call.groupId,
    sessionId,
    executable: withoutMark(call.executable),
    arguments: found,
    argumentsTruncated: truncated,
    workingDirectory: call.workingDirectory ?? '/',
    file: identityOf(call),
    circumstances: circumstancesOf(call),
  }
}

/** Of the program that runs: named by its path, known by the inode that the kernel told. */
function identityOf(call: ObservedCall): FileIdentity | null {
  const { executable } = call
  if (typeof executable !== 'string' || !executable.startsWith('/') || executable.endsWith(deleted))
    return null
  try {
    const found = statSync(executable, { bigint: true, throwIfNoEntry: false })
    if (found === undefined) return null
    const [device, inode] = [Number(found.dev), Number(found.ino)]
    const isIt = call.paths.some((path) => path.inode === inode && path.device === device)
    return isIt ? { device, inode, sizeBytes: Number(found.size), changedNs: found.ctimeNs } : null
  } catch {
    return null
  }
}

function circumstancesOf(call: ObservedCall): ExecCircumstances {
  return {
    effectiveUserId: call.effectiveUserId,
    effectiveGroupId: call.effectiveGroupId,
    loginUserId: call.loginUserId,
    terminal: terminalOf(call.terminal),
    // Audit does not tell these.
    namespaces: {},
    cgroup: '',
    environment: [],
    fileless: filelessOf(call),
  }
}

function filelessOf(call: ObservedCall): ExecCircumstances['fileless'] {
  const { executable } = call
  if (typeof executable === 'string' && executable.endsWith(deleted)) {
    return executable.startsWith(memoryFile) ? 'memory-file' : 'deleted-file'
  }
  const name = call.paths[0]?.name
  return typeof name === 'string' && descriptorPath.test(name) ? 'descriptor' : null
}

function withoutMark(executable: KernelText): KernelText {
  const isMarked = typeof executable === 'string' && executable.endsWith(deleted)
  const text = isMarked ? executable.slice(0, -deleted.length) : executable
  return text.length === 0 ? '(unknown)' : text
}

/** The kernel tells a terminal by its name; the numbers are those of devices.txt of Linux. */
function terminalOf(name: string | null): ExecCircumstances['terminal'] {
  const match = /^(pts|tty|ttyS)(\d{1,6})$/.exec(name ?? '')
  if (match === null) return null
  const number = Number(match[2])
  if (match[1] === 'pts') return { major: 136 + (number >> 8), minor: number & 0xff }
  return { major: 4, minor: match[1] === 'tty' ? number : 64 + number }
}

export type KeyOf = (pid: number) => ProcessKey | null
type Add = (record: SensorRecord) => void

export function addProcessAccess(call: ObservedCall, process: ProcessKey, keyOf: KeyOf, add: Add): void {
  const isPtrace = call.name === 'ptrace'
  const operation = isPtrace ? ptraceOperations[intArgument(call, 0)] : (call.name as Operation)
  // A pid of the caller's own namespace where the kernel tells no other; it differs only in containers.
  const pid = call.objectPid ?? intArgument(call, isPtrace ? 1 : 0)
  if (operation === undefined || pid <= 0 || pid === call.pid) return
  const target: ProcessReference = referenceTo(pid, keyOf)
  const { timestampMs, result } = call
  add({ kind: 'process-access', timestampMs, process, operation, result, target })
}

export function addMemoryFile(call: ObservedCall, process: ProcessKey, add: Add): void {
  const flags = intArgument(call, 1)
  add({ kind: 'memory-file', timestampMs: call.timestampMs, process, name: memoryFileName(call), flags })
}

/** The name lies in memory, so it is read from the descriptor while that is open; '' afterwards. */
function memoryFileName(call: ObservedCall): KernelText {
  try {
    const target = readlinkSync(`/proc/${call.pid}/fd/${call.result}`, 'buffer')
    if (!target.toString('latin1').startsWith(memoryFile)) return ''
    return kernelText(target.subarray(memoryFile.length, target.length - deleted.length))
  } catch {
    return ''
  }
}

export function addNamespace(call: ObservedCall, process: ProcessKey, add: Add): void {
  const mask = call.name === 'clone' ? NAMESPACE_FLAGS : NAMESPACE_FLAGS | NAMESPACE_TIME_FLAG
  const flags = (intArgument(call, call.name === 'setns' ? 1 : 0) & mask) >>> 0
  // setns(2) with 0 takes whatever its descriptor is.
  if (flags === 0 && call.name !== 'setns') return
  const operation = call.name as 'unshare' | 'setns' | 'clone'
  add({ kind: 'namespace', timestampMs: call.timestampMs, process, operation, flags })
}

const idCounts: Partial<Readonly<Record<ObservedCall['name'], number>>> = {
  setreuid: 2,
  setregid: 2,
  setresuid: 3,
  setresgid: 3,
}

export function addCredentials(call: ObservedCall, process: ProcessKey, add: Add): void {
  const requested = Array.from({ length: idCounts[call.name] ?? 1 }, (_, index) => idArgument(call, index))
  add({
    kind: 'credentials',
    timestampMs: call.timestampMs,
    process,
    operation: call.name,
    requested,
    effectiveUserId: call.effectiveUserId,
    effectiveCapabilities: readCapabilities(call.pid),
  })
}

/** A user or a group; -1 where it is left as it is. */
export function idArgument(call: ObservedCall, index: number): number {
  const value = Number(BigInt.asUintN(call.narrow ? 16 : 32, call.arguments[index] ?? 0n))
  return value === (call.narrow ? 0xffff : 0xffff_ffff) ? -1 : value
}

/** As they are now, because audit does not tell them; 0 when the process is gone. */
function readCapabilities(pid: number): bigint {
  try {
    const text = readFileSync(`/proc/${pid}/status`, 'latin1')
    return BigInt(`0x${/^CapEff:\t([0-9a-f]{1,16})$/m.exec(text)?.[1] ?? '0'}`)
  } catch {
    return 0n
  }
}

export function addSignal(
  call: ObservedCall,
  process: ProcessKey,
  isProtected: (pid: number) => boolean,
  add: Add,
): void {
  const pid = intArgument(call, 0)
  const signal = intArgument(call, call.name === 'tgkill' || call.name === 'rt_tgsigqueueinfo' ? 2 : 1)
  const meant = pid === -1 || isProtected(Math.abs(pid))
  // Signal 0 only asks whether there is such a process.
  if (signal === 0 || !meant) return
  const from = typeof call.executable === 'string' ? call.executable : 'a program'
  const outcome = call.result < 0 ? `was refused (error ${-call.result})` : 'was sent'
  const whom = pid === -1 ? 'all processes' : `the agent's process ${Math.abs(pid)}`
  const reason = `signal ${signal} to ${whom} ${outcome} by ${from} (pid ${call.pid}, user ${call.userId})`
  add({ kind: 'tamper', timestampMs: call.timestampMs, process, reason })
}
