/** The keyset in force: exact signed bytes in a file, replaced only by a newer one that the root signed. */

import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import Type from 'typebox'
import { writeFileDurably } from '../../shared/node/durable-file.ts'
import { type SignedKeyset, verifyKeyset } from '../../shared/node/keyset.ts'
import type { Keyset } from '../../shared/protocol/commands.ts'
import { KEYSET_BYTES_MAX } from '../../shared/protocol/limits.ts'
import { compileSchema, parseStrict } from '../../shared/protocol/parse.ts'
import { failed, type Outcome, type PkiError } from './outcome.ts'

const fileBytesMax = 2 * KEYSET_BYTES_MAX
const KeysetFile = Type.Object(
  { keyset: Type.String({ maxLength: fileBytesMax }), rootSignature: Type.String({ maxLength: 2_048 }) },
  { additionalProperties: false },
)
const keysetFileCheck = compileSchema(KeysetFile)

export interface KeysetStore {
  /** As it goes to agents: base64 of the exact bytes and of the root's signature. */
  current(): SignedKeyset & { readonly version: number }
  /** The keyset itself, to plan by. */
  keyset(): Keyset
  /** Takes a newer keyset that the root signed. */
  replace(signed: SignedKeyset): Outcome<{ readonly version: number }, PkiError<'invalid'>>
}

/** Opens the keyset in `folder`. An expired one opens too, so that it can be replaced. */
export function openKeysetStore(
  folder: string,
  authority: { readonly rootPem: string; readonly fleet: string },
  clock: () => number = Date.now,
): Outcome<KeysetStore, PkiError<'malformed'>> {
  const rootKey = new X509Certificate(authority.rootPem).publicKey
  const stored = readKeysetFile(folder)
  if (!stored) return failed('malformed', `${pathIn(folder)} cannot be read as a keyset`)
  const loaded = verifyKeyset(stored, { rootKey, fleet: authority.fleet, versionMin: 1, nowMs: null })
  if (!loaded.ok) return failed('malformed', `${pathIn(folder)} is not valid: ${loaded.failure.reason}`)
  let current: { signed: SignedKeyset; keyset: Keyset } = { signed: stored, keyset: loaded.keyset }
  return {
    ok: true,
    value: {
      current: () => ({ version: current.keyset.version, ...current.signed }),
      keyset: () => current.keyset,
      replace(signed) {
        const versionMin = current.keyset.version + 1
        const result = verifyKeyset(signed, { rootKey, fleet: authority.fleet, versionMin, nowMs: clock() })
        if (!result.ok) return failed('invalid', result.failure.reason)
        writeKeysetFile(folder, signed)
        current = {
          signed: { keyset: signed.keyset, rootSignature: signed.rootSignature },
          keyset: result.keyset,
        }
        return { ok: true, value: { version: result.keyset.version } }
      },
    },
  }
}

export function writeKeysetFile(folder: string, { keyset, rootSignature }: SignedKeyset): void {
  writeFileDurably(pathIn(folder), JSON.stringify({ keyset, rootSignature }), 0o600)
}

function readKeysetFile(folder: string): SignedKeyset | undefined {
  try {
    const parsed = parseStrict(keysetFileCheck, readFileSync(pathIn(folder), 'utf8'), fileBytesMax)
    return parsed.ok ? parsed.value : undefined
  } catch {
    return undefined
  }
}

const pathIn = (folder: string) => join(folder, 'keyset.json')
