/**
 * The online part of the PKI: two issuers, one for agents and one for servers, the controller's own leaf and
 * its command key. Private keys are in clear only in memory.
 *
 * `authority.json` is written last: a folder without it holds an unfinished ceremony, which starts over.
 */
import { generateKeyPairSync, type KeyObject, randomBytes, X509Certificate } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import Type from 'typebox'
import { writeFileDurably } from '../../shared/node/durable-file.ts'
import { SCRYPT_COST_DEFAULT, type SealedFileError } from '../../shared/node/sealed-file.ts'
import { generateSigningKey, keyIdOf, rawPublicKey } from '../../shared/node/signing.ts'
import { agentIdentityOf, type Credentials, keyFingerprintOf, serverNameOf } from '../../shared/node/tls.ts'
import type { Keyset } from '../../shared/protocol/commands.ts'
import { compileSchema, parseStrict } from '../../shared/protocol/parse.ts'
import { buildCertificate } from './certificate.ts'
import { type CertificateRequestError, readCertificateRequest } from './certificate-request.ts'
import { writeKeysetFile } from './keyset-store.ts'
import { type OnlineKeys, readOnlineKeys, writeOnlineKeys } from './online-keys.ts'
import { failed, type Outcome, type PkiError } from './outcome.ts'
import { BACKDATING_MS, commonNameOf, createRoot, openRoot, type Root, spkiOf } from './root.ts'

const dayMs = 24 * 3_600_000
const leafLifeMs = 30 * dayMs
const keysetLifeMs = 2 * 365 * dayMs

export interface AuthorityOptions {
  /** Opens the online keys at every start. */
  readonly passphrase: string
  /** Opens the root for ceremonies. */
  readonly rootPassphrase: string
  /** Who may sign commands from the first keyset on. */
  readonly operators?: Keyset['operators']
  /** Operators needed per class; `{ C: 1, D: 2 }` unless said. */
  readonly thresholds?: Keyset['thresholds']
  readonly clock?: () => number
  /** 4,096 unless said. */
  readonly rootKeyBits?: number
  /** 3,072 unless said. */
  readonly issuerKeyBits?: number
  readonly scryptCost?: number
}

export interface Authority {
  /** 32 hex digits. */
  readonly fleet: string
  readonly serverName: string
  readonly rootPem: string
  /** SHA-256 of the root's SubjectPublicKeyInfo in hex: the pin in enrolment tokens. */
  readonly rootFingerprint: string
  /** Ed25519 private key that signs wrappers and intents of class R. */
  readonly commandKey: KeyObject
  /** When the first of the two issuers ends; `renewIssuers` must have run before. */
  readonly issuersExpireAtMs: number
  /** The controller's TLS key and chain, root included. Made anew at half life: ask again, do not keep. */
  serverCredentials(): Credentials
  /** Issues for 30 days, or until the issuer ends. Of the request only the key is used. */
  issueAgentCertificate(csrPem: string, agentId: string): Outcome<IssuedCertificate, CertificateRequestError>
}

export interface IssuedCertificate {
  readonly agentId: string
  /** The leaf and its issuer, in PEM. */
  readonly certificateChainPem: string
  /** SHA-256 of the DER certificate, in hex. */
  readonly certificateFingerprint: string
  /** SHA-256 of the DER SubjectPublicKeyInfo, in hex. */
  readonly keyFingerprint: string
  readonly serial: string
  readonly expiresAtMs: number
}

export type AuthorityError = PkiError<
  'exists' | 'notCreated' | 'inconsistent' | 'issuerExpired' | SealedFileError['kind']
>

const AuthorityFile = Type.Object(
  { v: Type.Literal(1), fleet: Type.String({ pattern: '^[0-9a-f]{32}$' }) },
  { additionalProperties: false },
)
const authorityFileCheck = compileSchema(AuthorityFile)

/**
 * The first ceremony: root (in `folder/root`), issuers, command key and keyset 1. Refuses a folder that holds
 * an authority already.
 */
