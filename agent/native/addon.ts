/**
 * The system calls that Node does not have, from Cordon's own addon (`addon/`, Linux on x86-64). Every function
 * checks its arguments (TypeError) and throws a system error with `code`, `errno` and `syscall`, whose message
 * names the call. What the addon needs is said by `loadNative` and never thrown.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { carriesAddons, loadPackedAddon } from '../../shared/node/addons.ts'

declare const programs: unique symbol
declare const group: unique symbol
declare const netlinkSocket: unique symbol
/** Kernel programs that are loaded and attached. Closed by `bpfClose`, or when it is collected. */
export interface ProgramsHandle {
  readonly [programs]: true
}
/** One fanotify group. Closed by `fanotifyClose`, or when it is collected. */
export interface GroupHandle {
  readonly [group]: true
}

/** One netlink socket. Closed by `netlinkClose`, or when it is collected. */
export interface NetlinkHandle {
  readonly [netlinkSocket]: true
}

interface SandboxOptions {
  /** The user and group to become, neither of them root. Only a process of root changes. */
  readonly userId: number
  readonly groupId: number
  /** RLIMIT_AS. Node reserves more than 1 GB at start: `dataBytesMax` is the bound that means something. */
  readonly addressSpaceBytesMax?: number
  /** RLIMIT_DATA: private memory that can be written. */
  readonly dataBytesMax?: number
  /** RLIMIT_NOFILE; descriptors that are open already stay open. */
  readonly openFilesMax: number
  /** RLIMIT_CPU: past it, SIGXCPU ends the process. */
  readonly cpuSeconds?: number
  /**
   * Refuses (EPERM) to open any file and to change the file system by a path: for a process that is handed its
   * files open. What it still needs must be loaded before.
   */
  readonly refusePaths?: boolean
}

/** What `enterSandbox` achieved beyond what it must; a step that must succeed throws. */
interface SandboxResult {
  readonly userDropped: boolean
  /** The calling thread alone is in an empty network: threads cannot be moved. The filter holds for all. */
  readonly networkNamespaceOfThread: boolean
  /** New programs, processes and sockets are refused (EPERM) on every thread. */
  readonly systemCallFilter: boolean
}

export interface KernelFeatures {
  readonly systemCalls: number
  readonly packets: number
  readonly signals: number
}

export interface NativeAddon {
  /** Throws what keeps this process from loading kernel programs (bpf(2)), such as EPERM. */
  bpfProbe(): void
  /**
   * Loads and attaches, within about a second, with a ring of `ringBytes` (a power of two, a page or more). Packets
   * are watched in the cgroup (v2) at `cgroupPath`. `coreOnly` loads what
   * any kernel takes that takes any: processes and outbound connections.
   */
  bpfOpen(ringBytes: number, cgroupPath: string, coreOnly: boolean): ProgramsHandle
  /** What is in force beyond processes and outbound connections: 0, or the errno that keeps it away. */
  bpfFeatures(handle: ProgramsHandle): KernelFeatures
  /**
   * Probes one function of a library of PAM (`functionOffset` bytes into the file): 1 pam_authenticate,
   * 2 pam_open_session, 3 pam_close_session. `uprobeType` is the number in sysfs's event source of that name.
   */
  bpfProbePam(
    handle: ProgramsHandle,
    uprobeType: number,
    path: string,
    functionOffset: number,
    functionCode: number,
  ): void
  /** Copies whole records into `buffer` (32,768 bytes or more) without a system call; returns the bytes. */
  bpfDrain(handle: ProgramsHandle, buffer: Buffer): number
  /** Once per handle: what is called, with nothing, after each arming. A thread waits for it. */
  bpfBell(handle: ProgramsHandle, callback: () => void): void
  /** The callback is called once, as soon as the ring is not empty. */
  bpfArmBell(handle: ProgramsHandle): void
  /** Records dropped since opening, by `enum counter_slot` of `bpf/records.h`. */
  bpfCounters(handle: ProgramsHandle): number[]
  /** Leaves out what this process does from now on, until it exits. The pid is that of the first namespace. */
  bpfExclude(handle: ProgramsHandle, pid: number, startTicks: number): void
  bpfClose(handle: ProgramsHandle): void

  fanotifyOpen(): GroupHandle
  /**
   * Watches the whole file system under `mountPoint`. `root` stands before the paths that come out of it: `/`,
   * or `/proc/PID/root` for one of another mount namespace. True when renames come with both names (Linux 5.17).
   */
  fanotifyMark(handle: GroupHandle, mountPoint: string, root: string): boolean
  /** For a mount point that is gone. */
  fanotifyForget(handle: GroupHandle, mountPoint: string): void
  /** Packs events with their paths into `buffer` (16,384 bytes or more); returns the bytes. */
  fanotifyDrain(handle: GroupHandle, buffer: Buffer): number
  /** Once per handle: what is called, with nothing, after each arming. A thread waits for it. */
  fanotifyBell(handle: GroupHandle, callback: () => void): void
  /** The callback is called once, as soon as an event waits. */
  fanotifyArmBell(handle: GroupHandle): void
  /** Discards the oldest events that wait beyond `waitingMax`, and counts them; a thread keeps to it from then on. */
  fanotifyTrim(handle: GroupHandle, waitingMax: number): void
  /** Packs what was discarded since the last call, by process; returns the bytes. */
  fanotifyDiscarded(handle: GroupHandle, buffer: Buffer): number
  fanotifyClose(handle: GroupHandle): void

