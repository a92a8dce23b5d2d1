/** Contents that are the same in every run, of any length, for tests. */

export type ContentKind = 'noise' | 'sparse' | 'text'

/** `noise`: bytes of every value; `sparse`: of four values; `text`: numbered lines. */
export function content(kind: ContentKind, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  if (kind === 'text') {
    let offset = 0
    for (let line = 1; offset < length; line += 1) {
      offset += bytes.write(`${line * 2_654_435_761} is what line ${line} says\n`, offset, 'latin1')
    }
    return bytes
  }
  // The linear congruential generator of "Numerical Recipes"; its high bits are the better ones.
  let state = 1
  for (let index = 0; index < length; index += 1) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    bytes[index] = kind === 'noise' ? state >>> 24 : state >>> 30
  }
  return bytes
}