export async function createAuthority(
  folder: string,
  options: AuthorityOptions,
): Promise<Outcome<Authority, AuthorityError>> {
  if (existsSync(join(folder, 'authority.json')))
    return failed('exists', `${folder} holds an authority already`)
  const clock = options.clock ?? Date.now
  const nowMs = clock()
  const fleet = randomBytes(16).toString('hex')
  const scryptCost = options.scryptCost ?? SCRYPT_COST_DEFAULT
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const root = await createRoot({
    folder: join(folder, 'root'),
    passphrase: options.rootPassphrase,
    fleet,
    nowMs,
    rootKeyBits: options.rootKeyBits ?? 4_096,
    issuerKeyBits: options.issuerKeyBits ?? 3_072,
    scryptCost,
  })
  const keys: OnlineKeys = { ...(await issueIssuers(root, nowMs)), commandKey: generateSigningKey() }
  await writeOnlineKeys(folder, keys, options.passphrase, scryptCost)
  writeFileDurably(join(folder, 'root.pem'), root.certificate.toString(), 0o600)
  writeKeysetFile(folder, root.signKeyset(firstKeyset(fleet, nowMs, keys.commandKey, options)))
  writeFileDurably(join(folder, 'authority.json'), JSON.stringify({ v: 1, fleet }), 0o600)
  return { ok: true, value: authorityOf(fleet, root.certificate, keys, clock) }
}

/** Opens the online part with its passphrase. The root's key is not needed. */
export async function openAuthority(
  folder: string,
  passphrase: string,
  clock: () => number = Date.now,
): Promise<Outcome<Authority, AuthorityError>> {
  const path = join(folder, 'authority.json')
  if (!existsSync(path))
    return failed('notCreated', `${folder} holds no authority: run \`cordon-controller init\``)
  const parsed = parseStrict(authorityFileCheck, readFileSync(path, 'utf8'))
  if (!parsed.ok) return failed('malformed', `${path}: ${parsed.error.reason}`)
  const keys = await readOnlineKeys(folder, passphrase)
  if (!keys.ok) return keys
  const root = readRootCertificate(folder)
  if (!root) return failed('malformed', `${join(folder, 'root.pem')} is not a certificate`)
  for (const { certificate, key } of [keys.value.agentsIssuer, keys.value.serversIssuer]) {
    const name = commonNameOf(certificate)
    if (!certificate.checkPrivateKey(key) || !certificate.verify(root.publicKey)) {
      return failed('inconsistent', `"${name}" does not fit its key or its root`)
    }
    if (certificate.validToDate.getTime() <= clock()) {
      return failed('issuerExpired', `"${name}" has expired: renew the issuers with the root`)
    }
  }
  return { ok: true, value: authorityOf(parsed.value.fleet, root, keys.value, clock) }
}

/** The yearly ceremony: new issuers from the root. Agents and what they hold stay valid. */
export async function renewIssuers(
  folder: string,
  options: Pick<AuthorityOptions, 'passphrase' | 'rootPassphrase' | 'clock' | 'issuerKeyBits' | 'scryptCost'>,
): Promise<Outcome<{ readonly expireAtMs: number }, AuthorityError>> {
  const keys = await readOnlineKeys(folder, options.passphrase)
  if (!keys.ok) return keys
  const root = await openRoot(join(folder, 'root'), options.rootPassphrase, options.issuerKeyBits)
  if (!root.ok) return root
  const issuers = await issueIssuers(root.value, (options.clock ?? Date.now)())
  const renewed: OnlineKeys = { ...issuers, commandKey: keys.value.commandKey }
  await writeOnlineKeys(folder, renewed, options.passphrase, options.scryptCost ?? SCRYPT_COST_DEFAULT)
  return { ok: true, value: { expireAtMs: firstExpiryMs(renewed) } }
}

async function issueIssuers(root: Root, nowMs: number): Promise<Omit<OnlineKeys, 'commandKey'>> {
  const [agentsIssuer, serversIssuer] = await Promise.all([
    root.issueIssuer('agentsIssuer', nowMs),
    root.issueIssuer('serversIssuer', nowMs),
  ])
  return { agentsIssuer, serversIssuer }
}

function firstKeyset(fleet: string, nowMs: number, commandKey: KeyObject, options: AuthorityOptions): Keyset {
  const publicKey = rawPublicKey(commandKey)
  return {
    v: 1,
    fleet,
    version: 1,
    issued: nowMs,
    expires: nowMs + keysetLifeMs,
    operators: options.operators ?? [],
    thresholds: options.thresholds ?? { C: 1, D: 2 },
    controllers: [{ keyId: keyIdOf(publicKey), publicKey }],
  }
}

