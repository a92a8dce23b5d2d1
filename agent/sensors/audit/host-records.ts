/** What is done to the host: kernel modules, eBPF, mounts, and modes and owners of files. */
import { readlinkSync } from 'node:fs'
import { kernelText } from '../../native/kernel-bytes.ts'
import type { BpfRecord, KernelText, MountRecord, ProcessKey, SensorRecord } from '../records.ts'
import { intArgument, type ObservedCall } from './observed-call.ts'
import { idArgument } from './process-records.ts'

type Add = (record: SensorRecord) => void

const bpfOperations: Readonly<Record<number, BpfRecord['operation']>> = {
  5: 'program-load',
  8: 'attach',
  17: 'raw-tracepoint',
  28: 'link',
}
const bindFlag = 0x1000
const moveFlag = 0x2000
const slash = Buffer.from('/')
/** How /proc marks the path of a file that is no longer there. */
const deleted = ' (deleted)'
const currentFolder = -100

export function addModule(call: ObservedCall, process: ProcessKey, add: Add): void {
  add({
    kind: 'module',
    timestampMs: call.timestampMs,
    process,
    operation: call.name === 'delete_module' ? 'unload' : 'load',
    result: call.result,
    name: call.moduleName,
    path: call.name === 'finit_module' ? descriptorTarget(call.pid, intArgument(call, 0)) : null,
  })
}

export function addBpf(call: ObservedCall, process: ProcessKey, add: Add): void {
  const operation = bpfOperations[intArgument(call, 0)]
  if (operation === undefined) return
  // What was loaded lies in memory.
  const unknown = { programName: null, programType: null }
  add({ kind: 'bpf', timestampMs: call.timestampMs, process, operation, result: call.result, ...unknown })
}

export function addMount(call: ObservedCall, process: ProcessKey, add: Add): void {
  const flags = call.name === 'mount' ? intArgument(call, 3) : 0
  const moved = call.name === 'move_mount' || (flags & moveFlag) !== 0
  const [first, second] = call.paths.map(({ name }) => absolute(name, call.workingDirectory))
  // mount(2) looks its target up first, move_mount(2) and pivot_root(2) their arguments in order.
  const isOrdered = call.name === 'move_mount' || call.name === 'pivot_root'
  const [source, target] = isOrdered ? [first, second] : [second, first]
  const tellsSource = isOrdered || (flags & (bindFlag | moveFlag)) !== 0
  add({
    kind: 'mount',
    timestampMs: call.timestampMs,
    process,
    operation: mountOperation(call, moved),
    result: call.result,
    source: tellsSource ? (source ?? null) : null,
    target: target ?? null,
    type: null,
  })
}

function mountOperation(call: ObservedCall, moved: boolean): MountRecord['operation'] {
  if (call.name === 'umount2') return 'unmount'
  if (call.name === 'pivot_root') return 'pivot-root'
  return moved ? 'move' : 'mount'
}

/** Where the arguments of each call stand: the file, then the mode or the owner. */
const attributeArguments: Partial<Readonly<Record<ObservedCall['name'], { at: number; fd?: number }>>> = {
  chmod: { at: 1 },
  fchmod: { at: 1, fd: 0 },
  fchmodat: { at: 2, fd: 0 },
  fchmodat2: { at: 2, fd: 0 },
  chown: { at: 1 },
  lchown: { at: 1 },
  fchown: { at: 1, fd: 0 },
  fchownat: { at: 2, fd: 0 },
}

export function addFileAttributes(call: ObservedCall, process: ProcessKey, add: Add): void {
  const layout = attributeArguments[call.name]
  if (layout === undefined) return
  const path = changedPath(call, layout.fd)
  if (path === null) return
  const base = {
    kind: 'file-attributes',
    timestampMs: call.timestampMs,
    process,
    path,
    attribute: null,
  } as const
  if (call.name.includes('chmod')) {
    const mode = intArgument(call, layout.at) & 0o7777
    add({ ...base, operation: 'mode', mode, userId: null, groupId: null })
    return
  }
  const [userId, groupId] = [idArgument(call, layout.at), idArgument(call, layout.at + 1)]
  const owner = { userId: userId === -1 ? null : userId, groupId: groupId === -1 ? null : groupId }
  add({ ...base, operation: 'owner', mode: null, ...owner })
}

/** Null when the file cannot be named any more: it was given by a descriptor that is closed. */
function changedPath(call: ObservedCall, descriptorAt: number | undefined): KernelText | null {
  const name = call.paths.find((path) => path.kind !== 'PARENT')?.name ?? null
  if (descriptorAt === undefined) return absolute(name, call.workingDirectory)
  const fd = intArgument(call, descriptorAt)
  if (name === null || name.length === 0) return descriptorTarget(call.pid, fd)
  if (isAbsolute(name) || fd === currentFolder) return absolute(name, call.workingDirectory)
  return absolute(name, descriptorTarget(call.pid, fd))
}

function descriptorTarget(pid: number, fd: number): KernelText | null {
  try {
    const target = readlinkSync(`/proc/${pid}/fd/${fd}`, 'buffer')
    if (target[0] !== slash[0]) return null
    const isMarked = target.toString('latin1').endsWith(deleted)
    return kernelText(isMarked ? target.subarray(0, -deleted.length) : target)
  } catch {
    return null
  }
}

function isAbsolute(name: KernelText): boolean {
  return typeof name === 'string' ? name.startsWith('/') : name[0] === slash[0]
}

/** As it was given when there is no folder to put before it. */
function absolute(name: KernelText | null, folder: KernelText | null): KernelText | null {
  if (name === null || name.length === 0 || isAbsolute(name) || folder === null) return name
  const parts = [folder, name].map((text) =>
    typeof text === 'string' ? Buffer.from(text) : Buffer.from(text),
  )
  const [before = slash, after = slash] = parts
  return kernelText(Buffer.concat(before.length === 1 ? [before, after] : [before, slash, after]))
}
