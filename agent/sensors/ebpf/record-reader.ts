/** Numbers and texts in the records of the kernel programs (`agent/native/bpf/records.h`), read in place. */
import { kernelText } from '../../native/kernel-bytes.ts'
import type { KernelText, ProcessKey } from '../records.ts'

export const wordSize = 4_294_967_296
export const pathTruncatedFlag = 2

export function processKey(buffer: Buffer, offset: number): ProcessKey {
  return { pid: buffer.readUInt32LE(offset + 16), startTicks: word64(buffer, offset + 24) }
}

export function parentKey(buffer: Buffer, offset: number): ProcessKey {
  return { pid: buffer.readUInt32LE(offset + 20), startTicks: word64(buffer, offset + 32) }
}

export function timestampMs(buffer: Buffer, offset: number, wallOffsetMs: number): number {
  return Math.round(wallOffsetMs + word64(buffer, offset + 8) / 1_000_000)
}

/** Exact up to 2^53, which is enough for ticks, inodes and sizes that exist. */
export function word64(buffer: Buffer, offset: number): number {
  return buffer.readUInt32LE(offset + 4) * wordSize + buffer.readUInt32LE(offset)
}

/** A path that is not whole lacks its beginning: without a mark, what is left would look absolute. */
export function markTruncated(path: KernelText): KernelText {
  return typeof path === 'string' ? `…${path}` : Buffer.concat([Buffer.from('…'), path])
}

/** Up to the first zero byte; null when nothing is there. */
export function textUpToZero(bytes: Buffer): KernelText | null {
  const zero = bytes.indexOf(0)
  const text = zero === -1 ? bytes : bytes.subarray(0, zero)
  return text.length === 0 ? null : kernelText(text)
}
