/**
 * The audit rules that Cordon adds, and how they look to the kernel (struct audit_rule_data of linux/audit.h).
 * Each carries the key `cordon`, by which they are found again and deleted, and nobody else's are.
 *
 * They are appended: where the host's own rules ask for the same call, those win and keep their keys, and the
 * event comes all the same. A rule of the host's that says `never` wins too. Audit has no rule for the opening of
 * a device: it filters by path, and a device can be reached by any.
 */
import { ARCHITECTURES, type Architecture, SYSTEM_CALLS, type SystemCallName } from './system-calls.ts'

export const RULE_KEY = 'cordon'

/** Fields and operators of linux/audit.h. */
const fieldNumbers = {
  architecture: 11,
  success: 104,
  addressFamily: 113,
  argument0: 200,
  argument1: 201,
  key: 210,
} as const
const operators = {
  anyBit: 0x0800_0000,
  equal: 0x4000_0000,
  atMost: 0x5000_0000,
  atLeast: 0x6000_0000,
} as const

const filterExit = 4
const actionAlways = 2
const maskWords = 64
const fieldsMax = 64
const headerBytes = 12 + 4 * (maskWords + 3 * fieldsMax) + 4
const fieldsStart = 12 + 4 * maskWords
const valuesStart = fieldsStart + 4 * fieldsMax
const flagsStart = valuesStart + 4 * fieldsMax

export type Condition = readonly [
  field: keyof typeof fieldNumbers,
  operator: keyof typeof operators,
  value: number,
]

export interface AuditRule {
  readonly calls: readonly SystemCallName[]
  readonly conditions: readonly Condition[]
}

/** CLONE_NEW* of linux/sched.h, save CLONE_NEWTIME, whose bit means a signal to clone(2). */
export const NAMESPACE_FLAGS = 0x7e02_0000
export const NAMESPACE_TIME_FLAG = 0x80

const succeeded: Condition = ['success', 'equal', 1]
const inetFamilies = [2, 10]
const anyArgument = (field: Condition[0], values: readonly number[], calls: readonly SystemCallName[]) =>
  values.map((value): AuditRule => ({ calls, conditions: [[field, 'equal', value]] }))

const ofProcesses: readonly AuditRule[] = [
  { calls: ['execve', 'execveat'], conditions: [succeeded] },
  // Reads, writes and PTRACE_TRACEME's neighbours; registers, attaching and seizing.
  {
    calls: ['ptrace'],
    conditions: [
      ['argument0', 'atLeast', 1],
      ['argument0', 'atMost', 6],
    ],
  },
  ...anyArgument('argument0', [13, 16, 0x4205, 0x4206], ['ptrace']),
  { calls: ['process_vm_readv', 'process_vm_writev'], conditions: [] },
  { calls: ['memfd_create'], conditions: [succeeded] },
  {
    calls: ['unshare', 'clone'],
    conditions: [succeeded, ['argument0', 'anyBit', NAMESPACE_FLAGS]],
  },
  { calls: ['unshare'], conditions: [succeeded, ['argument0', 'anyBit', NAMESPACE_TIME_FLAG]] },
  { calls: ['setns'], conditions: [succeeded] },
  {
    calls: ['setuid', 'setgid', 'setreuid', 'setregid', 'setresuid', 'setresgid', 'setfsuid', 'setfsgid'],
    conditions: [succeeded],
  },
]

const ofTheHost: readonly AuditRule[] = [
  { calls: ['init_module', 'finit_module', 'delete_module'], conditions: [] },
  ...anyArgument('argument0', [5, 8, 17, 28], ['bpf']),
  { calls: ['mount', 'umount2', 'move_mount', 'pivot_root'], conditions: [] },
  {
    calls: ['chmod', 'fchmod', 'fchmodat', 'fchmodat2', 'chown', 'fchown', 'lchown', 'fchownat'],
    conditions: [succeeded],
  },
]

