/**
 * What a process did, as the fields of an event: one function for each kind of record. Time, acting process and
 * what the action itself says are added by the event builder.
 */
import { createHash } from 'node:crypto'
import { constants } from 'node:os'
import { getSystemErrorName } from 'node:util'
import { SCRIPT_CHARACTERS_MAX, TEXT_CHARACTERS_MAX } from '../../shared/protocol/limits.ts'
import { baseName } from './actors.ts'
import type { Described, Fields } from './described.ts'
import { type Fidelity, lossy, markTruncated, text } from './kernel-text.ts'
import { describeNetwork, isNetworkRecord } from './network-fields.ts'
import type { ActivityRecord, KernelText, ProcessReference } from './records.ts'

export interface ActivityContext {
  readonly fidelity: Fidelity
  /** Fields of another process that something was done to. */
  readonly target: (process: ProcessReference) => Fields
  /** Whether the text of a script of this hash has to be told, or was told a short while ago. */
  readonly tellScript: (sha256: string) => boolean
  /** First 256 characters of a setting of the kernel; null when it cannot be read. */
  readonly readSetting: (path: string) => string | null
}

type Describe<Kind extends ActivityRecord['kind']> = (
  record: Extract<ActivityRecord, { kind: Kind }>,
  context: ActivityContext,
) => Described | null

type NetworkKind = 'accept' | 'close' | 'datagram' | 'listen' | 'raw-socket' | 'dns'
type Table = { readonly [Kind in Exclude<ActivityRecord['kind'], NetworkKind>]: Describe<Kind> }

export function describeActivity(record: ActivityRecord, context: ActivityContext): Described | null {
  if (isNetworkRecord(record)) return describeNetwork(record)
  const describe = table[record.kind] as Describe<typeof record.kind>
  return describe(record, context)
}

const table: Table = {
  script: (record, { fidelity, tellScript }) => {
    const sha256 = createHash('sha256').update(record.content).digest('hex')
    const content = tellScript(sha256) ? Buffer.from(record.content).toString('utf8') : undefined
    if (content !== undefined && (record.truncated || content.length > SCRIPT_CHARACTERS_MAX)) {
      markTruncated('cordon.script.content', fidelity)
    }
    return {
      action: 'script',
      fields: {
        'cordon.script.origin': record.origin,
        'cordon.script.content': content?.slice(0, SCRIPT_CHARACTERS_MAX),
        'cordon.script.bytes': record.content.length,
        'cordon.script.hash.sha256': sha256,
        'file.path': optionalPath(record.path, fidelity),
      },
    }
  },
  'memory-file': (record) => ({
    action: 'memory-file-created',
    fields: { 'file.name': lossy(record.name).slice(0, 256), 'cordon.memory.flags': record.flags },
  }),
  'memory-executable': (record, { fidelity }) => ({
    action: 'memory-executable',
    fields: {
      'cordon.operation': record.operation,
      'cordon.memory.address': record.address.toString(16),
      'cordon.memory.bytes': record.bytes,
      'cordon.memory.writable': record.writable,
      'file.path': optionalPath(record.path, fidelity),
    },
  }),
  'process-access': (record, { target }) => ({
    action: changesTarget.has(record.operation) ? 'process-tampering' : 'process-access',
    fields: { 'cordon.operation': record.operation, ...outcome(record.result), ...target(record.target) },
  }),
  credentials: (record) => ({
    action: 'credentials-changed',
    fields: {
      'cordon.operation': record.operation.slice(0, 32),
      ...(record.requested.length === 0 ? {} : { 'cordon.credentials.requested': [...record.requested] }),
      'cordon.credentials.effective_user_id': record.effectiveUserId,
      'cordon.credentials.effective_capabilities': record.effectiveCapabilities.toString(16),
    },
  }),
  namespace: (record) => ({
    action: 'namespace-changed',
    fields: { 'cordon.operation': record.operation, 'cordon.namespace.types': namespaceTypes(record.flags) },
  }),
  library: (record, { fidelity }) => {
    const path = text('file.path', record.path, fidelity)
    return {
      action: 'library-loaded',
      fields: {
        'file.path': path,
        'file.name': baseName(path),
        'file.inode': String(record.inode),
        'file.device': String(record.device),
      },
    }
  },
  module: (record, { fidelity }) => ({
    action: record.operation === 'load' ? 'module-loaded' : 'module-unloaded',
    fields: {
      ...outcome(record.result),
      'cordon.module.name': moduleName(record.name, record.path),
      'file.path': optionalPath(record.path, fidelity),
    },
  }),
  bpf: (record) => ({
    action: 'bpf-used',
    fields: {
      'cordon.operation': record.operation,
      ...outcome(record.result),
      'cordon.bpf.program_name': optionalText(record.programName, 16),
      'cordon.bpf.program_type':
        record.programType === null
          ? undefined
          : (bpfProgramTypes[record.programType] ?? String(record.programType)),
    },
  }),
  mount: (record, { fidelity }) => ({
    action: 'mount-changed',
    fields: {
      'cordon.operation': record.operation,
      ...outcome(record.result),
      'cordon.mount.source': optionalText(record.source, TEXT_CHARACTERS_MAX),
      'cordon.mount.type': optionalText(record.type, 32),
      'file.path': optionalPath(record.target, fidelity),
    },
  }),
  device: (record, { fidelity }) => ({
    action: 'device-read',
    fields: {
      'file.path': text('file.path', record.path, fidelity),
      'cordon.device.number': record.number,
      'cordon.device.writable': record.writable,
    },
  }),
  'file-attributes': (record, { fidelity }) => {
    const path = text('file.path', record.path, fidelity)
    return {
      action: 'file-attributes-changed',
      fields: {
        'cordon.operation': record.operation,
        'file.path': path,
        'file.name': baseName(path),
        'file.mode': record.mode === null ? undefined : record.mode.toString(8).padStart(4, '0'),
        'file.uid': record.userId === null ? undefined : String(record.userId),
        'file.gid': record.groupId === null ? undefined : String(record.groupId),
        'cordon.file.attribute': optionalText(record.attribute, 256),
      },
    }
  },
  sysctl: (record, { fidelity, readSetting }) => {
    const path = text('file.path', record.path, fidelity)
    return {
      action: 'sysctl-written',
      fields: { 'file.path': path, 'cordon.change.after': readSetting(path) ?? undefined },
    }
  },
  tamper: (record) => ({
    action: 'tamper',
    fields: { 'event.reason': record.reason.slice(0, TEXT_CHARACTERS_MAX) },
  }),
  logon: (record) => ({
    action: record.action,
    fields: {
      'user.target.name': lossy(record.account).slice(0, 256),
      'cordon.logon.service': record.service?.slice(0, 64),
      'cordon.logon.terminal': record.terminal?.slice(0, 64),
      'cordon.logon.source': record.source,
      ...remoteFields(record.remote),
    },
  }),
  configuration: ({ change }) => ({ action: change['event.action'], fields: change }),
}

