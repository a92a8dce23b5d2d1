/** What a process does to another one, from its system calls and from what it opens below /proc. */
import type { ProcessAccessRecord, SysctlRecord } from '../records.ts'
import { type ActivityTarget, pathOf, type RawActivity, value } from './raw-activity.ts'

type AccessOperation = ProcessAccessRecord['operation']

/** PTRACE_* (linux/ptrace.h, asm/ptrace-abi.h). */
const traceRequests: Readonly<Record<number, AccessOperation>> = {
  1: 'ptrace-read',
  2: 'ptrace-read',
  3: 'ptrace-read',
  4: 'ptrace-write',
  5: 'ptrace-write',
  6: 'ptrace-write',
  12: 'ptrace-read',
  13: 'ptrace-write',
  14: 'ptrace-read',
  15: 'ptrace-write',
  16: 'ptrace-attach',
  18: 'ptrace-read',
  19: 'ptrace-write',
  16900: 'ptrace-read',
  16901: 'ptrace-write',
  16902: 'ptrace-seize',
}

/** Null when the caller named a process that nobody knows. */
function pidOf(raw: RawActivity, pid: number, depth: number, target: ActivityTarget): number | null {
  return depth === 0 ? pid : target.translatePid(raw.observed.process.pid, pid)
}

export function processAccess(raw: RawActivity, target: ActivityTarget): ProcessAccessRecord | null {
  const operation = traceRequests[value(raw, 0)]
  return operation === undefined ? null : vmAccess(raw, operation, target)
}

export function vmAccess(
  raw: RawActivity,
  operation: AccessOperation,
  target: ActivityTarget,
): ProcessAccessRecord {
  const asked = value(raw, 1)
  const pid = pidOf(raw, asked, value(raw, 2), target) ?? asked
  return {
    kind: 'process-access',
    ...raw.observed,
    operation,
    // What they return otherwise is a number of bytes, or a word that was read.
    result: Math.min(raw.result, 0),
    target: { pid, startTicks: null },
  }
}

const writingMode = 2
const memoryFile = /\/(\d+)(?:\/task\/\d+)?\/mem$/
const sysctlFile = /\/sys\/(?:kernel|net|vm|fs|dev|user|abi|debug)\//

/** A file of /proc was opened: another process's memory, or a setting of the kernel. Null: neither. */
export function decodeProcOpened(raw: RawActivity): ProcessAccessRecord | SysctlRecord | null {
  const path = pathOf(raw)
  if (typeof path !== 'string') return null
  const writes = (value(raw, 0) & writingMode) !== 0
  const memory = memoryFile.exec(path)
  if (memory) {
    const pid = Number(memory[1])
    // A process that reads itself learns nothing; one that writes itself gets past the protection of its pages.
    if (!writes && pid === raw.observed.process.pid) return null
    return {
      kind: 'process-access',
      ...raw.observed,
      operation: writes ? 'mem-write' : 'mem-read',
      result: 0,
      target: { pid, startTicks: null },
    }
  }
  return writes && sysctlFile.test(path) ? { kind: 'sysctl', ...raw.observed, path } : null
}
