/** Takes apart `struct activity_header` (`agent/native/bpf/records.h`): what processes do by system calls. */
import { kernelText } from '../../native/kernel-bytes.ts'
import type { ActivityRecord } from '../records.ts'
import { decodeCredentials, decodeLogon, decodeSignal } from './credential-activities.ts'
import { decodeAttributes, decodeMount } from './path-activities.ts'
import { decodeProcOpened, processAccess, vmAccess } from './process-activities.ts'
import {
  type ActivityTarget,
  pathOf,
  type RawActivity,
  type ScriptChunk,
  value,
  wideValue,
} from './raw-activity.ts'
import { pathTruncatedFlag, processKey, textUpToZero, timestampMs } from './record-reader.ts'

const headerBytes = 104
const operations = {
  rawSocket: 1,
  ptrace: 2,
  vmRead: 3,
  vmWrite: 4,
  procOpened: 5,
  deviceOpened: 6,
  memoryFile: 7,
  library: 8,
  executableMemory: 9,
  moduleLoad: 10,
  moduleUnload: 11,
  bpf: 12,
  unshare: 13,
  setns: 14,
  clone: 15,
  mount: 16,
  credentials: 17,
  attributes: 18,
  script: 19,
  signal: 20,
  logon: 21,
} as const

/** False when the record does not hold together. */
export function decodeActivity(
  buffer: Buffer,
  offset: number,
  recordBytes: number,
  target: ActivityTarget,
): boolean {
  if (recordBytes < headerBytes) return false
  const firstEnd = offset + headerBytes + buffer.readUInt16LE(offset + 42)
  const secondEnd = firstEnd + buffer.readUInt16LE(offset + 44)
  if (secondEnd > offset + recordBytes) return false
  const raw: RawActivity = {
    buffer,
    offset,
    operation: buffer.readUInt16LE(offset + 40),
    isCallersPath: buffer.readUInt16LE(offset + 46) === 1,
    isPathTruncated: ((buffer[offset + 5] ?? 0) & pathTruncatedFlag) !== 0,
    result: Number(buffer.readBigInt64LE(offset + 48)),
    first: buffer.subarray(offset + headerBytes, firstEnd),
    second: buffer.subarray(firstEnd, secondEnd),
    observed: {
      timestampMs: timestampMs(buffer, offset, target.wallOffsetMs),
      process: processKey(buffer, offset),
    },
  }
  if (raw.operation === operations.script) {
    target.addScript(scriptChunk(raw))
    return true
  }
  const record = toRecord(raw, target)
  if (record === undefined) return false
  if (record !== null) target.addActivity(record)
  return true
}

const isPathLess = (raw: RawActivity) => raw.first.length === 0
const writingMode = 2

/** Null: nothing worth telling; undefined: no operation of this version. */
function toRecord(raw: RawActivity, target: ActivityTarget): ActivityRecord | null | undefined {
  const { observed, result } = raw
  switch (raw.operation) {
    case operations.rawSocket: {
      const family = value(raw, 0)
      return {
        kind: 'raw-socket',
        ...observed,
        family: family === 2 ? 'ipv4' : family === 10 ? 'ipv6' : 'packet',
        protocol: value(raw, 1),
      }
    }
    case operations.ptrace:
      return processAccess(raw, target)
    case operations.vmRead:
      return vmAccess(raw, 'process_vm_readv', target)
    case operations.vmWrite:
      return vmAccess(raw, 'process_vm_writev', target)
    case operations.procOpened:
      return decodeProcOpened(raw)
    case operations.deviceOpened:
      return {
        kind: 'device',
        ...observed,
        path: pathOf(raw),
        number: `${value(raw, 1)}:${value(raw, 2)}`,
        writable: (value(raw, 0) & writingMode) !== 0,
      }
    case operations.memoryFile: {
      const name = kernelText(raw.second)
      return {
        kind: 'memory-file',
        ...observed,
        name: typeof name === 'string' ? name.replace(/^memfd:/, '') : name,
        flags: value(raw, 0),
      }
    }
    case operations.library:
      return { kind: 'library', ...observed, path: pathOf(raw), device: value(raw, 0), inode: value(raw, 1) }
    case operations.executableMemory:
      return {
        kind: 'memory-executable',
        ...observed,
        operation: value(raw, 0) === 1 ? 'mmap' : 'mprotect',
        address: wideValue(raw, 1),
        bytes: value(raw, 2),
        writable: value(raw, 3) !== 0,
        path: isPathLess(raw) ? null : pathOf(raw),
      }
    case operations.moduleLoad:
      return {
        kind: 'module',
        ...observed,
        operation: 'load',
        result,
        name: null,
        path: isPathLess(raw) ? null : pathOf(raw),
      }
    case operations.moduleUnload:
      return {
        kind: 'module',
        ...observed,
        operation: 'unload',
        result,
        name: textUpToZero(raw.second),
        path: null,
      }
    case operations.bpf: {
      const operation = bpfCommands[value(raw, 0)]
      if (operation === undefined) return null
      const typeAndOne = value(raw, 1)
      const programType = typeAndOne === 0 ? null : typeAndOne - 1
      return {
        kind: 'bpf',
        ...observed,
        operation,
        result,
        programName: textUpToZero(raw.second),
        programType,
      }
    }
    case operations.unshare:
    case operations.setns:
    case operations.clone: {
      const flags = value(raw, 0) & namespaceBits
      if (flags === 0) return null
      return {
        kind: 'namespace',
        ...observed,
        operation: namespaceOperations[raw.operation] ?? 'clone',
        flags,
      }
    }
    case operations.mount:
      return decodeMount(raw)
    case operations.credentials:
      return decodeCredentials(raw)
    case operations.attributes:
      return decodeAttributes(raw)
    case operations.signal:
      return decodeSignal(raw)
    case operations.logon:
      return decodeLogon(raw)
    default:
      return undefined
  }
}

/** Commands of bpf(2). */
const bpfCommands: Readonly<Record<number, 'program-load' | 'attach' | 'raw-tracepoint' | 'link'>> = {
  5: 'program-load',
  8: 'attach',
  17: 'raw-tracepoint',
  28: 'link',
}
/** CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET (sched.h). */
const namespaceBits = 0x7e02_0080
const namespaceOperations: Readonly<Record<number, 'unshare' | 'setns' | 'clone'>> = {
  [operations.unshare]: 'unshare',
  [operations.setns]: 'setns',
  [operations.clone]: 'clone',
}

function scriptChunk(raw: RawActivity): ScriptChunk {
  return {
    timestampMs: raw.observed.timestampMs,
    process: processKey(raw.buffer, raw.offset),
    descriptor: value(raw, 0),
    position: value(raw, 1),
    inode: value(raw, 4),
    path: isPathLess(raw) ? null : pathOf(raw),
    content: new Uint8Array(raw.second),
    bytesRead: value(raw, 2),
  }
}
