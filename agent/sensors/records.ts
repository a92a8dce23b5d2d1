/**
 * What the kernel layers hand up: one record per observation, before it becomes an event. Layers fill these;
 * `event-builder.ts` turns them into ECS-shaped events. Text from the kernel is bytes, so it is a string
 * only when it is valid UTF-8.
 */

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
  /** How the pid was found when the kernel did not tell it with the observation. */
  readonly attribution?: 'open-descriptor' | 'poll'
}

/** Observations that the layer itself lost, as the kernel counts them. `count` null: the kernel does not say. */
export interface LossRecord extends Observed {
  readonly kind: 'loss'
  readonly source: string
  readonly count: number | null
}

export type SensorRecord = ForkRecord | ExecRecord | ExitRecord | ConnectRecord | FileRecord | LossRecord

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
