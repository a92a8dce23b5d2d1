/** IP addresses as text: dotted IPv4, and IPv6 in the one form that RFC 5952 section 4 asks for. */

const addressFamilyIpv4 = 2
const mappedPrefixBytes = 12

/** `bytes` holds 16 bytes; IPv4 uses the first 4. IPv4-mapped addresses (RFC 4291 2.5.5.2) are told as IPv4. */
export function addressText(family: number, bytes: Buffer): string {
  if (family === addressFamilyIpv4) return dotted(bytes, 0)
  if (isMapped(bytes)) return dotted(bytes, mappedPrefixBytes)
  return ipv6Text(bytes)
}

function dotted(bytes: Buffer, offset: number): string {
  return `${bytes[offset]}.${bytes[offset + 1]}.${bytes[offset + 2]}.${bytes[offset + 3]}`
}

function isMapped(bytes: Buffer): boolean {
  for (let index = 0; index < 10; index++) if (bytes[index] !== 0) return false
  return bytes[10] === 0xff && bytes[11] === 0xff
}

function ipv6Text(bytes: Buffer): string {
  const groups: number[] = []
  for (let index = 0; index < 16; index += 2) groups.push(bytes.readUInt16BE(index))
  const zeros = longestZeros(groups)
  if (zeros.length < 2) return hexadecimal(groups)
  return `${hexadecimal(groups.slice(0, zeros.start))}::${hexadecimal(groups.slice(zeros.start + zeros.length))}`
}

function hexadecimal(groups: readonly number[]): string {
  return groups.map((group) => group.toString(16)).join(':')
}

/** The first of the longest runs of zero groups (RFC 5952 4.2.3). */
function longestZeros(groups: readonly number[]): { readonly start: number; readonly length: number } {
  let best = { start: 0, length: 0 }
  let start = 0
  groups.forEach((group, index) => {
    if (group !== 0) start = index + 1
    else if (index + 1 - start > best.length) best = { start, length: index + 1 - start }
  })
  return best
}
