/**
 * What the kernel layers hand up: one record per observation, before it becomes an event. Layers fill these;
 * `event-builder.ts` turns them into ECS-shaped events. Text from the kernel is bytes, so it is a string
 * only when it is valid UTF-8.
 */

import type { EventAction, EventOf } from '../../shared/events/event.ts'
import type { ATTRIBUTIONS } from '../../shared/events/fields.ts'
import type { FILELESS } from '../../shared/events/process-events.ts'

/** Kernel text: a string when its bytes are valid UTF-8, else the bytes as they are. */
export type KernelText = string | Uint8Array

/** Names a process for good within one boot: a pid is reused, a pid with its start time is not. */
export interface ProcessKey {
  readonly pid: number
  /** Start since boot in clock ticks of 1/100 s, as field 22 of /proc/PID/stat (proc(5)). */
  readonly startTicks: number
}

/** Names the content of a file: any write changes `changedNs` (st_ctim) or `sizeBytes`. */
export interface FileIdentity {
  /** st_dev as stat(2) gives it. */
  readonly device: number
  readonly inode: number
  readonly sizeBytes: number
  /** Change time in nanoseconds since 1970. */
  readonly changedNs: bigint
}

/** How the process was found when the kernel did not tell it with the observation. */
export type Attribution = (typeof ATTRIBUTIONS)[number]

interface Observed {
  /** Wall clock, milliseconds since 1970. */
  readonly timestampMs: number
}

export interface ForkRecord extends Observed {
  readonly kind: 'fork'
  readonly process: ProcessKey
  readonly parent: ProcessKey
}

export interface ExecRecord extends Observed {
  readonly kind: 'exec'
  readonly process: ProcessKey
  readonly parent: ProcessKey
  readonly userId: number
  readonly groupId: number
  /** Pid of the session's leader (getsid(2)); 0 when unknown. */
  readonly sessionId: number
  readonly executable: KernelText
  readonly arguments: readonly KernelText[]
  /** True when the arguments were longer than the layer copies. */
  readonly argumentsTruncated: boolean
  readonly workingDirectory: KernelText
  /** Null when the layer cannot tell. */
  readonly file: FileIdentity | null
  /** What only some layers tell of a program that starts. */
  readonly circumstances?: ExecCircumstances
}

export interface ExecCircumstances {
  readonly effectiveUserId: number
  readonly effectiveGroupId: number
  /** Null: nobody logged on. */
  readonly loginUserId: number | null
  /** Controlling terminal; null: none. */
  readonly terminal: { readonly major: number; readonly minor: number } | null
  /** Inodes of the namespaces by name, only those that differ from the host's. */
  readonly namespaces: Readonly<Record<string, number>>
  /** Path in the hierarchy that the host's containers are told apart by (cgroup v2, or v1's name=systemd). */
  readonly cgroup: string
  /** Variables that change what is loaded, as NAME=value. */
  readonly environment: readonly KernelText[]
  readonly fileless: (typeof FILELESS)[number] | null
}

export interface ExitRecord extends Observed {
  readonly kind: 'exit'
  readonly process: ProcessKey
  /** Exit status 0-255, or null when a signal ended it. */
  readonly exitCode: number | null
  /** Signal number, or null. */
  readonly signal: number | null
}

/** An outbound TCP connection, told once its outcome is known (or after a bounded wait). */
export interface ConnectRecord extends Observed {
  readonly kind: 'connect'
  readonly process: ProcessKey
  readonly outcome: 'success' | 'failure' | 'unknown'
  /** Dotted IPv4 or RFC 5952 IPv6 text; IPv4-mapped addresses are told as IPv4. */
  readonly sourceAddress: string
  /** 0 when unknown. */
  readonly sourcePort: number
  readonly destinationAddress: string
  readonly destinationPort: number
}

export interface FileRecord extends Observed {
  readonly kind: 'file'
  /** The start time is unknown to the file layers: the event builder joins it by pid. Null: no pid known. */
  readonly pid: number | null
  readonly action: 'creation' | 'modification' | 'deletion' | 'rename'
  /** Absolute path (for a rename, the new one). */
  readonly path: KernelText
  /** The old path of a rename. */
  readonly previousPath: KernelText | null
  /** True when the file was closed after writing, so that its content can be scanned now. */
  readonly contentComplete: boolean
  readonly attribution?: Attribution
  /** What the path names now, where that is more than a plain file; null: it was gone when it was looked at. */
  readonly names?: FileNames | null
  /** The path inside the container in whose folders it lies. */
  readonly containerPath?: KernelText
  /** How many more times the same process did the same to the same path since it was told last. */
  readonly repeated?: number
}

