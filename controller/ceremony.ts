/**
 * What is done by hand and seldom, with the controller's own files: the first ceremony, changes of the keyset
 * with the root's key, tokens and sign-ins for whoever may read the state folder.
 */
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { keyIdOf } from '../shared/node/signing.ts'
import type { Keyset } from '../shared/protocol/commands.ts'
import type { ControllerSettings } from './config/settings.ts'
import { type Authority, createAuthority, openAuthority } from './pki/authority.ts'
import { type KeysetStore, openKeysetStore } from './pki/keyset-store.ts'
import { createPassphraseFile, readPassphraseFile } from './pki/passphrase-file.ts'
import { openRoot } from './pki/root.ts'

/** Something a person can mend; its message says how. */
export class CeremonyError extends Error {}

export function paths(stateFolder: string) {
  return {
    authority: join(stateFolder, 'authority'),
    passphrase: join(stateFolder, 'passphrase'),
    rootPassphrase: join(stateFolder, 'authority', 'root', 'passphrase'),
    state: join(stateFolder, 'state.db'),
    pki: join(stateFolder, 'pki.db'),
    operators: join(stateFolder, 'operators.db'),
    events: join(stateFolder, 'events'),
  }
}

export type OperatorKey = Keyset['operators'][number]

/** `NAME:PUBLICKEY` or `NAME:PUBLICKEY:CD`, the public key as 64 hex digits. */
export function parseOperator(text: string): OperatorKey {
  const match = /^([a-z][a-z0-9._-]{0,63}):([0-9a-f]{64})(?::([CD]{1,2}))?$/.exec(text)
  const [, name, publicKey, classes = 'CD'] = match ?? []
  if (!name || !publicKey) {
    throw new CeremonyError(
      `"${text}" is not NAME:PUBLICKEY[:CLASSES]; \`cordon keys show NAME\` shows the public key`,
    )
  }
  return {
    keyId: keyIdOf(publicKey),
    kind: 'ed25519',
    publicKey,
    name,
    classes: (['C', 'D'] as const).filter((letter) => classes.includes(letter)),
  }
}

/** The first ceremony: root, issuers, server certificate, command key, keyset 1. */
export async function initialise(
  settings: ControllerSettings,
  operators: readonly OperatorKey[],
): Promise<Authority> {
  const files = paths(settings.stateFolder)
  if (existsSync(files.authority)) {
    throw new CeremonyError(
      `${files.authority} is there already; to begin anew, move ${settings.stateFolder} away`,
    )
  }
  mkdirSync(settings.stateFolder, { recursive: true, mode: 0o700 })
  const passphrase = unwrap(createPassphraseFile(settings.passphraseFile ?? files.passphrase))
  mkdirSync(join(files.rootPassphrase, '..'), { recursive: true, mode: 0o700 })
  const rootPassphrase = unwrap(createPassphraseFile(files.rootPassphrase))
  // A fleet with one operator cannot have two signatures on what destroys: said by `init`, changed by `keyset`.
  const thresholds = { C: 1, D: operators.length > 1 ? 2 : 1 }
  return unwrap(
    await createAuthority(files.authority, {
      passphrase,
      rootPassphrase,
      operators: [...operators],
      thresholds,
    }),
  )
}

/** Opens what the running controller needs: never the root's key. */
export async function openControllerAuthority(
  settings: ControllerSettings,
): Promise<{ authority: Authority; keysets: KeysetStore }> {
  const files = paths(settings.stateFolder)
  if (!existsSync(files.authority)) {
    throw new CeremonyError(
      `${settings.stateFolder} holds no authority yet. Make one:\n` +
        '  cordon keys create NAME                              your key; prints its public half\n' +
        '  cordon-controller init --operator NAME:PUBLICKEY\n' +
        'Or name the folder that holds one: setting stateFolder, CORDON_CONTROLLER_STATE.',
    )
  }
  const passphrase = unwrap(readPassphraseFile(settings.passphraseFile ?? files.passphrase))
  const authority = unwrap(await openAuthority(files.authority, passphrase))
  return { authority, keysets: unwrap(openKeysetStore(files.authority, authority)) }
}

/** Signs a keyset with one operator more (or with new classes) by the root, and puts it in force. */
export async function addOperator(settings: ControllerSettings, operator: OperatorKey): Promise<Keyset> {
  const files = paths(settings.stateFolder)
  const { keysets } = await openControllerAuthority(settings)
  const rootPassphrase = unwrap(readPassphraseFile(files.rootPassphrase))
  const root = unwrap(await openRoot(join(files.authority, 'root'), rootPassphrase))
  const before = keysets.keyset()
  const others = before.operators.filter((one) => one.keyId !== operator.keyId)
  const keyset: Keyset = {
    ...before,
    version: before.version + 1,
    issued: Date.now(),
    operators: [...others, operator],
  }
  unwrap(keysets.replace(root.signKeyset(keyset)))
  return keyset
}

function unwrap<Value>(
  outcome:
    | { readonly ok: true; readonly value: Value }
    | { readonly ok: false; readonly error: { readonly reason: string } },
): Value {
  if (!outcome.ok) throw new CeremonyError(outcome.error.reason)
  return outcome.value
}
