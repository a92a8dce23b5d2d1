/** Tells what an ELF file is for, after elf(5). What it points to may lie anywhere; outside the bytes at hand is 0. */

const PROGRAM_HEADERS_MAX = 128
const DYNAMIC_ENTRIES_MAX = 512
const PT_DYNAMIC = 2
const PT_INTERP = 3
const DT_FLAGS_1 = 0x6ffffffb
const DF_1_PIE = 0x08000000

/** Null: the header is cut, or the type is none that programs, libraries and the kernel write. */
export function elfMimeType(head: Buffer): string | null {
  const elf = createReader(head)
  switch (elf.sixteen(16)) {
    case 1:
      return 'application/x-object'
    case 2:
      return 'application/x-executable'
    case 3:
      return isProgram(elf) ? 'application/x-pie-executable' : 'application/x-sharedlib'
    case 4:
      return 'application/x-coredump'
    default:
      return null
  }
}

type ElfReader = ReturnType<typeof createReader>

function createReader(head: Buffer) {
  const is64 = head[4] === 2
  const isLittle = head[5] !== 2
  const view = new DataView(head.buffer, head.byteOffset, head.length)
  const thirtyTwo = (offset: number) => (offset + 4 <= head.length ? view.getUint32(offset, isLittle) : 0)
  return {
    is64,
    sixteen: (offset: number) => (offset + 2 <= head.length ? view.getUint16(offset, isLittle) : 0),
    thirtyTwo,
    /** An address or a size. Of 64 bits the lower 32: nothing that is at hand lies further. */
    word: (offset: number) => thirtyTwo(is64 && !isLittle ? offset + 4 : offset),
  }
}

/** A position-independent program asks for an interpreter; one that is linked statically has a flag of its own. */
function isProgram(elf: ElfReader): boolean {
  const tableOffset = elf.word(elf.is64 ? 32 : 28)
  const headerBytes = elf.sixteen(elf.is64 ? 54 : 42)
  const count = Math.min(elf.sixteen(elf.is64 ? 56 : 44), PROGRAM_HEADERS_MAX)
  for (let index = 0; index < count; index += 1) {
    const offset = tableOffset + index * headerBytes
    const type = elf.thirtyTwo(offset)
    if (type === PT_INTERP) return true
    if (type === PT_DYNAMIC && saysProgram(elf, elf.word(offset + (elf.is64 ? 8 : 4)))) return true
  }
  return false
}

function saysProgram(elf: ElfReader, sectionOffset: number): boolean {
  const wordBytes = elf.is64 ? 8 : 4
  for (let index = 0; index < DYNAMIC_ENTRIES_MAX; index += 1) {
    const offset = sectionOffset + index * 2 * wordBytes
    const tag = elf.word(offset)
    if (tag === 0) return false
    if (tag === DT_FLAGS_1) return (elf.word(offset + wordBytes) & DF_1_PIE) !== 0
  }
  return false
}