/** What a new name leads to. */
export interface FileNames {
  readonly type: 'file' | 'symlink' | 'other'
  readonly links: number
  /** What a symbolic link says. */
  readonly target: KernelText | null
}

/** Observations that the layer itself lost, as the kernel counts them. `count` null: the kernel does not say. */
export interface LossRecord extends Observed {
  readonly kind: 'loss'
  /** Which source, such as `ebpf:exec`. */
  readonly source: string
  readonly count: number | null
  /** Of which kinds they were, by the action of the event, where that is known: their sum is `count`. */
  readonly actions?: Readonly<Record<string, number>>
}

/** What was seen and is not told, to the unit, because there was too much of it or a list says so. */
export interface SuppressedRecord extends Observed {
  readonly kind: 'suppressed'
  /** Whose they were; null when they were left out for another reason, or nobody is known. */
  readonly process: ProcessReference | null
  readonly counts: Readonly<Partial<Record<EventAction, number>>>
  /** Wall clock, milliseconds since 1970, of the first and the last of them. */
  readonly startedMs: number
  readonly endedMs: number
  readonly reason: string
}

/** Who did it: without its start time (null) the process is joined by pid. */
export interface ProcessReference {
  readonly pid: number
  readonly startTicks: number | null
}

/** What a process did, besides starting and ending. Null: nobody is known. */
interface Activity<Kind extends string> extends Observed {
  readonly kind: Kind
  readonly process: ProcessReference | null
  readonly attribution?: Attribution
}

/** Negative errno of a system call that failed; 0 and more: it succeeded. */
type Result = number

interface Endpoints {
  readonly transport: 'tcp' | 'udp'
  /** Of the packets' first direction, as text; '' when unknown. */
  readonly sourceAddress: string
  /** 0 when unknown. */
  readonly sourcePort: number
  readonly destinationAddress: string
  readonly destinationPort: number
  readonly direction: 'egress' | 'ingress'
}

export interface ScriptRecord extends Activity<'script'> {
  readonly origin: EventOf<'script'>['cordon.script.origin']
  /** What was seen, bounded by the layer. */
  readonly content: Uint8Array
  /** There was more than `content`. */
  readonly truncated: boolean
  readonly path: KernelText | null
}
export interface MemoryFileRecord extends Activity<'memory-file'> {
  readonly name: KernelText
  readonly flags: number
}
export interface MemoryExecutableRecord extends Activity<'memory-executable'> {
  readonly operation: 'mmap' | 'mprotect'
  readonly address: bigint
  readonly bytes: number
  readonly writable: boolean
  readonly path: KernelText | null
}
export interface ProcessAccessRecord extends Activity<'process-access'> {
  readonly operation: EventOf<'process-access' | 'process-tampering'>['cordon.operation']
  readonly result: Result
  readonly target: ProcessReference
}
export interface CredentialsRecord extends Activity<'credentials'> {
  /** The system call, such as setresuid. */
  readonly operation: string
  /** Its arguments that are users or groups; -1 leaves one as it is. */
  readonly requested: readonly number[]
  readonly effectiveUserId: number
  readonly effectiveCapabilities: bigint
}
export interface NamespaceRecord extends Activity<'namespace'> {
  readonly operation: EventOf<'namespace-changed'>['cordon.operation']
  /** CLONE_NEW* bits. */
  readonly flags: number
}
export interface LibraryRecord extends Activity<'library'> {
  readonly path: KernelText
  readonly device: number
  readonly inode: number
}
export interface ModuleRecord extends Activity<'module'> {
  readonly operation: 'load' | 'unload'
  readonly result: Result
  readonly name: KernelText | null
  readonly path: KernelText | null
}
export interface BpfRecord extends Activity<'bpf'> {
  readonly operation: EventOf<'bpf-used'>['cordon.operation']
  readonly result: Result
  readonly programName: KernelText | null
  /** enum bpf_prog_type; null when it does not apply. */
  readonly programType: number | null
}
export interface MountRecord extends Activity<'mount'> {
  readonly operation: EventOf<'mount-changed'>['cordon.operation']
  readonly result: Result
  readonly source: KernelText | null
  readonly target: KernelText | null
  readonly type: KernelText | null
}
export interface AcceptRecord extends Activity<'accept'>, Endpoints {}
export interface CloseRecord extends Activity<'close'>, Endpoints {
  readonly durationNs: number | null
  /** From `source` to `destination`, and back. */
  readonly sourceBytes: number
  readonly destinationBytes: number
}
export interface DatagramRecord extends Activity<'datagram'>, Endpoints {}
export interface ListenRecord extends Activity<'listen'> {
  readonly transport: 'tcp' | 'udp' | 'other'
  readonly address: string
  readonly port: number
}
export interface RawSocketRecord extends Activity<'raw-socket'> {
  readonly family: 'ipv4' | 'ipv6' | 'packet'
  readonly protocol: number
}
export interface DnsRecord extends Activity<'dns'>, Endpoints {
  /** The beginning of the message (RFC 1035), without TCP's length. */
  readonly message: Uint8Array
}
export interface DeviceRecord extends Activity<'device'> {
  readonly path: KernelText
  /** `major:minor` */
  readonly number: string
  readonly writable: boolean
}
export interface FileAttributesRecord extends Activity<'file-attributes'> {
  readonly operation: EventOf<'file-attributes-changed'>['cordon.operation']
  readonly path: KernelText
  /** Permission bits, for `mode`. */
  readonly mode: number | null
  /** For `owner`; null: left as it is. */
  readonly userId: number | null
  readonly groupId: number | null
  /** Name of the extended attribute. */
  readonly attribute: KernelText | null
}
export interface SysctlRecord extends Activity<'sysctl'> {
  readonly path: KernelText
}
/** Something was done to the agent: `reason` is told as it is. */
export interface TamperRecord extends Activity<'tamper'> {
  readonly reason: string
}
export interface LogonRecord extends Activity<'logon'> {
  readonly action: 'logon' | 'logoff' | 'logon-failed' | 'privilege-elevated'
  readonly account: KernelText
  readonly source: EventOf<'logon'>['cordon.logon.source']
  readonly service: string | null
  readonly terminal: string | null
  /** A host name or an address. */
  readonly remote: KernelText | null
}
/** A file of the configuration was read again after it changed: what that means, already in the event's fields. */
export interface ConfigurationRecord extends Activity<'configuration'> {
  readonly change: ConfigurationChange
}

