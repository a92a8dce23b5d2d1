/** Ends a mount that a test made. */
import { spawnSync } from 'node:child_process'

const TRIES = 50
const PAUSE_MS = 100

/**
 * Unmounts within five seconds, or throws what umount says. An agent of a test beside this one watches the whole
 * host, and its scanner may read a file here for a moment; who holds one for longer is found.
 */
export function unmount(path: string): void {
  let said = ''
  for (let attempt = 0; attempt < TRIES; attempt++) {
    const ran = spawnSync('umount', [path], { encoding: 'utf8' })
    if (ran.status === 0) return
    said = ran.stderr
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE_MS)
  }
  throw new Error(`${path} cannot be unmounted: ${said}`)
}
