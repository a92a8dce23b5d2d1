/** What `make-activity` does, and the records that the kernel programs must make of it: on every kernel the same. */
import type { SensorRecord } from '../../records.ts'

type Of<Kind extends SensorRecord['kind']> = Extract<SensorRecord, { kind: Kind }>

interface Case {
  readonly behaviour: string
  readonly kind: SensorRecord['kind']
  readonly options?: readonly string[]
  readonly variants: readonly (readonly string[])[]
  readonly needsFolder?: boolean
  /** Which of the program's records of this kind are meant; all without it. */
  readonly matches?: (record: never) => boolean
}
/** One way of doing one thing. */
export interface ExpectedActivity {
  readonly behaviour: string
  readonly kind: SensorRecord['kind']
  readonly variant: readonly string[]
  /** The variant, for the name of a test. */
  readonly words: string
  readonly matches: (record: SensorRecord) => boolean
  /** Arguments after the count. */
  arguments(places: { readonly folder: string; readonly program: string }): string[]
}

const ways = (...list: readonly string[][]) => [[], ...list]
const COMPAT = ['--compat']
const THREADS = ['--threads', '3']
const operation =
  (...names: readonly string[]) =>
  (record: { operation: string }) =>
    names.includes(record.operation)

const cases: readonly Case[] = [
  {
    behaviour: 'exec',
    kind: 'exec',
    variants: ways(THREADS, COMPAT),
    matches: (record: Of<'exec'>) => record.arguments.some((one) => String(one).startsWith('--sequence=')),
  },
  {
    behaviour: 'exec-memfd',
    kind: 'exec',
    variants: ways(),
    matches: (record: Of<'exec'>) => record.circumstances?.fileless === 'memory-file',
  },
  {
    behaviour: 'exec-deleted',
    kind: 'exec',
    variants: ways(),
    matches: (record: Of<'exec'>) => record.circumstances?.fileless === 'deleted-file',
  },
  {
    behaviour: 'exec-proc-fd',
    kind: 'exec',
    variants: ways(),
    matches: (record: Of<'exec'>) => record.circumstances?.fileless === 'descriptor',
  },
  {
    behaviour: 'fork-exit',
    kind: 'exit',
    options: ['--code', '7'],
    variants: ways(THREADS),
    matches: (record: Of<'exit'>) => record.exitCode === 7,
  },
  {
    behaviour: 'fork-signal',
    kind: 'exit',
    options: ['--signal', '9'],
    variants: ways(),
    matches: (record: Of<'exit'>) => record.signal === 9,
  },
  {
    behaviour: 'memfd-create',
    kind: 'memory-file',
    variants: ways(COMPAT, THREADS),
    matches: (record: Of<'memory-file'>) => /^activity-\d+$/.test(String(record.name)),
  },
  {
    behaviour: 'map-writable-executable',
    kind: 'memory-executable',
    variants: ways(COMPAT),
    matches: (record: Of<'memory-executable'>) => record.writable && record.operation === 'mmap',
  },
  {
    behaviour: 'protect-executable',
    kind: 'memory-executable',
    variants: ways(COMPAT),
    matches: (record: Of<'memory-executable'>) => !record.writable && record.operation === 'mprotect',
  },
  {
    behaviour: 'map-library',
    kind: 'library',
    variants: ways(COMPAT),
    matches: (record: Of<'library'>) => /\/library-\d+$/.test(String(record.path)),
  },
  {
    behaviour: 'ptrace-attach',
    kind: 'process-access',
    variants: ways(THREADS),
    matches: operation('ptrace-attach'),
  },
  {
    behaviour: 'ptrace-seize',
    kind: 'process-access',
    variants: ways(),
    matches: operation('ptrace-seize'),
  },
  { behaviour: 'ptrace-peek', kind: 'process-access', variants: ways(), matches: operation('ptrace-read') },
  {
    behaviour: 'ptrace-poke',
    kind: 'process-access',
    variants: ways(),
    matches: operation('ptrace-write'),
  },
  {
    behaviour: 'vm-read',
    kind: 'process-access',
    variants: ways(COMPAT),
    matches: operation('process_vm_readv'),
  },
  {
    behaviour: 'vm-write',
    kind: 'process-access',
    variants: ways(COMPAT),
    matches: operation('process_vm_writev'),
  },
  {
    behaviour: 'mem-open-read',
    kind: 'process-access',
    variants: ways(['--relative'], COMPAT),
    matches: operation('mem-read'),
  },
  {
    behaviour: 'mem-open-write',
    kind: 'process-access',
    variants: ways(['--relative'], COMPAT),
    matches: operation('mem-write'),
  },
  {
    behaviour: 'finit-module',
    kind: 'module',
    variants: ways(COMPAT),
    matches: (record: Of<'module'>) => record.operation === 'load' && record.result < 0,
  },
  {
    behaviour: 'init-module',
    kind: 'module',
    variants: ways(),
    matches: (record: Of<'module'>) => record.operation === 'load' && record.result < 0,
  },
  {
    behaviour: 'delete-module',
    kind: 'module',
    variants: ways(COMPAT),
    matches: (record: Of<'module'>) => record.operation === 'unload' && record.name !== null,
  },
  {
    behaviour: 'bpf-program',
    kind: 'bpf',
    variants: ways(),
    matches: (record: Of<'bpf'>) => record.operation === 'program-load' && record.programType === 1,
  },
  { behaviour: 'bpf-attach', kind: 'bpf', variants: ways(), matches: operation('raw-tracepoint') },
  { behaviour: 'unshare', kind: 'namespace', variants: ways(COMPAT), matches: operation('unshare') },
  { behaviour: 'setns', kind: 'namespace', variants: ways(COMPAT), matches: operation('setns') },
  {
    behaviour: 'mount',
    kind: 'mount',
    needsFolder: true,
    variants: ways(COMPAT),
    matches: (record: Of<'mount'>) => record.operation === 'mount' && record.type === 'tmpfs',
  },
  {
    behaviour: 'umount',
    kind: 'mount',
    needsFolder: true,
    variants: ways(COMPAT),
    matches: (record: Of<'mount'>) => record.operation === 'unmount' && record.result === 0,
  },
  { behaviour: 'setuid', kind: 'credentials', variants: ways(COMPAT), matches: operation('setuid') },
  {
    behaviour: 'setresuid',
    kind: 'credentials',
    variants: ways(COMPAT),
    matches: (record: Of<'credentials'>) => record.operation === 'setresuid' && record.requested.length === 3,
  },
  { behaviour: 'capset', kind: 'credentials', variants: ways(), matches: operation('capset') },
  {
    behaviour: 'raw-socket',
    kind: 'raw-socket',
    variants: ways(COMPAT),
    matches: (record: Of<'raw-socket'>) => record.family === 'ipv4',
  },
  {
    behaviour: 'packet-socket',
    kind: 'raw-socket',
    variants: ways(COMPAT),
    matches: (record: Of<'raw-socket'>) => record.family === 'packet',
  },
  { behaviour: 'listen', kind: 'listen', variants: ways(COMPAT, ['--address', '::1']) },
  { behaviour: 'tcp-connect', kind: 'connect', variants: ways(COMPAT, ['--io-uring'], ['--swap']) },
  { behaviour: 'tcp-accept', kind: 'accept', variants: ways(COMPAT, ['--address', '::1']) },
  {
    behaviour: 'udp-flow',
    kind: 'datagram',
    options: ['--port', '40111'],
    variants: ways(COMPAT, ['--io-uring'], ['--address', '::1']),
    matches: (record: Of<'datagram'>) => record.direction === 'egress',
  },
  {
    behaviour: 'file-chmod',
    kind: 'file-attributes',
    needsFolder: true,
    variants: ways(['--deep'], ['--strange'], COMPAT),
    matches: operation('mode'),
  },
  {
    behaviour: 'file-chown',
    kind: 'file-attributes',
    needsFolder: true,
    variants: ways(['--deep'], COMPAT),
    matches: operation('owner'),
  },
  {
    behaviour: 'file-setxattr',
    kind: 'file-attributes',
    needsFolder: true,
    variants: ways(),
    matches: operation('set-attribute'),
  },
]

export const EXPECTED_ACTIVITIES: readonly ExpectedActivity[] = cases.flatMap((one) =>
  one.variants.map((variant) => ({
    behaviour: one.behaviour,
    kind: one.kind,
    variant,
    words: variant.join(' '),
    matches: (record: SensorRecord) =>
      record.kind === one.kind && (one.matches === undefined || one.matches(record as never)),
    arguments: ({ folder, program }) => [
      ...(/^(?:exec|map-library)/.test(one.behaviour) ? ['--program', program] : []),
      ...(one.needsFolder || /^(?:exec|map-library|mem-open|finit)/.test(one.behaviour)
        ? ['--folder', folder]
        : []),
      ...(one.options ?? []),
      ...variant,
    ],
  })),
)
