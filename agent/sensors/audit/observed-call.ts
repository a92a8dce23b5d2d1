/** One system call as an audit event tells it, in typed values. */
import type { KernelText, ProcessReference } from '../records.ts'
import { type AuditEvent, RECORD_TYPES } from './assembly.ts'
import { type Fields, hexadecimalValue, numberValue, textValue } from './record-text.ts'
import { findSystemCall, type SystemCallName } from './system-calls.ts'

export interface ObservedPath {
  readonly name: KernelText | null
  /** NORMAL, PARENT, CREATE, DELETE or UNKNOWN. */
  readonly kind: string
  readonly inode: number | null
  /** st_dev, null when it was not told. */
  readonly device: number | null
}

export interface ObservedCall {
  readonly name: SystemCallName
  /** Users and groups have 16 bits. */
  readonly narrow: boolean
  readonly timestampMs: number
  readonly pid: number
  readonly parentPid: number
  /** Up to six where socketcall(2) tells them, else four. */
  readonly arguments: readonly bigint[]
  /** What the call returned, negative for an error. */
  readonly result: number
  readonly userId: number
  readonly groupId: number
  readonly effectiveUserId: number
  readonly effectiveGroupId: number
  readonly loginUserId: number | null
  readonly terminal: string | null
  readonly executable: KernelText
  readonly workingDirectory: KernelText | null
  readonly paths: readonly ObservedPath[]
  readonly socketAddress: Buffer | null
  /** Whom ptrace(2) was about, in the host's own pids. */
  readonly objectPid: number | null
  readonly moduleName: KernelText | null
}

const unset = 4_294_967_295
/** What socketcall(2) calls stand for, by its first argument (linux/net.h). */
const socketCalls: Readonly<Record<number, SystemCallName>> = {
  1: 'socket',
  2: 'bind',
  3: 'connect',
  4: 'listen',
  5: 'accept',
  18: 'accept4',
}

/** Null when the event holds no system call that was asked for, or one that cannot be read. */
export function observedCall(event: AuditEvent): ObservedCall | null {
  const fields = event.records.find(({ type }) => type === RECORD_TYPES.systemCall)?.fields
  if (fields === undefined) return null
  const architecture = Number.parseInt(fields.get('arch') ?? '', 16)
  const found = findSystemCall(architecture, numberValue(fields.get('syscall')) ?? -1)
  const pid = numberValue(fields.get('pid'))
  if (found === null || pid === null || pid <= 0) return null
  const one = (type: number) => event.records.find((record) => record.type === type)?.fields
  const call = inner(found.name, argumentsOf(fields, ['a0', 'a1', 'a2', 'a3']), one(RECORD_TYPES.socketCall))
  if (call === null) return null
  const loginUserId = numberValue(fields.get('auid')) ?? unset
  const terminal = fields.get('tty')
  return {
    ...call,
    narrow: found.narrow,
    timestampMs: event.timestampMs,
    pid,
    parentPid: numberValue(fields.get('ppid')) ?? 0,
    result: numberValue(fields.get('exit')) ?? 0,
    userId: numberValue(fields.get('uid')) ?? 0,
    groupId: numberValue(fields.get('gid')) ?? 0,
    effectiveUserId: numberValue(fields.get('euid')) ?? 0,
    effectiveGroupId: numberValue(fields.get('egid')) ?? 0,
    loginUserId: loginUserId === unset ? null : loginUserId,
    terminal: terminal === undefined || terminal === '(none)' ? null : terminal,
    executable: textValue(fields.get('exe')) ?? '',
    workingDirectory: textValue(one(RECORD_TYPES.workingDirectory)?.get('cwd')),
    paths: event.records.filter(({ type }) => type === RECORD_TYPES.path).map(({ fields }) => pathOf(fields)),
    socketAddress: bytesOf(one(RECORD_TYPES.socketAddress)?.get('saddr')),
    objectPid: numberValue(one(RECORD_TYPES.objectPid)?.get('opid')),
    moduleName: textValue(one(RECORD_TYPES.kernelModule)?.get('name')),
  }
}

function inner(name: SystemCallName, values: readonly bigint[], socketCall: Fields | undefined) {
  if (name !== 'socketcall') return { name, arguments: values }
  const meant = socketCalls[Number(values[0])]
  if (meant === undefined || socketCall === undefined) return null
  return { name: meant, arguments: argumentsOf(socketCall, ['a0', 'a1', 'a2', 'a3', 'a4', 'a5']) }
}

function argumentsOf(fields: Fields, names: readonly string[]): bigint[] {
  return names.map((name) => hexadecimalValue(fields.get(name)) ?? 0n)
}

function pathOf(fields: Fields): ObservedPath {
  const [major, minor] = (fields.get('dev') ?? '').split(':').map((part) => Number.parseInt(part, 16))
  const known = major !== undefined && minor !== undefined && !Number.isNaN(major + minor)
  return {
    name: textValue(fields.get('name')),
    kind: fields.get('nametype') ?? '',
    inode: numberValue(fields.get('inode')),
    device: known ? deviceNumber(major, minor) : null,
  }
}

/** As stat(2) packs the two halves (makedev(3)), for what fits in 32 bits. */
function deviceNumber(major: number, minor: number): number {
  return (((major & 0xfff) << 8) | (minor & 0xff) | ((minor & 0xfff00) << 12)) >>> 0
}

function bytesOf(value: string | undefined): Buffer | null {
  return value !== undefined && /^(?:[0-9A-Fa-f]{2}){2,256}$/.test(value) ? Buffer.from(value, 'hex') : null
}

/** A number argument in the width of a C int. */
export function intArgument(call: ObservedCall, index: number): number {
  return Number(BigInt.asIntN(32, call.arguments[index] ?? 0n))
}

export function referenceTo(pid: number, keyOf: (pid: number) => ProcessReference | null): ProcessReference {
  return keyOf(pid) ?? { pid, startTicks: null }
}
