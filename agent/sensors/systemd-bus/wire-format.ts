/**
 * Values of D-Bus as bytes (D-Bus specification, "Type System" and "Wire Format"). Messages come from anybody on the
 * bus, so lengths, depths and numbers of values are checked before anything is kept.
 */

/** Numbers of 64 bits are bigints; arrays, structs and dictionary entries are arrays; of a variant, its value. */
export type Value = string | number | bigint | boolean | readonly Value[]

/** What is wrong with a message. */
export class Malformed extends Error {}

const SIGNATURE_CHARACTERS_MAX = 255
const DEPTH_MAX = 32
const VALUES_MAX = 65_536
const ARRAY_BYTES_MAX = 64 * 1024 * 1024

const ALIGNMENTS: Readonly<Record<string, number>> = {
  y: 1,
  b: 4,
  n: 2,
  q: 2,
  i: 4,
  u: 4,
  x: 8,
  t: 8,
  d: 8,
  h: 4,
  s: 4,
  o: 4,
  g: 1,
  v: 1,
  a: 4,
  '(': 8,
  '{': 8,
}

/** Complete types of a signature, such as `a{sv}` and `u` for `a{sv}u`. */
export function splitSignature(signature: string): string[] {
  if (signature.length > SIGNATURE_CHARACTERS_MAX) throw new Malformed('a signature is too long')
  const types: string[] = []
  for (let at = 0; at < signature.length; ) {
    const end = endOfType(signature, at, 0)
    types.push(signature.slice(at, end))
    at = end
  }
  return types
}

function endOfType(signature: string, at: number, depth: number): number {
  const code = signature[at] ?? ''
  if (depth > DEPTH_MAX || ALIGNMENTS[code] === undefined) throw new Malformed('a signature is wrong')
  if (code === 'a') return endOfType(signature, at + 1, depth + 1)
  if (code !== '(' && code !== '{') return at + 1
  const close = code === '(' ? ')' : '}'
  let next = at + 1
  while (signature[next] !== close) next = endOfType(signature, next, depth + 1)
  if (next === at + 1) throw new Malformed('a signature is wrong')
  return next + 1
}

export interface Reader {
  readonly offset: () => number
  align(bytes: number): void
  read(type: string): Value
}

/** Reads from the start of `bytes`, which must be aligned to 8 bytes within the message. */
export function createReader(bytes: Buffer, isLittleEndian: boolean): Reader {
  let at = 0
  let values = 0

  function take(count: number): number {
    if (count > bytes.length - at) throw new Malformed('a message ends too early')
    at += count
    return at - count
  }
  function align(boundary: number): void {
    take((boundary - (at % boundary)) % boundary)
  }
  function uint32(): number {
    align(4)
    const start = take(4)
    return isLittleEndian ? bytes.readUInt32LE(start) : bytes.readUInt32BE(start)
  }
  function text(length: number): string {
    const start = take(length + 1)
    return bytes.toString('utf8', start, start + length)
  }
  function number(count: 2 | 4 | 8, isSigned: boolean): number | bigint {
    align(count)
    const start = take(count)
    const little = Buffer.from(bytes.subarray(start, start + count))
    if (!isLittleEndian) little.reverse()
    if (count === 8) return isSigned ? little.readBigInt64LE() : little.readBigUInt64LE()
    return isSigned ? little.readIntLE(0, count) : little.readUIntLE(0, count)
  }
  function array(type: string, depth: number): Value[] {
    const length = uint32()
    if (length > ARRAY_BYTES_MAX) throw new Malformed('an array is too long')
    align(ALIGNMENTS[type[0] ?? ''] ?? 1)
    const end = at + length
    if (end > bytes.length) throw new Malformed('a message ends too early')
    const items: Value[] = []
    while (at < end) items.push(one(type, depth + 1))
    if (at !== end) throw new Malformed('an array does not end where it says')
    return items
  }
  function one(type: string, depth: number): Value {
    values += 1
    if (depth > DEPTH_MAX) throw new Malformed('values are nested too deeply')
    if (values > VALUES_MAX) throw new Malformed('there are too many values')
    switch (type[0]) {
      case 'y':
        return bytes[take(1)] ?? 0
      case 'b':
        return uint32() !== 0
      case 'n':
        return number(2, true)
      case 'q':
        return number(2, false)
      case 'i':
        return number(4, true)
      case 'u':
      case 'h':
        return uint32()
      case 'x':
        return number(8, true)
      case 't':
        return number(8, false)
      case 'd':
        // Nothing that is read here is a fraction.
        return number(8, false)
      case 's':
      case 'o':
        return text(uint32())
      case 'g':
        return text(bytes[take(1)] ?? 0)
      case 'v': {
        const signature = text(bytes[take(1)] ?? 0)
        const types = splitSignature(signature)
        const [only] = types
        if (types.length !== 1 || only === undefined) throw new Malformed('a variant holds no single value')
        return one(only, depth + 1)
      }
      case 'a':
        return array(type.slice(1), depth)
      case '(':
      case '{':
        align(8)
        return splitSignature(type.slice(1, -1)).map((field) => one(field, depth + 1))
      default:
        throw new Malformed('a signature is wrong')
    }
  }
  return { offset: () => at, align, read: (type) => one(type, 0) }
}

