/** Rows of btmp and wtmp: `struct utmp` of glibc on x86-64 (utmp(5)), 384 bytes each. */
import { kernelText } from '../../native/kernel-bytes.ts'
import type { KernelText } from '../records.ts'

export const UTMP_ROW_BYTES = 384

/** Values of ut_type. */
export const UTMP_TYPES = { bootTime: 2, loginProcess: 6, userProcess: 7, deadProcess: 8 } as const
const TYPE_MAX = 9

export interface UtmpRow {
  readonly type: number
  readonly pid: number
  /** Name of the terminal below /dev, or what the program wrote there. */
  readonly line: string
  readonly user: KernelText
  /** A host name or an address; null: none. */
  readonly host: KernelText | null
  /** Milliseconds since 1970. */
  readonly timeMs: number
}

/** Null when the bytes are no row. `row` holds 384 bytes. */
export function readUtmpRow(row: Buffer): UtmpRow | null {
  const type = row.readInt16LE(0)
  if (row.length !== UTMP_ROW_BYTES || type < 0 || type > TYPE_MAX) return null
  const host = textAt(row, 76, 256)
  return {
    type,
    pid: row.readInt32LE(4),
    line: textAt(row, 8, 32).toString('utf8'),
    user: kernelText(textAt(row, 44, 32)),
    host: host.length > 0 ? kernelText(host) : addressAt(row, 348),
    timeMs: row.readUInt32LE(340) * 1_000 + Math.trunc(row.readInt32LE(344) / 1_000),
  }
}

function textAt(row: Buffer, offset: number, bytesMax: number): Buffer {
  const field = row.subarray(offset, offset + bytesMax)
  const end = field.indexOf(0)
  return end === -1 ? field : field.subarray(0, end)
}

/** ut_addr_v6 in network order: only its first word is set for IPv4. */
function addressAt(row: Buffer, offset: number): string | null {
  const bytes = row.subarray(offset, offset + 16)
  if (bytes.every((byte) => byte === 0)) return null
  if (bytes.subarray(4).every((byte) => byte === 0)) return bytes.subarray(0, 4).join('.')
  const words = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(index * 2).toString(16))
  return words.join(':')
}