function authorityOf(fleet: string, root: X509Certificate, keys: OnlineKeys, clock: () => number): Authority {
  const serverName = serverNameOf(fleet)
  let server: ServerLeaf | undefined
  return {
    fleet,
    serverName,
    rootPem: root.toString(),
    rootFingerprint: keyFingerprintOf(root),
    commandKey: keys.commandKey,
    issuersExpireAtMs: firstExpiryMs(keys),
    serverCredentials() {
      if (!server || clock() >= server.renewAtMs) server = issueServerLeaf(keys, root, serverName, clock())
      return server.credentials
    },
    issueAgentCertificate: (csrPem, agentId) => issueAgentLeaf(keys, csrPem, agentId, clock()),
  }
}

interface ServerLeaf {
  readonly credentials: Credentials
  readonly renewAtMs: number
}

/** The leaf's key lives in memory alone: each start makes a new one, and agents only ask for root and name. */
function issueServerLeaf(
  { serversIssuer }: OnlineKeys,
  root: X509Certificate,
  serverName: string,
  nowMs: number,
): ServerLeaf {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const notAfterMs = Math.min(nowMs + leafLifeMs, serversIssuer.certificate.validToDate.getTime())
  const leaf = buildCertificate({
    use: { kind: 'server', serverName },
    commonName: serverName,
    subjectSpki: spkiOf(privateKey),
    notBeforeMs: nowMs - BACKDATING_MS,
    notAfterMs,
    issuerKey: serversIssuer.key,
    issuerName: commonNameOf(serversIssuer.certificate),
    issuerSpki: spkiOf(serversIssuer.key),
  })
  return {
    credentials: {
      keyPem: privateKey.export({ format: 'pem', type: 'pkcs8' }).toString(),
      // The root goes along so that a host with nothing but a token can check it against the token's pin.
      certificateChainPem: [leaf, serversIssuer.certificate, root].map(String).join(''),
    },
    renewAtMs: nowMs + (notAfterMs - nowMs) / 2,
  }
}

function issueAgentLeaf(
  { agentsIssuer }: OnlineKeys,
  csrPem: string,
  agentId: string,
  nowMs: number,
): Outcome<IssuedCertificate, CertificateRequestError> {
  if (!/^[0-9a-f]{32}$/.test(agentId)) throw new Error('an agent id is 32 hex digits')
  const request = readCertificateRequest(csrPem)
  if (!request.ok) return request
  const leaf = buildCertificate({
    use: { kind: 'agent', agentId },
    commonName: agentId,
    subjectSpki: request.value.spki,
    // The controller's own clock alone judges it; when that was ahead and is set right, agents must not be locked out.
    notBeforeMs: nowMs - BACKDATING_MS,
    notAfterMs: Math.min(nowMs + leafLifeMs, agentsIssuer.certificate.validToDate.getTime()),
    issuerKey: agentsIssuer.key,
    issuerName: commonNameOf(agentsIssuer.certificate),
    issuerSpki: spkiOf(agentsIssuer.key),
  })
  const identity = agentIdentityOf(leaf)
  // What was just built is read as the gateway will read it: an issuer that errs must not hand it out.
  if (!identity.ok || identity.identity.keyFingerprint !== request.value.keyFingerprint) {
    throw new Error('the certificate that was built is not for the requested key and agent')
  }
  const { certificateFingerprint, keyFingerprint, expiresAtMs } = identity.identity
  return {
    ok: true,
    value: {
      agentId,
      certificateChainPem: [leaf, agentsIssuer.certificate].map(String).join(''),
      certificateFingerprint,
      keyFingerprint,
      serial: leaf.serialNumber.toLowerCase(),
      expiresAtMs,
    },
  }
}

function firstExpiryMs({ agentsIssuer, serversIssuer }: OnlineKeys): number {
  return Math.min(
    agentsIssuer.certificate.validToDate.getTime(),
    serversIssuer.certificate.validToDate.getTime(),
  )
}

function readRootCertificate(folder: string): X509Certificate | undefined {
  try {
    return new X509Certificate(readFileSync(join(folder, 'root.pem'), 'utf8'))
  } catch {
    return undefined
  }
}