const changesTarget: ReadonlySet<string> = new Set(['ptrace-write', 'process_vm_writev', 'mem-write'])

/** CLONE_NEW* (linux/sched.h), by the names of /proc/PID/ns. */
const namespaceFlags: readonly (readonly [flag: number, name: string])[] = [
  [0x80, 'time'],
  [0x2_0000, 'mnt'],
  [0x200_0000, 'cgroup'],
  [0x400_0000, 'uts'],
  [0x800_0000, 'ipc'],
  [0x1000_0000, 'user'],
  [0x2000_0000, 'pid'],
  [0x4000_0000, 'net'],
]

function namespaceTypes(flags: number): string[] {
  return namespaceFlags.filter(([flag]) => (flags & flag) !== 0).map(([, name]) => name)
}

/** enum bpf_prog_type (linux/bpf.h). */
const bpfProgramTypes = [
  ...['unspec', 'socket_filter', 'kprobe', 'sched_cls', 'sched_act', 'tracepoint', 'xdp', 'perf_event'],
  ...['cgroup_skb', 'cgroup_sock', 'lwt_in', 'lwt_out', 'lwt_xmit', 'sock_ops', 'sk_skb', 'cgroup_device'],
  ...['sk_msg', 'raw_tracepoint', 'cgroup_sock_addr', 'lwt_seg6local', 'lirc_mode2', 'sk_reuseport'],
  ...['flow_dissector', 'cgroup_sysctl', 'raw_tracepoint_writable', 'cgroup_sockopt', 'tracing'],
  ...['struct_ops', 'ext', 'lsm', 'sk_lookup', 'syscall', 'netfilter'],
]

function outcome(result: number): Fields {
  if (result >= 0) return { 'event.outcome': 'success' }
  const known = -result <= Math.max(...Object.values(constants.errno))
  return { 'event.outcome': 'failure', 'error.code': known ? getSystemErrorName(result) : String(-result) }
}

function moduleName(name: KernelText | null, path: KernelText | null): string | undefined {
  if (name !== null) return lossy(name).slice(0, 64)
  // As the kernel names it: the file's name without its endings, with _ for -.
  if (path === null) return undefined
  return baseName(lossy(path))
    .replace(/\.ko(?:\.\w+)?$/, '')
    .replaceAll('-', '_')
    .slice(0, 64)
}

function optionalText(value: KernelText | null, charactersMax: number): string | undefined {
  return value === null ? undefined : lossy(value).slice(0, charactersMax)
}

function optionalPath(value: KernelText | null, fidelity: Fidelity): string | undefined {
  return value === null || value.length === 0 ? undefined : text('file.path', value, fidelity)
}

function remoteFields(remote: KernelText | null): Fields {
  if (remote === null) return {}
  const address = lossy(remote).slice(0, 256)
  const isAddress = /^[0-9a-fA-F:.]{2,45}$/.test(address) && /[.:]/.test(address)
  return { 'source.address': address, ...(isAddress ? { 'source.ip': address } : {}) }
}