type ConfigurationAction =
  | `${'user' | 'group'}-${'created' | 'modified' | 'deleted'}`
  | `service-${'created' | 'modified' | 'deleted' | 'state-changed'}`
  | `ssh-key-${'added' | 'removed'}`
  | 'scheduled-task-changed'
  | 'persistence-changed'

type FieldOfActor = Extract<keyof EventOf<'user-created'>, `process.${string}` | `container.${string}`>
/** The event without its time, its acting process and what the action itself says. */
export type ConfigurationChange = {
  [Action in ConfigurationAction]: Omit<
    EventOf<Action>,
    | FieldOfActor
    | '@timestamp'
    | 'event.kind'
    | 'event.category'
    | (Action extends 'scheduled-task-changed' | 'persistence-changed' ? never : 'event.type')
    | 'user.id'
    | 'user.name'
    | 'cordon.attribution'
    | 'cordon.bytes'
    | 'cordon.truncated'
  >
}[ConfigurationAction]

export type ActivityRecord =
  | ScriptRecord
  | MemoryFileRecord
  | MemoryExecutableRecord
  | ProcessAccessRecord
  | CredentialsRecord
  | NamespaceRecord
  | LibraryRecord
  | ModuleRecord
  | BpfRecord
  | MountRecord
  | AcceptRecord
  | CloseRecord
  | DatagramRecord
  | ListenRecord
  | RawSocketRecord
  | DnsRecord
  | DeviceRecord
  | FileAttributesRecord
  | SysctlRecord
  | TamperRecord
  | LogonRecord
  | ConfigurationRecord

export type SensorRecord =
  | ForkRecord
  | ExecRecord
  | ExitRecord
  | ConnectRecord
  | FileRecord
  | ActivityRecord
  | LossRecord
  | SuppressedRecord

/** Takes a drained batch in the order of observation. It never throws and never blocks. */
export type RecordSink = (records: readonly SensorRecord[]) => void

export interface Sensor {
  /** Stable name shown by `status`, such as `ebpf` or `fanotify`. */
  readonly name: string
  /**
   * Observes until `signal` aborts; resolves once every handle is released; rejects when it cannot go on. Calls
   * `attached` once, when nothing that happens from then on is missed for want of time.
   */
  run(sink: RecordSink, signal: AbortSignal, attached: () => void): Promise<void>
}
