/**
 * The code that ends the isolation of a host on the host itself, when nothing can reach it any more: 128 random
 * bits in base32 (RFC 4648, section 6), in groups that a person can read out. The host knows its hash alone.
 */
import { createHash } from 'node:crypto'

export const BREAK_GLASS_BYTES = 16

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'
const CHARACTERS = 26
const GROUP = 5
const DOMAIN = 'cordon/break-glass/v1\0'

/** Such as `ABCDE-FGHIJ-KLMNO-PQRST-UVWXY-Z`. */
export function formatBreakGlassCode(bytes: Uint8Array): string {
  let bits = 0n
  for (const byte of bytes) bits = (bits << 8n) | BigInt(byte)
  // 26 characters carry 130 bits: the last two are zero.
  bits <<= BigInt(CHARACTERS * 5 - BREAK_GLASS_BYTES * 8)
  const characters = Array.from({ length: CHARACTERS }, (_, index) => {
    const value = Number((bits >> BigInt((CHARACTERS - 1 - index) * 5)) & 31n)
    return ALPHABET[value]
  })
  return (characters.join('').match(new RegExp(`.{1,${GROUP}}`, 'g')) ?? []).join('-')
}

/** The bytes of a code as a person typed it, in any case and grouping; null when it is none. */
export function parseBreakGlassCode(text: string): Buffer | null {
  const typed = text.toUpperCase().replaceAll(/[\s-]/g, '')
  if (typed.length !== CHARACTERS) return null
  let bits = 0n
  for (const character of typed) {
    const value = ALPHABET.indexOf(character)
    if (value < 0) return null
    bits = (bits << 5n) | BigInt(value)
  }
  const spare = BigInt(CHARACTERS * 5 - BREAK_GLASS_BYTES * 8)
  if ((bits & ((1n << spare) - 1n)) !== 0n) return null
  return Buffer.from((bits >> spare).toString(16).padStart(BREAK_GLASS_BYTES * 2, '0'), 'hex')
}

/** Lower-case hex, as commands and records carry it. */
export function hashBreakGlassCode(bytes: Uint8Array): string {
  return createHash('sha256').update(DOMAIN).update(bytes).digest('hex')
}
