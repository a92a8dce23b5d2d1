/**
 * IP addresses as keys that compare: an IPv4 address is a number, an IPv6 address its 32 hex digits. An
 * IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2) is the IPv4 address, so one host has one key.
 */

/** 0 to 2^32-1 for IPv4; 32 lower case hex digits for IPv6. */
export type AddressKey = number | string

const ADDRESS_CHARACTERS_MAX = 45
const MAPPED_PREFIX = '00000000000000000000ffff'
const DOT = 46
const ZERO = 48
const NINE = 57

/** Null when the text is not an address. Zones (`fe80::1%eth0`) are not addresses. */
export function parseAddress(text: string): AddressKey | null {
  if (text.length > ADDRESS_CHARACTERS_MAX) return null
  const ipv4 = parseIpv4(text)
  if (ipv4 !== null) return ipv4
  const digits = parseIpv6(text)
  if (digits === null) return null
  return digits.startsWith(MAPPED_PREFIX) ? Number.parseInt(digits.slice(24), 16) : digits
}

/** Four decimal numbers without leading zeros: `010` is eight to some programs and ten to others. */
function parseIpv4(text: string): number | null {
  let value = 0
  let octet = -1
  let octets = 0
  for (let index = 0; index < text.length; index += 1) {
    const code = text.charCodeAt(index)
    if (code === DOT) {
      if (octet < 0 || octets === 3) return null
      value = value * 256 + octet
      octets += 1
      octet = -1
    } else if (code >= ZERO && code <= NINE) {
      if (octet === 0) return null
      octet = octet < 0 ? code - ZERO : octet * 10 + code - ZERO
      if (octet > 255) return null
    } else {
      return null
    }
  }
  return octets === 3 && octet >= 0 ? value * 256 + octet : null
}

const GROUP = /^[0-9a-fA-F]{1,4}$/

/** All forms of RFC 4291 section 2.2 to 32 hex digits. */
function parseIpv6(text: string): string | null {
  const halves = text.split('::')
  if (halves.length > 2) return null
  const head = parseGroups(halves[0] ?? '', halves.length === 1)
  const tail = halves.length === 2 ? parseGroups(halves[1] ?? '', true) : ''
  if (head === null || tail === null) return null
  const missing = 32 - head.length - tail.length
  // `::` stands for at least one group of zeros.
  if (halves.length === 2 ? missing < 4 : missing !== 0) return null
  return head + '0'.repeat(missing) + tail
}

function parseGroups(text: string, isEnd: boolean): string | null {
  if (text === '') return ''
  const groups = text.split(':')
  let digits = ''
  for (const [index, group] of groups.entries()) {
    if (isEnd && index === groups.length - 1 && group.includes('.')) {
      const ipv4 = parseIpv4(group)
      if (ipv4 === null) return null
      digits += ipv4.toString(16).padStart(8, '0')
    } else if (GROUP.test(group)) {
      digits += group.toLowerCase().padStart(4, '0')
    } else {
      return null
    }
  }
  return digits.length <= 32 ? digits : null
}

/** `key` is the network's address cut to `prefixLength` bits, as `prefixKey` makes it. */
export interface Network {
  readonly isIpv4: boolean
  readonly prefixLength: number
  readonly key: AddressKey
}

/** Reads `address/length` (RFC 4632, RFC 4291 section 2.3); bits behind the prefix are ignored. */
export function parseNetwork(text: string): Network | null {
  const slash = text.indexOf('/')
  if (slash < 0 || !/^(?:0|[1-9][0-9]{0,2})$/.test(text.slice(slash + 1))) return null
  const addressText = text.slice(0, slash)
  const address = parseAddress(addressText)
  if (address === null) return null
  const isIpv4 = typeof address === 'number'
  const isMapped = isIpv4 && addressText.includes(':')
  const prefixLength = Number(text.slice(slash + 1)) - (isMapped ? 96 : 0)
  if (prefixLength < 0 || prefixLength > (isIpv4 ? 32 : 128)) return null
  return { isIpv4, prefixLength, key: prefixKey(address, prefixLength) }
}

/** The first `prefixLength` bits of an address; equal for two addresses exactly when both are in that network. */
export function prefixKey(address: AddressKey, prefixLength: number): AddressKey {
  if (typeof address === 'number') {
    // Shifts in JavaScript count modulo 32, so a prefix of no bits is a case of its own.
    return prefixLength === 0 ? 0 : (address >>> (32 - prefixLength)) >>> 0
  }
  const whole = prefixLength >> 2
  const rest = prefixLength & 3
  const digits = address.slice(0, whole)
  if (rest === 0) return digits
  return digits + (Number.parseInt(address.charAt(whole), 16) >> (4 - rest)).toString(16)
}
