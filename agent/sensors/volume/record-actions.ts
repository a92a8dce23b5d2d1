/** Which event a record will become, and which of a process's budgets it is charged to. */
import type { EventAction } from '../../../shared/events/event.ts'
import type {
  ActivityRecord,
  ConnectRecord,
  DnsRecord,
  FileRecord,
  ProcessAccessRecord,
  SensorRecord,
} from '../records.ts'

export const VOLUME_GROUPS = ['file', 'network', 'activity'] as const
export type VolumeGroup = (typeof VOLUME_GROUPS)[number]

/** Records that can be left out. The others pass, whatever their number: see `volume.ts`. */
export type MeasuredRecord = Exclude<
  FileRecord | ConnectRecord | ActivityRecord,
  { readonly kind: UnmeasuredKind }
>
type UnmeasuredKind = 'tamper' | 'logon' | 'configuration'

const groups: { readonly [Kind in MeasuredRecord['kind']]: VolumeGroup } = {
  file: 'file',
  connect: 'network',
  accept: 'network',
  close: 'network',
  datagram: 'network',
  dns: 'network',
  script: 'activity',
  'memory-file': 'activity',
  'memory-executable': 'activity',
  'process-access': 'activity',
  credentials: 'activity',
  namespace: 'activity',
  library: 'activity',
  module: 'activity',
  bpf: 'activity',
  mount: 'activity',
  listen: 'activity',
  'raw-socket': 'activity',
  device: 'activity',
  'file-attributes': 'activity',
  sysctl: 'activity',
}

export function isMeasured(record: SensorRecord): record is MeasuredRecord {
  return record.kind === 'file' || Object.hasOwn(groups, record.kind)
}

export function groupOf(record: MeasuredRecord): VolumeGroup {
  return groups[record.kind]
}

const fileActions = {
  creation: 'file-created',
  modification: 'file-modified',
  deletion: 'file-deleted',
  rename: 'file-renamed',
} as const

const plainActions = {
  connect: 'connection',
  accept: 'connection-accepted',
  close: 'connection-closed',
  datagram: 'datagram-flow',
  script: 'script',
  'memory-file': 'memory-file-created',
  'memory-executable': 'memory-executable',
  credentials: 'credentials-changed',
  namespace: 'namespace-changed',
  library: 'library-loaded',
  bpf: 'bpf-used',
  mount: 'mount-changed',
  listen: 'socket-listen',
  'raw-socket': 'raw-socket',
  device: 'device-read',
  'file-attributes': 'file-attributes-changed',
  sysctl: 'sysctl-written',
} as const satisfies Partial<Record<MeasuredRecord['kind'], EventAction>>

export function actionOf(record: MeasuredRecord): EventAction {
  switch (record.kind) {
    case 'file':
      return isLink(record) ? 'file-linked' : fileActions[record.action]
    case 'dns':
      return isAnswer(record) ? 'dns-answer' : 'dns-query'
    case 'process-access':
      return accessAction(record)
    case 'module':
      return record.operation === 'load' ? 'module-loaded' : 'module-unloaded'
    default:
      return plainActions[record.kind]
  }
}

/** A creation that is told as a second name or a symbolic link. */
export function isLink({ action, names }: FileRecord): boolean {
  if (action !== 'creation' || names === null || names === undefined) return false
  return names.type === 'symlink' || (names.type === 'file' && names.links > 1)
}

/** QR, the first bit of the third byte (RFC 1035 section 4.1.1). */
function isAnswer({ message }: DnsRecord): boolean {
  return ((message[2] ?? 0) & 0x80) !== 0
}

const tampering: ReadonlySet<string> = new Set(['ptrace-write', 'process_vm_writev', 'mem-write'])

function accessAction({ operation }: ProcessAccessRecord): EventAction {
  return tampering.has(operation) ? 'process-tampering' : 'process-access'
}