const ofSockets: readonly AuditRule[] = [
  // Which sockets are of TCP is known only from their making.
  ...[...inetFamilies, 17].map(
    (family): AuditRule => ({
      calls: ['socket'],
      conditions: [succeeded, ['argument0', 'equal', family]],
    }),
  ),
  ...inetFamilies.map(
    (family): AuditRule => ({
      calls: ['connect', 'bind', 'accept', 'accept4'],
      conditions: [['addressFamily', 'equal', family]],
    }),
  ),
  // A program that does not ask who its peer is.
  { calls: ['accept', 'accept4'], conditions: [succeeded, ['argument1', 'equal', 0]] },
  { calls: ['listen'], conditions: [succeeded] },
  // socketcall(2): socket, bind, connect, listen, accept, accept4. What they are given lies in memory.
  ...anyArgument('argument0', [1, 2, 3, 4, 5, 18], ['socketcall']),
]

/** Signals to one of the agent's processes: by its pid, to its group, and to everybody. */
function ofSignals(pids: readonly number[]): AuditRule[] {
  const calls = ['kill', 'tkill', 'tgkill', 'rt_sigqueueinfo', 'rt_tgsigqueueinfo'] as const
  return pids.flatMap((pid) => [
    ...anyArgument('argument0', [pid], calls),
    ...anyArgument('argument0', [-pid >>> 0], ['kill']),
  ])
}

/** Bounds the rules for signals: each costs a comparison in each kill(2) of the host. */
const PROTECTED_MAX = 8

export function rulesFor(protectedPids: readonly number[]): AuditRule[] {
  return [
    ...ofProcesses,
    ...ofTheHost,
    ...ofSockets,
    ...ofSignals(protectedPids.slice(0, PROTECTED_MAX)),
    ...anyArgument('argument0', [0xffff_ffff], ['kill']),
  ]
}

/** The rule for one architecture; null when that has none of its calls. */
export function encodeRule(rule: AuditRule, architecture: Architecture): Buffer | null {
  const numbers = rule.calls.flatMap((name) => [...SYSTEM_CALLS[name][architecture]])
  if (numbers.length === 0) return null
  const key = Buffer.from(RULE_KEY)
  const data = Buffer.alloc(headerBytes + key.length)
  data.writeUInt32LE(filterExit, 0)
  data.writeUInt32LE(actionAlways, 4)
  for (const number of numbers) {
    const word = 12 + 4 * Math.floor(number / 32)
    data.writeUInt32LE((data.readUInt32LE(word) | (1 << (number % 32))) >>> 0, word)
  }
  const conditions: readonly Condition[] = [
    ['architecture', 'equal', ARCHITECTURES[architecture]],
    ...rule.conditions,
    ['key', 'equal', key.length],
  ]
  conditions.forEach(([field, operator, value], index) => {
    data.writeUInt32LE(fieldNumbers[field], fieldsStart + 4 * index)
    data.writeUInt32LE(value, valuesStart + 4 * index)
    data.writeUInt32LE(operators[operator], flagsStart + 4 * index)
  })
  data.writeUInt32LE(conditions.length, 8)
  data.writeUInt32LE(key.length, headerBytes - 4)
  key.copy(data, headerBytes)
  return data
}

/** Fields whose value is the length of a text behind the rule: subj_*, obj_*, path, dir, exe and the key. */
const textFields = new Set([13, 14, 15, 16, 17, 19, 20, 21, 22, 23, 105, 107, 112, fieldNumbers.key])

/** Whether a rule, as the kernel lists it, has exactly Cordon's key. */
export function isOwnRule(data: Buffer): boolean {
  if (data.length < headerBytes) return false
  const count = Math.min(data.readUInt32LE(8), fieldsMax)
  let offset = headerBytes
  for (let index = 0; index < count; index++) {
    const field = data.readUInt32LE(fieldsStart + 4 * index)
    if (!textFields.has(field)) continue
    const length = data.readUInt32LE(valuesStart + 4 * index)
    if (offset + length > data.length) return false
    if (field === fieldNumbers.key && data.toString('latin1', offset, offset + length) === RULE_KEY)
      return true
    offset += length
  }
  return false
}

/** Whether a rule tells sockets apart by their family, which kernels before 5.3 cannot. */
export function needsAddressFamily(rule: AuditRule): boolean {
  return rule.conditions.some(([field]) => field === 'addressFamily')
}

export function withoutAddressFamily(rule: AuditRule): AuditRule {
  return { ...rule, conditions: rule.conditions.filter(([field]) => field !== 'addressFamily') }
}