/** Writes little-endian. Only what this program says: strings, paths, signatures, numbers, variants and arrays. */
export interface Writer {
  align(bytes: number): void
  uint8(value: number): void
  uint32(value: number): void
  uint64(value: bigint): void
  text(value: string): void
  signature(value: string): void
  /** An array, whose items `fill` writes. */
  array(alignment: number, fill: () => void): void
  value(type: string, value: Value): void
  bytes(): Buffer
}

export function createWriter(): Writer {
  let parts = Buffer.alloc(256)
  let at = 0
  const room = (count: number) => {
    if (at + count <= parts.length) return
    const larger = Buffer.alloc(Math.max(parts.length * 2, at + count))
    parts.copy(larger, 0, 0, at)
    parts = larger
  }
  const writer: Writer = {
    align(boundary) {
      const padding = (boundary - (at % boundary)) % boundary
      room(padding)
      at += padding
    },
    uint8(value) {
      room(1)
      at = parts.writeUInt8(value, at)
    },
    uint32(value) {
      writer.align(4)
      room(4)
      at = parts.writeUInt32LE(value, at)
    },
    uint64(value) {
      writer.align(8)
      room(8)
      at = parts.writeBigUInt64LE(value, at)
    },
    text(value) {
      const text = Buffer.from(value)
      writer.uint32(text.length)
      room(text.length + 1)
      text.copy(parts, at)
      at += text.length + 1
    },
    signature(value) {
      writer.uint8(value.length)
      room(value.length + 1)
      at += parts.write(value, at, 'latin1') + 1
    },
    array(alignment, fill) {
      writer.uint32(0)
      const lengthAt = at - 4
      writer.align(alignment)
      const start = at
      fill()
      parts.writeUInt32LE(at - start, lengthAt)
    },
    value(type, value) {
      if (type === 'b') writer.uint32(value === true ? 1 : 0)
      else if (type === 'u') writer.uint32(Number(value))
      else if (type === 't') writer.uint64(BigInt(String(value)))
      else if (type === 's' || type === 'o') writer.text(String(value))
      else if (type === 'g') writer.signature(String(value))
      else if (type === 'v') {
        // A variant is written as its type and its value.
        const [inner = '', content = ''] = value as readonly [string, Value]
        writer.signature(inner)
        writer.value(inner, content)
      } else if (type.startsWith('a')) {
        const item = type.slice(1)
        writer.array(ALIGNMENTS[item[0] ?? ''] ?? 1, () => {
          for (const each of value as readonly Value[]) writer.value(item, each)
        })
      } else if (type.startsWith('(')) {
        writer.align(8)
        const fields = value as readonly Value[]
        for (const [index, field] of splitSignature(type.slice(1, -1)).entries()) {
          writer.value(field, fields[index] ?? '')
        }
      } else throw new Malformed(`${type} is not written`)
    },
    bytes: () => parts.subarray(0, at),
  }
  return writer
}
