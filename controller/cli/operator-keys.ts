/**
 * The operator's Ed25519 keys. A key never leaves the operator's machine; the controller knows the public half
 * from the keyset, which the offline root signs.
 */
import { createPrivateKey, type KeyObject } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import Type, { type Static } from 'typebox'
import { writeFileDurably } from '../../shared/node/durable-file.ts'
import { readPrivateFile, readSealedKey, writeSealedKey } from '../../shared/node/sealed-file.ts'
import { generateSigningKey, keyIdOf, rawPublicKey } from '../../shared/node/signing.ts'
import { compileSchema, parseStrict } from '../../shared/protocol/parse.ts'
import { EXIT, Failure, usage } from './command.ts'
import type { Home } from './home.ts'

const PURPOSE = 'operator-key'
const KEY_NAME = /^[a-z0-9][a-z0-9._-]{0,63}$/

const KeyFacts = Type.Object(
  {
    v: Type.Literal(1),
    name: Type.String({ maxLength: 64 }),
    keyId: Type.String({ pattern: '^[0-9a-f]{64}$' }),
    publicKey: Type.String({ pattern: '^[0-9a-f]{64}$' }),
    /** False: whoever reads the file can sign. */
    sealed: Type.Boolean(),
    createdAt: Type.String({ maxLength: 32 }),
  },
  { additionalProperties: false },
)
export type KeyFacts = Static<typeof KeyFacts>
const keyFactsCheck = compileSchema(KeyFacts)

/**
 * Makes a key in the home's folder: `<name>.pub.json` and the private half, sealed under the passphrase or, when
 * that is null, in clear with mode 0600.
 */
export async function createOperatorKey(
  home: Pick<Home, 'keysFolder'>,
  name: string,
  passphrase: string | null,
  now: Date = new Date(),
): Promise<KeyFacts> {
  if (!KEY_NAME.test(name)) throw usage('a key is named with a-z, 0-9, dot, dash and underscore')
  mkdirSync(home.keysFolder, { recursive: true, mode: 0o700 })
  const paths = pathsOf(home, name)
  if (existsSync(paths.facts) || existsSync(paths.sealed) || existsSync(paths.clear)) {
    throw new Failure(EXIT.failed, 'exists', `there is a key ${name} already`, 'Choose another name.')
  }
  const key = generateSigningKey()
  const publicKey = rawPublicKey(key)
  if (passphrase !== null) await writeSealedKey(paths.sealed, key, { purpose: PURPOSE, passphrase })
  else writeFileDurably(paths.clear, key.export({ format: 'pem', type: 'pkcs8' }), 0o600)
  const facts: KeyFacts = {
    v: 1,
    name,
    keyId: keyIdOf(publicKey),
    publicKey,
    sealed: passphrase !== null,
    createdAt: now.toISOString(),
  }
  // Last: a key without its facts is not listed, and facts without a key would be.
  writeFileDurably(paths.facts, JSON.stringify(facts), 0o644)
  return facts
}

export function listOperatorKeys(home: Pick<Home, 'keysFolder'>): KeyFacts[] {
  if (!existsSync(home.keysFolder)) return []
  return readdirSync(home.keysFolder)
    .filter((file) => file.endsWith('.pub.json'))
    .sort()
    .flatMap((file) => {
      const parsed = parseStrict(keyFactsCheck, readFileSync(join(home.keysFolder, file), 'utf8'))
      return parsed.ok && file === `${parsed.value.name}.pub.json` ? [parsed.value] : []
    })
}

/** The named key; without a name, the only one there is. */
export function chooseOperatorKey(home: Pick<Home, 'keysFolder'>, name: string | undefined): KeyFacts {
  const keys = listOperatorKeys(home)
  const named = name === undefined ? keys : keys.filter((key) => key.name === name)
  const [key, another] = named
  if (key && !another) return key
  if (another)
    throw usage('there are several keys', `Choose with --key: ${keys.map((k) => k.name).join(', ')}`)
  throw new Failure(
    EXIT.failed,
    'noKey',
    name === undefined ? 'there is no operator key here to sign with' : `there is no key ${name} here`,
    'Make one: `cordon keys create NAME`; then it must be added to the keyset.',
  )
}

/** Opens the private half. `askPassphrase` is called for sealed keys alone. */
export async function openOperatorKey(
  home: Pick<Home, 'keysFolder'>,
  facts: KeyFacts,
  askPassphrase: () => Promise<string>,
): Promise<KeyObject> {
  const paths = pathsOf(home, facts.name)
  const opened = facts.sealed
    ? await readSealedKey(paths.sealed, { purpose: PURPOSE, passphrase: await askPassphrase() })
    : readPrivateFile(paths.clear)
  if (!opened.ok) {
    const exitCode = opened.error.kind === 'wrongPassphrase' ? EXIT.auth : EXIT.failed
    throw new Failure(exitCode, opened.error.kind, opened.error.reason)
  }
  const key = typeof opened.value === 'string' ? createPrivateKey(opened.value) : opened.value
  // The public half is in a file that more may write: a key must be what it is called.
  if (key.asymmetricKeyType !== 'ed25519' || keyIdOf(rawPublicKey(key)) !== facts.keyId) {
    throw new Failure(EXIT.failed, 'keyMismatch', `the files of key ${facts.name} do not belong together`)
  }
  return key
}

function pathsOf(home: Pick<Home, 'keysFolder'>, name: string) {
  const at = (suffix: string) => join(home.keysFolder, `${name}${suffix}`)
  return { facts: at('.pub.json'), sealed: at('.sealed.json'), clear: at('.pem') }
}
