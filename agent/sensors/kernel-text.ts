/** Kernel text in events: readable always, exact where it was not UTF-8, and honest about what was cut. */
import { COMMAND_LINE_CHARACTERS_MAX, PATH_CHARACTERS_MAX } from '../../shared/protocol/limits.ts'
import type { KernelText } from './records.ts'

/** Exact bytes and cut fields of one event; empty for nearly all. */
export interface Fidelity {
  bytes: Record<string, string> | null
  truncated: string[] | null
}

export function createFidelity(): Fidelity {
  return { bytes: null, truncated: null }
}

/** The command line of an argument vector. */
export function commandLine(
  parts: readonly KernelText[],
  partsTruncated: boolean,
  fidelity: Fidelity,
): string {
  // Plain joining, as Sigma's command line fields expect it; `process.args_count` tells how many there were.
  let line: string
  if (parts.every((argument) => typeof argument === 'string')) {
    line = parts.join(' ')
  } else {
    line = parts.map(lossy).join(' ')
    keepBytes('process.command_line', joinBytes(parts), fidelity)
  }
  const cut = line.length > COMMAND_LINE_CHARACTERS_MAX
  if (cut || partsTruncated) markTruncated('process.command_line', fidelity)
  return cut ? line.slice(0, COMMAND_LINE_CHARACTERS_MAX) : line
}

function joinBytes(parts: readonly KernelText[]): Uint8Array {
  const buffers = parts.flatMap((part, index) => [
    ...(index === 0 ? [] : [Buffer.from(' ')]),
    typeof part === 'string' ? Buffer.from(part) : part,
  ])
  return Buffer.concat(buffers)
}

/** Text for a field; exact bytes are kept beside it when it was not UTF-8, and a cut is told. */
export function text(field: string, value: KernelText, fidelity: Fidelity): string {
  const readable = lossy(value)
  if (typeof value !== 'string') keepBytes(field, value, fidelity)
  if (readable.length <= PATH_CHARACTERS_MAX) return readable
  markTruncated(field, fidelity)
  return readable.slice(0, PATH_CHARACTERS_MAX)
}

/** The value of the field is not whole. */
export function markTruncated(field: string, fidelity: Fidelity): void {
  fidelity.truncated ??= []
  fidelity.truncated.push(field)
}

/** Bytes kept beside a lossy text: base64 of 18,000 bytes fits the schema's bound. */
const KEPT_BYTES_MAX = 17_997

function keepBytes(field: string, bytes: Uint8Array, fidelity: Fidelity): void {
  fidelity.bytes ??= {}
  fidelity.bytes[field] = Buffer.from(bytes.subarray(0, KEPT_BYTES_MAX)).toString('base64')
}

export function lossy(value: KernelText): string {
  return typeof value === 'string' ? value : Buffer.from(value).toString('utf8')
}

export function fidelityFields(fidelity: Fidelity) {
  if (fidelity.bytes === null && fidelity.truncated === null) return undefined
  return {
    ...(fidelity.bytes === null ? {} : { 'cordon.bytes': fidelity.bytes }),
    ...(fidelity.truncated === null ? {} : { 'cordon.truncated': fidelity.truncated }),
  }
}
