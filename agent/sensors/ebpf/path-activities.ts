/** Attributes of files and mounts: activities whose paths are partly what the caller wrote. */
import { kernelText } from '../../native/kernel-bytes.ts'
import type { FileAttributesRecord, KernelText, MountRecord } from '../records.ts'
import { lowWord, pathOf, type RawActivity, value } from './raw-activity.ts'
import { textUpToZero } from './record-reader.ts'

const slash = 0x2f
const dot = 0x2e
const permissionBits = 0o7777

/** By number of x86-64. */
const attributeCalls: Readonly<Record<number, FileAttributesRecord['operation']>> = {
  90: 'mode',
  91: 'mode',
  268: 'mode',
  452: 'mode',
  92: 'owner',
  93: 'owner',
  94: 'owner',
  260: 'owner',
  188: 'set-attribute',
  189: 'set-attribute',
  190: 'set-attribute',
  197: 'remove-attribute',
  198: 'remove-attribute',
  199: 'remove-attribute',
}

export function decodeAttributes(raw: RawActivity): FileAttributesRecord | null {
  const operation = attributeCalls[value(raw, 0)]
  if (operation === undefined) return null
  const zero = raw.isCallersPath ? raw.second.indexOf(0) : -1
  const attribute = textUpToZero(raw.second.subarray(zero + 1))
  const path = raw.isCallersPath ? callersPath(raw) : pathOf(raw)
  if (path === null) return null
  return {
    kind: 'file-attributes',
    ...raw.observed,
    operation,
    path,
    mode: operation === 'mode' ? value(raw, 1) & permissionBits : null,
    userId: operation === 'owner' ? idOf(raw, 1) : null,
    groupId: operation === 'owner' ? idOf(raw, 2) : null,
    attribute: operation.endsWith('attribute') ? attribute : null,
  }
}

function idOf(raw: RawActivity, index: number): number | null {
  const id = lowWord(raw, index)
  return id === 0xffff_ffff ? null : id
}

/** What the caller wrote, made absolute with the folder that it is relative to. Null: it could not be read. */
function callersPath(raw: RawActivity): KernelText | null {
  const zero = raw.second.indexOf(0)
  const written = raw.second.subarray(0, zero === -1 ? raw.second.length : zero)
  if (raw.second.length === 0) return null
  if (written[0] === slash) return kernelText(written)
  // With AT_EMPTY_PATH the folder is the file itself.
  if (written.length === 0) return kernelText(raw.first)
  const plain = written[0] === dot && written[1] === slash ? written.subarray(2) : written
  const folder = raw.first.length === 1 ? raw.first.subarray(0, 0) : raw.first
  return kernelText(Buffer.concat([folder, Buffer.from('/'), plain]))
}

const mountOperations: Readonly<Record<number, MountRecord['operation']>> = {
  1: 'mount',
  2: 'unmount',
  3: 'move',
  4: 'pivot-root',
}

/** `values` 1 and 2 say where the first and the second of the texts end. */
export function decodeMount(raw: RawActivity): MountRecord | null {
  const operation = mountOperations[value(raw, 0)]
  const [sourceEnd, targetEnd] = [value(raw, 1), value(raw, 2)]
  if (operation === undefined || sourceEnd > targetEnd || targetEnd > raw.second.length) return null
  return {
    kind: 'mount',
    ...raw.observed,
    operation,
    result: raw.result,
    source: textUpToZero(raw.second.subarray(0, sourceEnd)),
    target: textUpToZero(raw.second.subarray(sourceEnd, targetEnd)),
    type: textUpToZero(raw.second.subarray(targetEnd)),
  }
}
