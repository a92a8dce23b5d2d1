/** Follows a file that rows of one size are appended to, across rotation and truncation. */
import { type BigIntStats, closeSync, constants, fstatSync, openSync, readSync, statSync } from 'node:fs'

export interface AppendedRows {
  /** Rows since the last look. Never throws. */
  read(): { readonly rows: readonly Buffer[]; readonly lost: number }
  /** The last rows that are there already; the next look begins after them. */
  readLast(rowsMax: number): readonly Buffer[]
  close(): void
}

const flags = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW | constants.O_NOCTTY
/** Rows that one look gives; what is beyond waits for the next. */
const ROWS_MAX = 2_048
/** More than this behind, the oldest rows are let go, and counted. */
const BACKLOG_ROWS_MAX = 32_768

export function followRows(path: string, rowBytes: number): AppendedRows {
  let descriptor: number | null = null
  let identity = ''
  let offset = 0

  function open(): boolean {
    try {
      const opened = openSync(path, flags)
      const stat = fstatSync(opened, { bigint: true })
      if (!stat.isFile()) {
        closeSync(opened)
        return false
      }
      descriptor = opened
      identity = identityOf(stat)
      offset = 0
      return true
    } catch {
      return false
    }
  }

  function close(): void {
    if (descriptor !== null) closeSync(descriptor)
    descriptor = null
  }

  /** Whole rows between the offset and the end of what is open. */
  function readRows(rows: Buffer[], rowsMax: number): number {
    if (descriptor === null) return 0
    const sizeBytes = Number(fstatSync(descriptor).size)
    // Truncated: what stands there now is new.
    if (sizeBytes < offset) offset = 0
    const behind = Math.floor((sizeBytes - offset) / rowBytes)
    const lost = Math.max(0, behind - BACKLOG_ROWS_MAX)
    offset += lost * rowBytes
    const wanted = Math.min(behind - lost, rowsMax)
    if (wanted === 0) return lost
    const buffer = Buffer.allocUnsafe(wanted * rowBytes)
    const bytes = readSync(descriptor, buffer, 0, buffer.length, offset)
    const count = Math.floor(bytes / rowBytes)
    for (let row = 0; row < count; row++) rows.push(buffer.subarray(row * rowBytes, (row + 1) * rowBytes))
    offset += count * rowBytes
    return lost
  }

  function isReplaced(): boolean {
    try {
      return identityOf(statSync(path, { bigint: true })) !== identity
    } catch {
      return true
    }
  }

  function read(rowsMax: number): { readonly rows: readonly Buffer[]; readonly lost: number } {
    const rows: Buffer[] = []
    let lost = 0
    try {
      if (descriptor === null && !open()) return { rows, lost }
      lost += readRows(rows, rowsMax)
      // What was written to the old file before it was rotated has been read by now.
      if (rows.length < rowsMax && isReplaced()) {
        close()
        if (open()) lost += readRows(rows, rowsMax - rows.length)
      }
    } catch {
      close()
    }
    return { rows, lost }
  }

  return {
    read: () => read(ROWS_MAX),
    readLast(rowsMax) {
      try {
        if (descriptor === null && !open()) return []
        if (descriptor === null) return []
        const whole = Math.floor(Number(fstatSync(descriptor).size) / rowBytes)
        offset = Math.max(0, whole - rowsMax) * rowBytes
        const rows: Buffer[] = []
        readRows(rows, rowsMax)
        return rows
      } catch {
        close()
        return []
      }
    },
    close,
  }
}

function identityOf(stat: BigIntStats): string {
  return `${stat.dev}:${stat.ino}`
}
