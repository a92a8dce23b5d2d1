/**
 * What an ELF file of 64 bits says of itself (elf(5), System V ABI chapters 4 and 5): where it starts, what is
 * loaded, and which bytes of it belong to something.
 */
import { fstatSync, readSync } from 'node:fs'

const MAGIC = '\x7fELF'
const CLASS_64 = 2
const LITTLE_ENDIAN = 1
const EXECUTABLE = 2
const POSITION_INDEPENDENT = 3
const LOADED = 1
const PROGRAM_HEADER_TABLE = 6
const WITHOUT_BYTES = 8

const HEADER_BYTES = 64
const SEGMENT_BYTES = 56
const SECTION_BYTES = 64
/** More of them are counted elsewhere, which no program needs. */
const TABLE_ENTRIES_MAX = 0xff00

/** In the file's header and in a segment's, the fields that are written. */
export const ENTRY_FIELD = 24
export const FILE_BYTES_FIELD = 32
export const MEMORY_BYTES_FIELD = 40

export const X86_64 = 62

/** Bytes of the file, from `start` up to `end`. */
export interface Range {
  readonly start: number
  readonly end: number
}

export interface Segment {
  /** Where its header is in the file. */
  readonly headerOffset: number
  readonly isReadable: boolean
  readonly isWritable: boolean
  readonly isExecutable: boolean
  readonly offset: number
  readonly address: number
  readonly fileBytes: number
  readonly memoryBytes: number
}

export interface ElfLayout {
  readonly machine: number
  /** Address of the first instruction, as the file counts addresses. */
  readonly entry: number
  /** What is loaded, in the order of addresses. */
  readonly segments: readonly Segment[]
  /** Everything in the file that has a header, and the headers. */
  readonly claims: readonly Range[]
}

/** Throws what is wrong with the file, without its name. Reads headers alone. */
export function readElfLayout(file: number): ElfLayout {
  const sizeBytes = fstatSync(file).size
  const header = readBytes(file, 0, HEADER_BYTES, sizeBytes)
  checkHeader(header)
  const segmentTable = table(header, 32, 54, 56, SEGMENT_BYTES, 'segments')
  const sectionTable = table(header, 40, 58, 60, SECTION_BYTES, 'sections')
  const claims: Range[] = [{ start: 0, end: HEADER_BYTES }, segmentTable, sectionTable]
  const segments: Segment[] = []
  for (const { bytes, offset } of entries(file, segmentTable, SEGMENT_BYTES, sizeBytes)) {
    const type = bytes.readUInt32LE(0)
    const segment = readSegment(bytes, offset)
    // The table claims itself by its real size; tools that move it leave any size in this segment.
    if (type !== PROGRAM_HEADER_TABLE) claims.push(range(segment.offset, segment.fileBytes, sizeBytes))
    if (type === LOADED) segments.push(segment)
  }
  for (const { bytes } of entries(file, sectionTable, SECTION_BYTES, sizeBytes)) {
    if (bytes.readUInt32LE(4) === WITHOUT_BYTES) continue
    claims.push(range(readNumber(bytes, 24), readNumber(bytes, 32), sizeBytes))
  }
  checkOrder(segments)
  return { machine: header.readUInt16LE(18), entry: readNumber(header, ENTRY_FIELD), segments, claims }
}

function checkHeader(header: Buffer): void {
  if (header.toString('latin1', 0, 4) !== MAGIC) throw new Error('is not an ELF file')
  if (header[4] !== CLASS_64 || header[5] !== LITTLE_ENDIAN) {
    throw new Error('is not an ELF file of 64 bits, little end first')
  }
  const type = header.readUInt16LE(16)
  if (type !== EXECUTABLE && type !== POSITION_INDEPENDENT) throw new Error('is an ELF file but no program')
}

/** A table's place, from three fields of the header. */
function table(
  header: Buffer,
  offsetField: number,
  entryBytesField: number,
  countField: number,
  entryBytes: number,
  what: string,
): Range {
  const count = header.readUInt16LE(countField)
  // Without sections nobody can tell which bytes belong to something.
  if (count === 0) throw new Error(`has no table of ${what}`)
  if (count >= TABLE_ENTRIES_MAX) throw new Error(`has too many ${what}`)
  if (header.readUInt16LE(entryBytesField) !== entryBytes)
    throw new Error(`has ${what} of another form than ELF of 64 bits`)
  const start = readNumber(header, offsetField)
  return { start, end: start + count * entryBytes }
}

function entries(
  file: number,
  { start, end }: Range,
  entryBytes: number,
  sizeBytes: number,
): { bytes: Buffer; offset: number }[] {
  const all = readBytes(file, start, end - start, sizeBytes)
  return Array.from({ length: all.length / entryBytes }, (_, index) => ({
    bytes: all.subarray(index * entryBytes, (index + 1) * entryBytes),
    offset: start + index * entryBytes,
  }))
}

function readSegment(bytes: Buffer, headerOffset: number): Segment {
  const flags = bytes.readUInt32LE(4)
  return {
    headerOffset,
    isReadable: (flags & 4) !== 0,
    isWritable: (flags & 2) !== 0,
    isExecutable: (flags & 1) !== 0,
    offset: readNumber(bytes, 8),
    address: readNumber(bytes, 16),
    fileBytes: readNumber(bytes, FILE_BYTES_FIELD),
    memoryBytes: readNumber(bytes, MEMORY_BYTES_FIELD),
  }
}

function checkOrder(segments: readonly Segment[]): void {
  for (const [index, segment] of segments.entries()) {
    const next = segments[index + 1]
    if (segment.fileBytes > segment.memoryBytes) throw new Error('loads more of itself than it has room for')
    if (next !== undefined && next.address < segment.address + segment.memoryBytes)
      throw new Error('loads segments over each other')
  }
}

/** Reads all of the bytes; what the file does not have is an error. */
export function readBytes(file: number, start: number, count: number, sizeBytes: number): Buffer {
  range(start, count, sizeBytes)
  const bytes = Buffer.alloc(count)
  if (readSync(file, bytes, 0, count, start) !== count) throw new Error('ended while it was read')
  return bytes
}

function range(start: number, count: number, sizeBytes: number): Range {
  const end = start + count
  if (end > sizeBytes) throw new Error(`ends at ${sizeBytes} bytes, before something at ${start} to ${end}`)
  return { start, end }
}

/** Addresses and sizes of programs are far below 2^53. */
function readNumber(bytes: Buffer, field: number): number {
  const value = bytes.readBigUInt64LE(field)
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new Error('has an address or size beyond all memory')
  return Number(value)
}