  /**
   * A socket of a NETLINK_* protocol that joins `groups` (a mask) and holds up to `receiveBytes` of what was not
   * fetched yet, as the kernel counts them.
   */
  netlinkOpen(protocol: number, groups: number, receiveBytes: number): NetlinkHandle
  /** One message to the kernel, which has acted on it when this returns. */
  netlinkSend(handle: NetlinkHandle, message: Buffer): void
  /**
   * Packs what the kernel sent into `buffer` (32,768 bytes or more) and returns the bytes: each message is a
   * 32-bit length, that many bytes, and padding to a multiple of four. Length 0: the kernel dropped messages here.
   */
  netlinkDrain(handle: NetlinkHandle, buffer: Buffer): number
  netlinkClose(handle: NetlinkHandle): void

  /** Two connected ends (unix, SOCK_SEQPACKET, close-on-exec). */
  socketPair(): [number, number]
  /** Sends `payload` with an open descriptor, or with none for -1. Never waits: EAGAIN when the peer is behind. */
  sendDescriptor(socketFd: number, fd: number, payload: Buffer): void
  /** Waits up to `timeoutMs` (-1: without end); null when the time is up. `fd` -1: none came. Length 0: the end. */
  receiveDescriptor(
    socketFd: number,
    buffer: Buffer,
    timeoutMs: number,
  ): { fd: number; length: number } | null

  /** A descriptor of the process, closed with `fs.closeSync`. ESRCH when there is none. */
  pidfdOpen(pid: number): number
  /** ESRCH when the process has ended. Signal 0 only asks. */
  pidfdSendSignal(fd: number, signal: number): void
  /** Whether the process has ended, waiting up to `timeoutMs` for it. */
  pidfdWaitExited(fd: number, timeoutMs: number): boolean

  /** Names of the extended attributes of an open file, each ended by a zero byte. */
  listAttributes(fd: number): Buffer
  /** Null when there is none of that name. */
  getAttribute(fd: number, name: Buffer): Buffer | null
  setAttribute(fd: number, name: Buffer, value: Buffer): void
  removeAttribute(fd: number, name: Buffer): void
  /** Nanoseconds since 1970. */
  setTimes(fd: number, accessedNs: bigint, modifiedNs: bigint): void
  /** Renames between open directories. EEXIST when the new name is taken: nothing is ever replaced. */
  renameNew(fromDirectoryFd: number, fromName: Buffer, toDirectoryFd: number, toName: Buffer): void

  /** Gives back what malloc kept free and pages of code that came for the start; they come again when needed. */
  releaseMemory(): void

  /** Gives up, for good, what a process that reads hostile files does not need. */
  enterSandbox(options: SandboxOptions): SandboxResult

  /** One datagram to the socket of the service manager, `@name` for an abstract one. Never waits: EAGAIN. */
  notifyService(socketPath: string, payload: Buffer): void
}

export type NativeLoad =
  | { readonly ok: true; readonly native: NativeAddon }
  | { readonly ok: false; readonly reason: string }

const functionNames: readonly (keyof NativeAddon)[] = [
  ...(['bpfProbe', 'bpfOpen', 'bpfDrain', 'bpfCounters', 'bpfExclude', 'bpfClose'] as const),
  ...(['bpfFeatures', 'bpfProbePam', 'bpfBell', 'bpfArmBell'] as const),
  ...(['fanotifyOpen', 'fanotifyMark', 'fanotifyForget', 'fanotifyDrain', 'fanotifyClose'] as const),
  ...(['fanotifyTrim', 'fanotifyDiscarded', 'fanotifyBell', 'fanotifyArmBell'] as const),
  ...(['netlinkOpen', 'netlinkSend', 'netlinkDrain', 'netlinkClose'] as const),
  ...(['socketPair', 'sendDescriptor', 'receiveDescriptor'] as const),
  ...(['pidfdOpen', 'pidfdSendSignal', 'pidfdWaitExited', 'enterSandbox', 'notifyService'] as const),
  'releaseMemory',
  ...(['listAttributes', 'getAttribute', 'setAttribute', 'removeAttribute'] as const),
  ...(['setTimes', 'renameNew'] as const),
]

const mend = 'run `node scripts/build-native.ts` (needs gcc, on Linux on x86-64)'

type Exports = Partial<Record<string, unknown>>

/**
 * Loads what a packed program carries, build/native/cordon.node, or the file at `path`. Never throws: the reason
 * says what to do.
 */
export function loadNative(path?: string): NativeLoad {
  const isPacked = path === undefined && carriesAddons()
  const file = path ?? defaultPath()
  if (!isPacked && !existsSync(file)) {
    return { ok: false, reason: `the native addon ${file} is missing: ${mend}` }
  }
  let exports: Exports
  try {
    exports = isPacked ? (loadPackedAddon('cordon') as Exports) : loadFile(file)
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    return {
      ok: false,
      reason: `the native addon cannot be loaded (${message})${isPacked ? '' : `: ${mend}`}`,
    }
  }
  const missing = functionNames.filter((name) => typeof exports[name] !== 'function')
  if (missing.length > 0) {
    return {
      ok: false,
      reason: `the native addon lacks ${missing.join(', ')}: it is of another version; ${mend}`,
    }
  }
  return { ok: true, native: exports as unknown as NativeAddon }
}

function loadFile(path: string): Exports {
  const module = { exports: {} as Exports }
  process.dlopen(module, path)
  return module.exports
}

function defaultPath(): string {
  return join(import.meta.dirname, '../../build/native/cordon.node')
}
