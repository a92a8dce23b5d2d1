/**
 * What the running controller holds of the PKI: both issuers and the command key. They lie together in one
 * sealed file, certificates and keys, so that one rename changes all of them.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { join } from 'node:path'
import Type, { type Static } from 'typebox'
import { readSealedFile, type SealedFileError, writeSealedFile } from '../../shared/node/sealed-file.ts'
import { compileSchema, parseStrict } from '../../shared/protocol/parse.ts'
import { failed, type Outcome } from './outcome.ts'

export interface Issuer {
  readonly certificate: X509Certificate
  readonly key: KeyObject
}

export interface OnlineKeys {
  readonly agentsIssuer: Issuer
  readonly serversIssuer: Issuer
  /** Ed25519: signs wrappers and intents of class R. */
  readonly commandKey: KeyObject
}

const purpose = 'controller-online-keys'
const contentBytesMax = 64 * 1024
const closed = { additionalProperties: false } as const
const Pem = Type.String({ maxLength: 16_384 })
const IssuerFile = Type.Object({ certificate: Pem, key: Pem }, closed)
const OnlineKeysFile = Type.Object(
  { agentsIssuer: IssuerFile, serversIssuer: IssuerFile, commandKey: Pem },
  closed,
)
const fileCheck = compileSchema(OnlineKeysFile)

export async function writeOnlineKeys(
  folder: string,
  keys: OnlineKeys,
  passphrase: string,
  scryptCost: number,
): Promise<void> {
  const content: Static<typeof OnlineKeysFile> = {
    agentsIssuer: issuerToPem(keys.agentsIssuer),
    serversIssuer: issuerToPem(keys.serversIssuer),
    commandKey: keyToPem(keys.commandKey),
  }
  const bytes = Buffer.from(JSON.stringify(content), 'utf8')
  await writeSealedFile(pathIn(folder), bytes, { purpose, passphrase, scryptCost })
}

export async function readOnlineKeys(
  folder: string,
  passphrase: string,
): Promise<Outcome<OnlineKeys, SealedFileError>> {
  const opened = await readSealedFile(pathIn(folder), { purpose, passphrase })
  if (!opened.ok) return opened
  const parsed = parseStrict(fileCheck, opened.value.toString('utf8'), contentBytesMax)
  if (!parsed.ok) return failed('malformed', `${pathIn(folder)}: ${parsed.error.reason}`)
  try {
    const { agentsIssuer, serversIssuer, commandKey } = parsed.value
    return {
      ok: true,
      value: {
        agentsIssuer: issuerFromPem(agentsIssuer),
        serversIssuer: issuerFromPem(serversIssuer),
        commandKey: createPrivateKey(commandKey),
      },
    }
  } catch {
    return failed('malformed', `${pathIn(folder)} holds a key or certificate that does not parse`)
  }
}

function issuerToPem({ certificate, key }: Issuer): Static<typeof IssuerFile> {
  return { certificate: certificate.toString(), key: keyToPem(key) }
}

function issuerFromPem({ certificate, key }: Static<typeof IssuerFile>): Issuer {
  return { certificate: new X509Certificate(certificate), key: createPrivateKey(key) }
}

function keyToPem(key: KeyObject): string {
  return key.export({ format: 'pem', type: 'pkcs8' }).toString()
}

const pathIn = (folder: string) => join(folder, 'online-keys.json')
