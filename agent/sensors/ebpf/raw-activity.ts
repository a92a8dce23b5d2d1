/** One activity as the kernel programs wrote it, before it is known what it means. */
import { kernelText } from '../../native/kernel-bytes.ts'
import type { ActivityRecord, KernelText, ProcessKey } from '../records.ts'
import { markTruncated, word64 } from './record-reader.ts'

export interface ActivityTarget {
  /** Wall clock minus the monotonic clock, in milliseconds. */
  readonly wallOffsetMs: number
  readonly addActivity: (record: ActivityRecord) => void
  readonly addScript: (chunk: ScriptChunk) => void
  /** The host's pid of a process that the caller sees as `pid`; null when it cannot be found. */
  readonly translatePid: (callerPid: number, pid: number) => number | null
}

/** A piece of what an interpreter read. */
export interface ScriptChunk {
  readonly timestampMs: number
  readonly process: ProcessKey
  readonly descriptor: number
  /** Of the file, after the reading. */
  readonly position: number
  readonly inode: number
  /** Null: not a file with a name. */
  readonly path: KernelText | null
  readonly content: Uint8Array
  /** What was read in all, of which `content` is the beginning. */
  readonly bytesRead: number
}

/** One activity as it came; texts are views of the drained buffer. */
export interface RawActivity {
  readonly buffer: Buffer
  readonly offset: number
  readonly operation: number
  readonly isCallersPath: boolean
  readonly isPathTruncated: boolean
  readonly result: number
  readonly first: Buffer
  readonly second: Buffer
  readonly observed: { readonly timestampMs: number; readonly process: ProcessKey }
}

const valuesOffset = 56

/** Values are exact up to 2^53. */
export function value(raw: RawActivity, index: number): number {
  return word64(raw.buffer, raw.offset + valuesOffset + 8 * index)
}

export function pathOf(raw: RawActivity) {
  const path = kernelText(raw.first)
  return raw.isPathTruncated ? markTruncated(path) : path
}

/** The lower half of a value: what a system call takes for an int or an id. */
export function lowWord(raw: RawActivity, index: number): number {
  return raw.buffer.readUInt32LE(raw.offset + valuesOffset + 8 * index)
}

/** All 64 bits of a value. */
export function wideValue(raw: RawActivity, index: number): bigint {
  return raw.buffer.readBigUInt64LE(raw.offset + valuesOffset + 8 * index)
}
