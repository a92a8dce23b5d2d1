/** Makes the records of one audit event: which system call it was decides who tells it. */
import type { ProcessKey, ProcessReference, SensorRecord } from '../records.ts'
import { type AuditEvent, RECORD_TYPES } from './assembly.ts'
import { addBpf, addFileAttributes, addModule, addMount } from './host-records.ts'
import { createLogons } from './logons.ts'
import { NETWORK_TELLERS } from './network-records.ts'
import { type ObservedCall, observedCall } from './observed-call.ts'
import {
  addCredentials,
  addMemoryFile,
  addNamespace,
  addProcessAccess,
  addSignal,
  execRecord,
} from './process-records.ts'
import { type Fields, numberValue, textValue } from './record-text.ts'
import { RULE_KEY } from './rules.ts'
import { createSocketTable } from './socket-table.ts'
import type { SystemCallName } from './system-calls.ts'

export interface EventContext {
  readonly keyOf: (pid: number) => ProcessKey | null
  /** Pid of the parent; 0 when unknown. */
  readonly parentOf: (pid: number) => number
  /** Pid of the leader of a process's session; 0 when unknown. */
  readonly sessionOf: (pid: number) => number
  readonly isExcluded: (pid: number) => boolean
  /** Processes that signals are told of: the agent's own. */
  readonly isProtected: (pid: number) => boolean
  readonly add: (record: SensorRecord) => void
  /** Somebody else deleted one of Cordon's rules, or switched audit off. */
  readonly configurationChanged: (change: ConfigurationChange) => void
  readonly nowMs: () => number
}

export interface ConfigurationChange {
  readonly kind: 'rule-removed' | 'switched-off'
  readonly timestampMs: number
  readonly process: ProcessReference | null
  readonly executable: string | null
}

type Teller = (call: ObservedCall, process: ProcessKey, event: AuditEvent) => void

/** A function that takes events; it never throws, whatever they hold. */
export function createEventRecords(context: EventContext): (event: AuditEvent) => void {
  const { keyOf, add } = context
  const reference = (pid: number): ProcessReference => keyOf(pid) ?? { pid, startTicks: null }
  const sockets = createSocketTable(context.parentOf, context.nowMs)
  const logons = createLogons(reference)
  const tellers = tellersOf(context)

  function tellConfiguration(event: AuditEvent, fields: Fields): void {
    const removed = textValue(fields.get('op')) === 'remove_rule' && textValue(fields.get('key')) === RULE_KEY
    if (!removed && fields.get('audit_enabled') !== '0') return
    const call = event.records.find(({ type }) => type === RECORD_TYPES.systemCall)?.fields
    const pid = numberValue(call?.get('pid'))
    const executable = textValue(call?.get('exe'))
    context.configurationChanged({
      kind: removed ? 'rule-removed' : 'switched-off',
      timestampMs: event.timestampMs,
      process: pid === null ? null : reference(pid),
      executable: typeof executable === 'string' ? executable : null,
    })
  }

  return (event) => {
    const [first] = event.records
    if (first && first.type < RECORD_TYPES.systemCall) {
      const record = logons.record(first, event.timestampMs)
      if (record) add(record)
      return
    }
    const change = event.records.find(({ type }) => type === RECORD_TYPES.configurationChange)
    if (change) tellConfiguration(event, change.fields)
    const call = observedCall(event)
    if (call === null || context.isExcluded(call.pid)) return
    const process = keyOf(call.pid) ?? { pid: call.pid, startTicks: 0 }
    const network = NETWORK_TELLERS[call.name]
    if (network) network(call, process, sockets, add)
    else tellers[call.name]?.(call, process, event)
  }
}

function tellersOf(context: EventContext): Partial<Readonly<Record<SystemCallName, Teller>>> {
  const { keyOf, add } = context
  const exec: Teller = (call, process, event) => {
    if (call.result < 0) return
    const parent = keyOf(call.parentPid) ?? { pid: call.parentPid, startTicks: 0 }
    add(execRecord(call, process, parent, context.sessionOf(call.pid), event.arguments))
  }
  const access: Teller = (call, process) => addProcessAccess(call, process, keyOf, add)
  const namespace: Teller = (call, process) => addNamespace(call, process, add)
  const credentials: Teller = (call, process) => addCredentials(call, process, add)
  const signal: Teller = (call, process) => addSignal(call, process, context.isProtected, add)
  const module: Teller = (call, process) => addModule(call, process, add)
  const mount: Teller = (call, process) => addMount(call, process, add)
  const attributes: Teller = (call, process) => addFileAttributes(call, process, add)
  return {
    execve: exec,
    execveat: exec,
    ptrace: access,
    process_vm_readv: access,
    process_vm_writev: access,
    memfd_create: (call, process) => addMemoryFile(call, process, add),
    unshare: namespace,
    setns: namespace,
    clone: namespace,
    ...spread(['setuid', 'setgid', 'setreuid', 'setregid', 'setresuid', 'setresgid'], credentials),
    ...spread(['setfsuid', 'setfsgid'], credentials),
    ...spread(['kill', 'tkill', 'tgkill', 'rt_sigqueueinfo', 'rt_tgsigqueueinfo'], signal),
    ...spread(['init_module', 'finit_module', 'delete_module'], module),
    bpf: (call, process) => addBpf(call, process, add),
    ...spread(['mount', 'umount2', 'move_mount', 'pivot_root'], mount),
    ...spread(
      ['chmod', 'fchmod', 'fchmodat', 'fchmodat2', 'chown', 'fchown', 'lchown', 'fchownat'],
      attributes,
    ),
  }
}

function spread(names: readonly SystemCallName[], teller: Teller) {
  return Object.fromEntries(names.map((name) => [name, teller])) as Partial<Record<SystemCallName, Teller>>
}
