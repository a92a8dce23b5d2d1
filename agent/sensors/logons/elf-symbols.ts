/**
 * Where the functions of a shared library begin in its file, from its dynamic symbols (elf(5)): the place that a
 * uprobe is attached to. The file can be anybody's, so every number in it is checked before it is followed.
 */

export type SymbolOffsets =
  | { readonly ok: true; readonly symbols: ReadonlyMap<string, number> }
  | { readonly ok: false; readonly reason: string }

const ELF_MAGIC = 0x7f454c46
const CLASS_64 = 2
const LITTLE_ENDIAN = 1
const TYPE_SHARED = 3
const MACHINES: ReadonlySet<number> = new Set([62, 183])
const SEGMENT_BYTES = 56
const SEGMENTS_MAX = 64
const SEGMENT_LOAD = 1
const SEGMENT_DYNAMIC = 2
const EXECUTABLE = 1
const DYNAMIC_ENTRIES_MAX = 1_024
const TAGS = {
  hash: 4,
  stringTable: 5,
  symbolTable: 6,
  stringBytes: 10,
  symbolBytes: 11,
  gnuHash: 0x6ffffef5,
}
const SYMBOL_BYTES = 24
const SYMBOLS_MAX = 65_536
const FUNCTION = 2

class Refused extends Error {}

interface Segment {
  readonly type: number
  readonly flags: number
  readonly offset: number
  readonly address: number
  readonly fileBytes: number
}

/** File offsets of those of the `wanted` functions that the library defines. Never throws. */
export function readSymbolOffsets(elf: Buffer, wanted: ReadonlySet<string>): SymbolOffsets {
  try {
    const segments = readSegments(elf)
    const dynamic = readDynamic(elf, segments)
    return { ok: true, symbols: findSymbols(elf, segments, dynamic, wanted) }
  } catch (error) {
    // Reads beyond the end throw RangeError: the file says that there is more than there is.
    if (error instanceof Refused) return { ok: false, reason: error.message }
    return { ok: false, reason: 'it points beyond its own end' }
  }
}

function readSegments(elf: Buffer): Segment[] {
  if (elf.length < 64 || elf.readUInt32BE(0) !== ELF_MAGIC) throw new Refused('it is no ELF file')
  if (elf[4] !== CLASS_64 || elf[5] !== LITTLE_ENDIAN)
    throw new Refused('it is not of 64 bits, little end first')
  if (elf.readUInt16LE(16) !== TYPE_SHARED) throw new Refused('it is no shared library')
  if (!MACHINES.has(elf.readUInt16LE(18))) throw new Refused('it is for another processor')
  const start = readNumber(elf, 32)
  const count = elf.readUInt16LE(56)
  if (elf.readUInt16LE(54) !== SEGMENT_BYTES || count > SEGMENTS_MAX)
    throw new Refused('its segments are malformed')
  return Array.from({ length: count }, (_, index) => {
    const at = start + index * SEGMENT_BYTES
    return {
      type: elf.readUInt32LE(at),
      flags: elf.readUInt32LE(at + 4),
      offset: readNumber(elf, at + 8),
      address: readNumber(elf, at + 16),
      fileBytes: readNumber(elf, at + 32),
    }
  })
}

/** A number of 64 bits; no file is as long as one that a double does not hold. */
function readNumber(elf: Buffer, at: number): number {
  const value = Number(elf.readBigUInt64LE(at))
  if (!Number.isSafeInteger(value)) throw new Refused('it holds a number that is too large')
  return value
}

/** Where in the file an address of the loaded library comes from. */
function toOffset(segments: readonly Segment[], address: number, flags = 0): number {
  const segment = segments.find(
    (each) =>
      each.type === SEGMENT_LOAD &&
      (each.flags & flags) === flags &&
      address >= each.address &&
      address - each.address < each.fileBytes,
  )
  if (segment === undefined) throw new Refused('it points outside of what it loads')
  return address - segment.address + segment.offset
}

function readDynamic(elf: Buffer, segments: readonly Segment[]): ReadonlyMap<number, number> {
  const segment = segments.find(({ type }) => type === SEGMENT_DYNAMIC)
  if (segment === undefined) throw new Refused('it has no dynamic section')
  const entries = new Map<number, number>()
  for (let index = 0; index < DYNAMIC_ENTRIES_MAX; index++) {
    const at = segment.offset + index * 16
    const tag = elf.readBigInt64LE(at)
    if (tag === 0n) return entries
    // Other tags can hold numbers that are no addresses.
    const name = Number(tag)
    if (Object.values(TAGS).includes(name)) entries.set(name, readNumber(elf, at + 8))
  }
  throw new Refused('its dynamic section has no end')
}

function findSymbols(
  elf: Buffer,
  segments: readonly Segment[],
  dynamic: ReadonlyMap<number, number>,
  wanted: ReadonlySet<string>,
): ReadonlyMap<string, number> {
  const addressOf = (tag: number) => {
    const address = dynamic.get(tag)
    if (address === undefined) throw new Refused('its dynamic section is incomplete')
    return toOffset(segments, address)
  }
  if (dynamic.get(TAGS.symbolBytes) !== SYMBOL_BYTES) throw new Refused('its symbols are malformed')
  const symbols = addressOf(TAGS.symbolTable)
  const strings = addressOf(TAGS.stringTable)
  const stringsEnd = Math.min(elf.length, strings + (dynamic.get(TAGS.stringBytes) ?? 0))
  const count = dynamic.has(TAGS.hash)
    ? elf.readUInt32LE(addressOf(TAGS.hash) + 4)
    : countByGnuHash(elf, addressOf(TAGS.gnuHash))
  if (count > SYMBOLS_MAX) throw new Refused('it has too many symbols')
  const found = new Map<string, number>()
  for (let index = 1; index < count; index++) {
    const at = symbols + index * SYMBOL_BYTES
    const isDefined = elf.readUInt16LE(at + 6) !== 0
    if (!isDefined || ((elf[at + 4] ?? 0) & 0xf) !== FUNCTION) continue
    const name = nameAt(elf, strings + elf.readUInt32LE(at), stringsEnd)
    if (wanted.has(name) && !found.has(name)) {
      found.set(name, toOffset(segments, readNumber(elf, at + 8), EXECUTABLE))
    }
  }
  return found
}

const NAME_BYTES_MAX = 128

function nameAt(elf: Buffer, start: number, stringsEnd: number): string {
  const end = Math.min(start + NAME_BYTES_MAX, stringsEnd)
  if (start >= end) return ''
  const zero = elf.subarray(start, end).indexOf(0)
  return zero === -1 ? '' : elf.toString('latin1', start, start + zero)
}

/** The table of DT_GNU_HASH does not say how many symbols there are: its last chain ends at the last one. */
function countByGnuHash(elf: Buffer, table: number): number {
  const buckets = elf.readUInt32LE(table)
  const firstHashed = elf.readUInt32LE(table + 4)
  const bloomWords = elf.readUInt32LE(table + 8)
  if (buckets > SYMBOLS_MAX || bloomWords > SYMBOLS_MAX || firstHashed > SYMBOLS_MAX) {
    throw new Refused('its table of symbols is too large')
  }
  const bucketsStart = table + 16 + bloomWords * 8
  let last = 0
  for (let index = 0; index < buckets; index++) {
    last = Math.max(last, elf.readUInt32LE(bucketsStart + index * 4))
  }
  if (last < firstHashed) return firstHashed
  const chains = bucketsStart + buckets * 4
  while (last <= SYMBOLS_MAX && (elf.readUInt32LE(chains + (last - firstHashed) * 4) & 1) === 0) last++
  return last + 1
}
