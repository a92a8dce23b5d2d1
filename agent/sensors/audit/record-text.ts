/**
 * The text of audit records: `audit(SECONDS.MILLISECONDS:SERIAL): name=value ...`. What programs can choose
 * stands in quotation marks, or in hexadecimal when it holds a blank, a mark, a control or a byte past ASCII
 * (audit_log_untrustedstring of the kernel), so nothing in a value can pose as another field.
 *
 * Text is read as latin1: each character is one byte.
 */
import { kernelText } from '../../native/kernel-bytes.ts'
import type { KernelText } from '../records.ts'

export interface RecordHeader {
  readonly timestampMs: number
  readonly serial: number
  /** Where the fields begin. */
  readonly bodyStart: number
}

/** Values as they stand in the text, with their quotation marks. */
export type Fields = ReadonlyMap<string, string>

const headerPattern = /^audit\((\d{1,12})\.(\d{3}):(\d{1,10})\): ?/
const headerCharactersMax = 48
const fieldsMaxDefault = 128

export function parseHeader(text: string): RecordHeader | null {
  const match = headerPattern.exec(text.slice(0, headerCharactersMax))
  if (match === null) return null
  return {
    timestampMs: Number(match[1]) * 1_000 + Number(match[2]),
    serial: Number(match[3]),
    bodyStart: match[0].length,
  }
}

/**
 * The first value of each name counts: what comes later in a text of the kernel's never overrides it. `msg='...'`
 * is one value.
 */
export function parseFields(text: string, start = 0, fieldsMax = fieldsMaxDefault): Fields {
  const fields = new Map<string, string>()
  let offset = start
  while (offset < text.length && fields.size < fieldsMax) {
    const equals = text.indexOf('=', offset)
    if (equals === -1) break
    const name = text.slice(Math.max(offset, text.lastIndexOf(' ', equals) + 1), equals)
    const end = valueEnd(text, equals + 1)
    if (name !== '' && !fields.has(name)) fields.set(name, text.slice(equals + 1, end))
    offset = end + 1
  }
  return fields
}

function valueEnd(text: string, start: number): number {
  const first = text[start]
  if (first === '"') {
    const close = text.indexOf('"', start + 1)
    return close === -1 ? text.length : close + 1
  }
  if (first === "'") {
    // Text of a program with CAP_AUDIT_WRITE: it may hold the mark itself, so the last one closes it.
    const close = text.lastIndexOf("'")
    return close <= start ? text.length : close + 1
  }
  const blank = text.indexOf(' ', start)
  const end = blank === -1 ? text.length : blank
  // The kernel ends some texts with a zero byte or a line feed.
  let trimmed = end
  while (trimmed > start && text.charCodeAt(trimmed - 1) < 0x20) trimmed--
  return trimmed
}

const hexadecimal = /^(?:[0-9A-Fa-f]{2})+$/

/** The exact bytes of a value that a program chose; null when it is not there or the kernel has none. */
export function textBytes(value: string | undefined): Buffer | null {
  if (value === undefined || value === '' || value === '(null)' || value === '(none)') return null
  if (value.startsWith('"'))
    return Buffer.from(value.slice(1, value.endsWith('"') ? -1 : undefined), 'latin1')
  return hexadecimal.test(value) ? Buffer.from(value, 'hex') : Buffer.from(value, 'latin1')
}

export function textValue(value: string | undefined): KernelText | null {
  const bytes = textBytes(value)
  return bytes === null ? null : kernelText(bytes)
}

/** A decimal number, also a negative one; null for anything else. */
export function numberValue(value: string | undefined): number | null {
  return value !== undefined && /^-?\d{1,15}$/.test(value) ? Number(value) : null
}

/** An argument of a system call, in hexadecimal without a prefix. */
export function hexadecimalValue(value: string | undefined): bigint | null {
  return value !== undefined && /^[0-9a-f]{1,16}$/.test(value) ? BigInt(`0x${value}`) : null
}
