/** How much time passed, by a clock that somebody may set: nothing is put off for as long as it was ahead. */

/** Milliseconds since this was made: a clock that is set back adds none, and goes on from there. */
export function createElapsed(clock: () => number): () => number {
  let lastMs = clock()
  let sumMs = 0
  return () => {
    const readMs = clock()
    if (readMs > lastMs) sumMs += readMs - lastMs
    lastMs = readMs
    return sumMs
  }
}
