/**
 * TLSH, the locality sensitive hash of Oliver, Cheng and Chen ("TLSH: A Locality Sensitive Hash", 2013), as version
 * 4 writes it: contents that resemble each other have digests that do. 128 buckets, a checksum of one byte, a window
 * of five bytes. Two digests compare only when both cover a whole content, so longer ones have none here.
 */

/** Longer contents have no digest: it costs three times what all the other hashes of a content do. */
export const TLSH_BYTES_MAX = 8 * 1024 ** 2
/** Below it the format defines none. */
const TLSH_BYTES_MIN = 50

export interface Tlsh {
  /** Starts a new content. */
  reset(): void
  update(bytes: Uint8Array): void
  /** "T1" and 70 hexadecimal digits. Null: the content is too short, too long or too uniform. */
  digest(): string | null
}

const BUCKETS = 128
/** So many of them must have counted something: with less the digest would say nothing. */
const FILLED_BUCKETS_MIN = 65
const TRIPLETS = 6

/** The permutation of Pearson, "Fast Hashing of Variable-Length Text Strings" (1990), table 1. */
const PEARSON = Uint8Array.of(
  ...[1, 87, 49, 12, 176, 178, 102, 166, 121, 193, 6, 84, 249, 230, 44, 163],
  ...[14, 197, 213, 181, 161, 85, 218, 80, 64, 239, 24, 226, 236, 142, 38, 200],
  ...[110, 177, 104, 103, 141, 253, 255, 50, 77, 101, 81, 18, 45, 96, 31, 222],
  ...[25, 107, 190, 70, 86, 237, 240, 34, 72, 242, 20, 214, 244, 227, 149, 235],
  ...[97, 234, 57, 22, 60, 250, 82, 175, 208, 5, 127, 199, 111, 62, 135, 248],
  ...[174, 169, 211, 58, 66, 154, 106, 195, 245, 171, 17, 187, 182, 179, 0, 243],
  ...[132, 56, 148, 75, 128, 133, 158, 100, 130, 126, 91, 13, 153, 246, 216, 219],
  ...[119, 68, 223, 78, 83, 88, 201, 99, 122, 11, 92, 32, 136, 114, 52, 10],
  ...[138, 30, 48, 183, 156, 35, 61, 26, 143, 74, 251, 94, 129, 162, 63, 152],
  ...[170, 7, 115, 167, 241, 206, 3, 150, 55, 59, 151, 220, 90, 53, 23, 131],
  ...[125, 173, 15, 238, 79, 95, 89, 16, 105, 137, 225, 224, 217, 160, 37, 123],
  ...[118, 73, 2, 157, 46, 116, 9, 145, 134, 228, 207, 212, 202, 215, 69, 229],
  ...[27, 188, 67, 124, 168, 252, 42, 4, 29, 108, 21, 247, 19, 205, 39, 203],
  ...[233, 40, 186, 147, 198, 192, 155, 33, 164, 191, 98, 204, 165, 180, 117, 76],
  ...[140, 36, 210, 172, 41, 54, 159, 8, 185, 232, 113, 196, 231, 47, 146, 120],
  ...[51, 65, 28, 144, 254, 221, 93, 189, 194, 139, 112, 43, 71, 109, 184, 209],
)

/** The first two of the four steps of a salted Pearson hash, by the newest byte of the window. */
const salted = (salt: number) => Uint8Array.from(PEARSON, (_, byte) => at(PEARSON, at(PEARSON, salt) ^ byte))
// One salt for the checksum and one, each a prime, for each triplet.
const SALTED_0 = salted(0)
const SALTED_2 = salted(2)
const SALTED_3 = salted(3)
const SALTED_5 = salted(5)
const SALTED_7 = salted(7)
const SALTED_11 = salted(11)
const SALTED_13 = salted(13)

/** The longest content of each length code: powers of 1.5, then of 1.3, then of 1.1. */
// biome-ignore format: a table.
const LENGTHS_MAX = [
  1, 2, 3, 5, 7, 11, 17, 25, 38, 57, 86, 129, 194, 291, 437, 656, 854, 1110, 1443, 1876, 2439, 3171, 3475, 3823, 4205,
  4626, 5088, 5597, 6157, 6772, 7450, 8195, 9014, 9916, 10907, 11998, 13198, 14518, 15970, 17567, 19323, 21256, 23382,
  25720, 28292, 31121, 34233, 37656, 41422, 45564, 50121, 55133, 60646, 66711, 73382, 80721, 88793, 97672, 107439,
  118183, 130002, 143002, 157302, 173032, 190335, 209369, 230306, 253337, 278670, 306538, 337191, 370911, 408002,
  448802, 493682, 543050, 597356, 657091, 722800, 795081, 874589, 962048, 1058252, 1164078, 1280486, 1408534, 1549388,
  1704327, 1874759, 2062236, 2268459, 2495305, 2744836, 3019320, 3321252, 3653374, 4018711, 4420582, 4862641, 5348905,
  5883796, 6472176, 7119394, 7831333, 8614467,
]

