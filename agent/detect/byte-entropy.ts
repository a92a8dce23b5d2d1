/** Shannon's entropy of the bytes of a content: near 8 bits for each byte, it is compressed or encrypted. */

export interface ByteEntropy {
  /** Starts a new content. */
  reset(): void
  update(bytes: Uint8Array): void
  /** 0 to 8 bits per byte, rounded to three digits; 0 when there are none. */
  bitsPerByte(): number
}

export function createByteEntropy(): ByteEntropy {
  // Four, because equal bytes in a row would each wait for the count of the one before.
  const counts0 = new Uint32Array(256)
  const counts1 = new Uint32Array(256)
  const counts2 = new Uint32Array(256)
  const counts3 = new Uint32Array(256)
  const all = [counts0, counts1, counts2, counts3]

  return {
    reset() {
      for (const counts of all) counts.fill(0)
    },
    update(bytes) {
      // Assertions, because every index is in range and a check for each byte would cost as much as the counting.
      const fourthsEnd = bytes.length - (bytes.length % 4)
      for (let index = 0; index < fourthsEnd; index += 4) {
        ;(counts0[bytes[index] as number] as number) += 1
        ;(counts1[bytes[index + 1] as number] as number) += 1
        ;(counts2[bytes[index + 2] as number] as number) += 1
        ;(counts3[bytes[index + 3] as number] as number) += 1
      }
      for (let index = fourthsEnd; index < bytes.length; index += 1) {
        ;(counts0[bytes[index] as number] as number) += 1
      }
    },
    bitsPerByte() {
      const sums = counts0.map((count, byte) => {
        return count + (counts1[byte] ?? 0) + (counts2[byte] ?? 0) + (counts3[byte] ?? 0)
      })
      const length = sums.reduce((total, sum) => total + sum, 0)
      let bits = 0
      for (const sum of sums) if (sum > 0) bits += (sum / length) * Math.log2(length / sum)
      return Math.round(bits * 1_000) / 1_000
    },
  }
}
