/** How programs are told to end. */

/**
 * Aborts at the first SIGINT or SIGTERM; a second one ends the program as if it had no handler. With `withStdin`
 * also when standard input closes, so that a launcher that died leaves nobody behind.
 */
export function stopSignal(withStdin: boolean): AbortSignal {
  const stop = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort())
  if (withStdin) {
    process.stdin.resume()
    process.stdin.once('close', () => stop.abort())
    // An open standard input keeps a program alive whose work is over.
    stop.signal.addEventListener('abort', () => process.stdin.destroy())
  }
  return stop.signal
}
