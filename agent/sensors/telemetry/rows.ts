/**
 * The sub-categories of the EDR Telemetry Project's table for Linux, and what each can be seen by, best first. A
 * row is `yes` when the behaviour itself is told, with the process that did it; `partly` when some of it passes by.
 */
import type { EventAction } from '../../../shared/events/event.ts'

/** What events come from. Each is in force or not, by itself. */
export const SOURCES = [
  'ebpf',
  'ebpf-system-calls',
  'ebpf-packets',
  'ebpf-signals',
  'ebpf-core',
  'pam-probes',
  'audit',
  'proc-connector',
  'polling',
  'fanotify',
  'chokidar',
  'logon-files',
  'systemd-bus',
  'scanner',
  'agent',
] as const
export type Source = (typeof SOURCES)[number]

export interface Way {
  readonly source: Source
  /** What passes by; absent: all is seen. */
  readonly misses?: string
  /** What passes by unless one of other sources is in force as well. */
  readonly without?: { readonly sources: readonly Source[]; readonly misses: string }
}

export interface Row {
  readonly category: string
  readonly name: string
  /** Events that tell it. */
  readonly actions: readonly EventAction[]
  readonly ways: readonly Way[]
}

const whole = (source: Source): Way => ({ source })
const partly = (source: Source, misses: string): Way => ({ source, misses })

const polled = partly('polling', 'what lives less than a second')
const shortLivedArguments = partly('proc-connector', 'arguments of what ends at once')
const watchedFoldersOnly = partly('chokidar', 'all but the watched folders; the writer, once it has closed')
/** The kernel says with a change of a file which pid made it; what that was must be known before it ends. */
const byFanotify: Way = {
  source: 'fanotify',
  without: { sources: ['ebpf', 'audit', 'ebpf-core'], misses: 'who did it, when that ended at once' },
}
const files: readonly Way[] = [byFanotify, watchedFoldersOnly]
/** Files that are read again when the file layer says that they changed. */
const configured: readonly Way[] = [
  byFanotify,
  partly('chokidar', 'what lies outside /etc and the spool of cron, and mostly who did it'),
]
/** PAM tells audit itself, where it may. */
const auditedLogons = partly('audit', 'logons in containers, which may not write to audit')
const examined: readonly Way[] = [
  {
    source: 'scanner',
    without: { sources: ['fanotify'], misses: 'files outside of the watched folders' },
  },
]

