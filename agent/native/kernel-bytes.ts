/** Bytes that the kernel hands out as names: usually UTF-8, by no means always. */
import { isUtf8 } from 'node:buffer'
import type { KernelText } from '../sensors/records.ts'

/** A string when the bytes are valid UTF-8, else a copy of the bytes. */
export function kernelText(bytes: Buffer): KernelText {
  return isUtf8(bytes) ? bytes.toString('utf8') : new Uint8Array(bytes)
}

/** Takes a list apart in which each text ends with a zero byte, save perhaps the last. */
export function splitArguments(bytes: Buffer): KernelText[] {
  const texts: KernelText[] = []
  let start = 0
  while (start < bytes.length) {
    const zero = bytes.indexOf(0, start)
    const end = zero === -1 ? bytes.length : zero
    texts.push(kernelText(bytes.subarray(start, end)))
    start = end + 1
  }
  return texts
}
