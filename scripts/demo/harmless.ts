/** What the demo's attack is made of. The EICAR string never stands whole in a file of the project. */

/** The address in Cordon's shipped test indicator: on loopback, where nothing else is. */
export const TEST_INDICATOR_ADDRESS = '127.66.66.66'

/** The EICAR anti-malware test file (68 bytes), put together at run time. */
export function eicar(): string {
  return ['X5O!P%@AP[4\\PZX54(P^)7CC)7}$', 'EICAR-STANDARD-', 'ANTIVIRUS-TEST-FILE!', '$H+H*'].join('')
}
