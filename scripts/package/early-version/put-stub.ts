/**
 * Puts the stub that answers `--version` into a finished program and starts the program with it.
 *
 * It goes behind the code: the last page of a segment with code is in memory as a whole, and what is behind the
 * code in it is padding that belongs to nothing. So nothing moves, no segment is added, and the kernel maps what
 * it mapped before. Everything is checked before the first byte is written.
 */
import { closeSync, fstatSync, openSync, writeSync } from 'node:fs'
import { compileStub } from './compile-stub.ts'
import {
  type ElfLayout,
  ENTRY_FIELD,
  FILE_BYTES_FIELD,
  MEMORY_BYTES_FIELD,
  readBytes,
  readElfLayout,
  type Segment,
  X86_64,
} from './elf-layout.ts'

const PAGE_BYTES = 4096
/** Code of gcc expects no more. */
const CODE_ALIGNMENT = 16
/** `jmp` to an address relative to the next instruction: one byte and 32 bits. It changes no register. */
const JUMP = 0xe9
const JUMP_BYTES = 5

export type PutOutcome =
  | { readonly kind: 'put' }
  /** The program is for another processor; it is as it was. */
  | { readonly kind: 'leftAlone' }

/** A place for the stub, in the file and in memory. */
interface Room {
  readonly segment: Segment
  readonly offset: number
  readonly address: number
}

/** Throws why the file cannot take the stub, and then the file is as it was. */
export function putVersionStub(path: string, version: string): PutOutcome {
  const file = openSync(path, 'r+')
  try {
    const layout = readElfLayout(file)
    if (layout.machine !== X86_64) return { kind: 'leftAlone' }
    checkEntry(layout)
    const stub = compileStub(version)
    const room = findRoom(file, layout, stub.length + JUMP_BYTES)
    const code = Buffer.concat([stub, jump(room.address + stub.length, layout.entry)])
    const { segment } = room
    const growth = room.offset + code.length - (segment.offset + segment.fileBytes)
    write(file, room.offset, code)
    write(file, segment.headerOffset + FILE_BYTES_FIELD, number64(segment.fileBytes + growth))
    write(file, segment.headerOffset + MEMORY_BYTES_FIELD, number64(segment.memoryBytes + growth))
    write(file, ENTRY_FIELD, number64(room.address))
    return { kind: 'put' }
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new Error(`${path} cannot answer its version early: it ${reason}`, { cause })
  } finally {
    closeSync(file)
  }
}

function checkEntry({ entry, segments }: ElfLayout): void {
  const inCode = segments.some(
    ({ isExecutable, address, fileBytes }) => isExecutable && entry >= address && entry < address + fileBytes,
  )
  if (!inCode) throw new Error('starts outside of its code')
}

function findRoom(file: number, layout: ElfLayout, wantedBytes: number): Room {
  for (const [index, segment] of layout.segments.entries()) {
    const { isReadable, isWritable, isExecutable, offset, address, fileBytes, memoryBytes } = segment
    if (!isExecutable || !isReadable || isWritable || fileBytes !== memoryBytes) continue
    // The kernel maps pages, so a segment's place in a page is the same in the file and in memory.
    if (offset % PAGE_BYTES !== address % PAGE_BYTES) continue
    const start = roundUp(address + fileBytes, CODE_ALIGNMENT)
    const end = start + wantedBytes
    if (end > roundUp(address + fileBytes, PAGE_BYTES)) continue
    const next = layout.segments[index + 1]
    if (next !== undefined && end > roundDown(next.address, PAGE_BYTES)) continue
    const room = { segment, offset: start - address + offset, address: start }
    if (isFree(file, layout, offset + fileBytes, room.offset + wantedBytes)) return room
  }
  throw new Error(`has no ${wantedBytes} free bytes behind its code`)
}

/** The bytes belong to nothing, and are the zeros that a linker leaves between segments. */
function isFree(file: number, { claims }: ElfLayout, start: number, end: number): boolean {
  if (claims.some((claim) => claim.start < end && start < claim.end)) return false
  const sizeBytes = fstatSync(file).size
  return end <= sizeBytes && readBytes(file, start, end - start, sizeBytes).every((byte) => byte === 0)
}

function jump(from: number, to: number): Buffer {
  const distance = to - (from + JUMP_BYTES)
  if (distance !== (distance | 0)) throw new Error('has its entry too far from the room behind its code')
  const bytes = Buffer.alloc(JUMP_BYTES, JUMP)
  bytes.writeInt32LE(distance, 1)
  return bytes
}

function number64(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}

function write(file: number, offset: number, bytes: Buffer): void {
  if (writeSync(file, bytes, 0, bytes.length, offset) !== bytes.length)
    throw new Error('could not be written as a whole')
}

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit
}

function roundDown(value: number, unit: number): number {
  return Math.floor(value / unit) * unit
}
