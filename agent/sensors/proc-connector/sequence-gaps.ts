/** Counts what is missing in the numbers that the kernel gives the events of each cpu. */

const wordSize = 4_294_967_296
/** A step back, or one this wide, is a counter that began anew. */
const stepMax = 2 ** 31
/** What is of no cpu has no number. */
const noCpu = 0xffff_ffff
const cpusMax = 8_192

export interface SequenceGaps {
  /** How many numbers lie between this one and the last of the same cpu. */
  add(cpu: number, sequence: number): number
}

export function createSequenceGaps(): SequenceGaps {
  const expected = new Map<number, number>()
  return {
    add(cpu, sequence) {
      if (cpu === noCpu) return 0
      const before = expected.get(cpu)
      if (before === undefined && expected.size >= cpusMax) return 0
      expected.set(cpu, (sequence + 1) % wordSize)
      if (before === undefined) return 0
      const missing = (sequence - before + wordSize) % wordSize
      return missing < stepMax ? missing : 0
    },
  }
}
