/** The passphrase that opens the issuers' keys at start, in a file that only the controller's user may read. */
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { writeFileDurably } from '../../shared/node/durable-file.ts'
import { readPrivateFile, type SealedFileError } from '../../shared/node/sealed-file.ts'
import { failed, type Outcome } from './outcome.ts'

/** Makes a random passphrase of 256 bits, mode 0600. A file that stands already is kept and read. */
export function createPassphraseFile(path: string): Outcome<string, SealedFileError> {
  if (!existsSync(path)) writeFileDurably(path, `${randomBytes(32).toString('hex')}\n`, 0o600)
  return readPassphraseFile(path)
}

export function readPassphraseFile(path: string): Outcome<string, SealedFileError> {
  const text = readPrivateFile(path)
  if (!text.ok) return text
  const passphrase = text.value.replace(/\r?\n$/, '')
  return passphrase === '' ? failed('malformed', `${path} is empty`) : { ok: true, value: passphrase }
}