export const ROWS: readonly Row[] = [
  {
    category: 'Process',
    name: 'Process creation',
    actions: ['exec'],
    ways: [whole('ebpf'), whole('audit'), whole('ebpf-core'), shortLivedArguments, polled],
  },
  {
    category: 'Process',
    name: 'Process termination',
    actions: ['exit'],
    ways: [
      whole('ebpf'),
      whole('audit'),
      whole('ebpf-core'),
      whole('proc-connector'),
      partly('polling', 'exit codes, and what lives less than a second'),
    ],
  },
  { category: 'File', name: 'File creation', actions: ['file-created', 'file-linked'], ways: files },
  {
    category: 'File',
    name: 'File modification',
    actions: ['file-modified', 'file-renamed', 'file-attributes-changed'],
    ways: files,
  },
  { category: 'File', name: 'File deletion', actions: ['file-deleted'], ways: files },
  {
    category: 'User',
    name: 'User logon',
    actions: ['logon', 'privilege-elevated'],
    ways: [whole('pam-probes'), auditedLogons, partly('logon-files', 'what writes no wtmp')],
  },
  {
    category: 'User',
    name: 'User logoff',
    actions: ['logoff'],
    ways: [
      whole('pam-probes'),
      auditedLogons,
      partly('logon-files', 'what writes no wtmp, and who of several sessions on a line'),
    ],
  },
  {
    category: 'User',
    name: 'Logon failed',
    actions: ['logon-failed'],
    ways: [whole('pam-probes'), auditedLogons, partly('logon-files', 'what writes no btmp')],
  },
  {
    category: 'Script',
    name: 'Script content',
    actions: ['script'],
    ways: [
      whole('ebpf-system-calls'),
      partly('ebpf', 'all but texts among the arguments'),
      partly('ebpf-core', 'all but texts among the arguments'),
      partly('audit', 'all but texts among the arguments'),
    ],
  },
  {
    category: 'Network',
    name: 'Network connection',
    actions: ['connection', 'connection-accepted', 'connection-closed', 'datagram-flow'],
    ways: [
      whole('ebpf-packets'),
      partly('ebpf', 'datagrams'),
      partly('ebpf-core', 'datagrams, who accepts, and how a connection ends'),
      partly('audit', 'how a connection ends, and io_uring'),
      polled,
    ],
  },
  {
    category: 'Network',
    name: 'Socket listen',
    actions: ['socket-listen', 'raw-socket'],
    ways: [whole('ebpf-system-calls'), partly('audit', 'io_uring')],
  },
  {
    category: 'Network',
    name: 'DNS query',
    actions: ['dns-query', 'dns-answer'],
    ways: [whole('ebpf-packets')],
  },
  {
    category: 'Scheduled task',
    name: 'Scheduled task',
    actions: ['scheduled-task-changed'],
    ways: configured,
  },
  { category: 'Account', name: 'User account created', actions: ['user-created'], ways: configured },
  {
    category: 'Account',
    name: 'User account modified',
    actions: ['user-modified', 'ssh-key-added'],
    ways: configured,
  },
  { category: 'Account', name: 'User account deleted', actions: ['user-deleted'], ways: configured },
  {
    category: 'Driver',
    name: 'Driver load',
    actions: ['module-loaded', 'module-unloaded'],
    ways: [whole('ebpf-system-calls'), whole('audit')],
  },
  {
    category: 'Driver',
    name: 'Image load',
    actions: ['library-loaded'],
    ways: [whole('ebpf-system-calls')],
  },
  {
    category: 'Driver',
    name: 'eBPF event',
    actions: ['bpf-used'],
    ways: [whole('ebpf-system-calls'), partly('audit', 'names and types of programs')],
  },
  {
    category: 'Access',
    name: 'Raw device read',
    actions: ['device-read'],
    ways: [whole('ebpf-system-calls')],
  },
  {
    category: 'Access',
    name: 'Process access',
    actions: ['process-access'],
    ways: [whole('ebpf-system-calls'), partly('audit', 'memory opened below /proc')],
  },
  {
    category: 'Access',
    name: 'Process tampering',
    actions: ['process-tampering'],
    ways: [whole('ebpf-system-calls'), partly('audit', 'memory opened below /proc')],
  },
  {
    category: 'Access',
    name: 'Memory-backed file',
    actions: ['memory-file-created', 'memory-executable'],
    ways: [whole('ebpf-system-calls'), partly('audit', 'memory that is made executable')],
  },
  {
    category: 'Service',
    name: 'Service created',
    actions: ['service-created'],
    ways: configured,
  },
  {
    category: 'Service',
    name: 'Service modified',
    actions: ['service-modified', 'service-state-changed'],
    ways: configured,
  },
  {
    category: 'Service',
    name: 'Service deleted',
    actions: ['service-deleted'],
    ways: configured,
  },
  { category: 'Agent', name: 'Agent start', actions: ['agent-started'], ways: [whole('agent')] },
  { category: 'Agent', name: 'Agent stop', actions: ['agent-stopped', 'tamper'], ways: [whole('agent')] },
  { category: 'Hash', name: 'MD5', actions: ['file-examined'], ways: examined },
  { category: 'Hash', name: 'SHA-256', actions: ['file-examined'], ways: examined },
  { category: 'Hash', name: 'Fuzzy hash', actions: ['file-examined'], ways: examined },
  { category: 'File facts', name: 'Entropy', actions: ['file-examined'], ways: examined },
  { category: 'File facts', name: 'Header bytes', actions: ['file-examined'], ways: examined },
  { category: 'File facts', name: 'Size', actions: ['file-examined'], ways: examined },
]
