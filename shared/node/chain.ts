/** The hash chain over the rows of a stream: the agent makes it, the controller holds every body against it. */
import { Buffer } from 'node:buffer'
import { hash } from 'node:crypto'
import { EVENT_BYTES_MAX } from '../protocol/limits.ts'

/** The chain's value before the first row of a stream's class. */
export const CHAIN_START: Buffer = Buffer.alloc(32)
export const CHAIN_HASH_BYTES = 32

/** Room for a hash and a body after it, used from call to call: nothing in here waits in between. */
const scratch = Buffer.alloc(CHAIN_HASH_BYTES + EVENT_BYTES_MAX)

/** `SHA-256(previous || body)`, the chain's value after `body`. */
export function chainHash(previous: Uint8Array, body: Uint8Array): Buffer {
  return chainOver(previous, [body])
}

/** The chain's value after all the bodies, in order. */
export function chainOver(previous: Uint8Array, bodies: Iterable<Uint8Array>): Buffer {
  let link = previous
  for (const body of bodies) {
    const bytes = CHAIN_HASH_BYTES + body.length
    const joined = bytes <= scratch.length ? scratch : Buffer.allocUnsafe(bytes)
    joined.set(link, 0)
    joined.set(body, CHAIN_HASH_BYTES)
    // One call over joined bytes costs half of a Hash object fed twice, and a result as text, which is one
    // allocation, a third of one as a buffer.
    joined.write(hash('sha256', joined.subarray(0, bytes), 'binary'), 0, 'latin1')
    link = joined.subarray(0, CHAIN_HASH_BYTES)
  }
  return Buffer.from(link)
}

/** True when the bodies lead from `previousHash` to `lastHash`, both lower-case hex. */
export function verifyChain(
  batch: { readonly previousHash: string; readonly lastHash: string },
  bodies: readonly Uint8Array[],
): boolean {
  return chainOver(Buffer.from(batch.previousHash, 'hex'), bodies).toString('hex') === batch.lastHash
}
