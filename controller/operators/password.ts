/**
 * Password hashes: scrypt in the thread pool, so that the event loop goes on, and few at a time, because one
 * hash takes 128 MiB and a crowd of sign-ins must not take the machine.
 */
import { type ScryptOptions, scrypt, timingSafeEqual } from 'node:crypto'
import { promisify } from 'node:util'

const scryptAsync = promisify(scrypt) as (
  password: string,
  salt: Uint8Array,
  keyBytes: number,
  options: ScryptOptions,
) => Promise<Buffer>

const HASH_BYTES = 32
const BLOCK_SIZE = 8
/** Two of libuv's four threads: the others stay free for files and name look-ups. */
const CONCURRENT_MAX = 2
const WAITING_MAX = 64

export const PASSWORD_COST = 2 ** 17
export const PASSWORD_CHARACTERS_MIN = 12
export const PASSWORD_CHARACTERS_MAX = 256

export interface PasswordHasher {
  /** Resolves to `null` when too many hashes wait already. */
  hash(password: string, salt: Uint8Array, cost: number): Promise<Buffer | null>
}

export function createPasswordHasher(): PasswordHasher {
  let running = 0
  const waiting: (() => void)[] = []
  return {
    async hash(password, salt, cost) {
      if (running >= CONCURRENT_MAX) {
        if (waiting.length >= WAITING_MAX) return null
        // The slot is handed over by the one that ends, so `running` does not change here.
        await new Promise<void>((resolve) => waiting.push(resolve))
      } else {
        running += 1
      }
      try {
        return await scryptAsync(password.normalize('NFKC'), salt, HASH_BYTES, {
          N: cost,
          r: BLOCK_SIZE,
          p: 1,
          // scrypt takes 128 * N * r bytes and a little more.
          maxmem: 128 * cost * BLOCK_SIZE + 1024 ** 2,
        })
      } finally {
        const next = waiting.shift()
        if (next) next()
        else running -= 1
      }
    },
  }
}

export function sameBytes(left: Uint8Array, right: Uint8Array): boolean {
  return left.byteLength === right.byteLength && timingSafeEqual(left, right)
}

/** Says what is wrong with a new password, or nothing. */
export function passwordProblem(password: string, name: string): string | undefined {
  const characters = [...password].length
  if (characters < PASSWORD_CHARACTERS_MIN) {
    return `the password has ${characters} characters; it needs at least ${PASSWORD_CHARACTERS_MIN}`
  }
  if (characters > PASSWORD_CHARACTERS_MAX) {
    return `the password has more than ${PASSWORD_CHARACTERS_MAX} characters`
  }
  if (new Set(password).size < 5) return 'the password repeats too few different characters'
  if (password.toLowerCase().includes(name.toLowerCase()) && characters < name.length + 8) {
    return 'the password is little more than the name'
  }
  return undefined
}