export function createTlsh(): Tlsh {
  // A Pearson hash ends in the permutation. What is counted here is what goes into that last step: one look-up less
  // for each triplet, and the counts are put where they belong once, in the end. Each triplet has 256 of its own.
  const counts = new Uint32Array(TRIPLETS * 256)
  // The last four bytes of the part before, and room for the first of the next.
  const seam = new Uint8Array(8)
  let checksum = 0
  let length = 0

  /** Counts the windows of five bytes that end at `bytes[4]` and after. */
  function count(bytes: Uint8Array): void {
    let sum = checksum
    let [before4 = 0, before3 = 0, before2 = 0, before1 = 0] = bytes
    for (let index = 4; index < bytes.length; index += 1) {
      // Assertions, because every index is in range and a check for each byte would double the time.
      const byte = bytes[index] as number
      const step0 = PEARSON[(SALTED_0[byte] as number) ^ before1] as number
      const step2 = PEARSON[(SALTED_2[byte] as number) ^ before1] as number
      const step3 = PEARSON[(SALTED_3[byte] as number) ^ before1] as number
      const step5 = PEARSON[(SALTED_5[byte] as number) ^ before2] as number
      const step7 = PEARSON[(SALTED_7[byte] as number) ^ before2] as number
      const step11 = PEARSON[(SALTED_11[byte] as number) ^ before1] as number
      const step13 = PEARSON[(SALTED_13[byte] as number) ^ before3] as number
      sum = PEARSON[step0 ^ sum] as number
      ;(counts[step2 ^ before2] as number) += 1
      ;(counts[256 | (step3 ^ before3)] as number) += 1
      ;(counts[512 | (step5 ^ before3)] as number) += 1
      ;(counts[768 | (step7 ^ before4)] as number) += 1
      ;(counts[1_024 | (step11 ^ before4)] as number) += 1
      ;(counts[1_280 | (step13 ^ before4)] as number) += 1
      before4 = before3
      before3 = before2
      before2 = before1
      before1 = byte
    }
    checksum = sum
  }

  function buckets(): Uint32Array {
    const all = new Uint32Array(256)
    for (let index = 0; index < counts.length; index += 1) {
      all[at(PEARSON, index & 255)] = at(all, at(PEARSON, index & 255)) + at(counts, index)
    }
    return all.subarray(0, BUCKETS)
  }

  return {
    reset() {
      counts.fill(0)
      checksum = 0
      length = 0
    },
    update(bytes) {
      const held = Math.min(length, 4)
      length += bytes.length
      if (length > TLSH_BYTES_MAX || bytes.length === 0) return
      // The windows that reach over the seam of two parts, then those inside of this one.
      const first = bytes.subarray(0, 4)
      seam.set(first, held)
      const joined = held + first.length
      if (held > 0) count(seam.subarray(0, joined))
      count(bytes)
      if (bytes.length >= 4) seam.set(bytes.subarray(-4))
      else seam.copyWithin(0, Math.max(0, joined - 4), joined)
    },
    digest() {
      if (length < TLSH_BYTES_MIN || length > TLSH_BYTES_MAX) return null
      return digestOf(buckets(), checksum, length)
    },
  }
}

/** Lengths that are near each other have the same, or one near to it. Up to `TLSH_BYTES_MAX`. */
export function tlshLengthCode(length: number): number {
  return LENGTHS_MAX.findIndex((lengthMax) => length <= lengthMax)
}

function digestOf(buckets: Uint32Array, checksum: number, length: number): string | null {
  const sorted = buckets.slice().sort()
  if (at(sorted, BUCKETS - FILLED_BUCKETS_MIN) === 0) return null
  const [quarter, half, threeQuarters] = [at(sorted, 31), at(sorted, 63), at(sorted, 95)]
  // With the rounding of single precision, as the reference has it.
  const ratio = (part: number) => Math.trunc(Math.fround(Math.fround(part * 100) / threeQuarters)) % 16
  const ratios = (ratio(half) << 4) | ratio(quarter)
  const body = Buffer.alloc(BUCKETS / 4)
  for (let index = 0; index < BUCKETS; index += 1) {
    const count = at(buckets, index)
    const code = count > threeQuarters ? 3 : count > half ? 2 : count > quarter ? 1 : 0
    // The last buckets come first.
    const place = body.length - 1 - (index >> 2)
    body[place] = at(body, place) | (code << ((index & 3) * 2))
  }
  const header = [checksum, tlshLengthCode(length), ratios].map((byte) => ((byte & 15) << 4) | (byte >> 4))
  return `T1${Buffer.from(header).toString('hex')}${body.toString('hex')}`.toUpperCase()
}

/** Every index is within its array by construction; `0` is what the compiler asks for. */
function at(array: Uint8Array | Uint32Array, index: number): number {
  return array[index] ?? 0
}
