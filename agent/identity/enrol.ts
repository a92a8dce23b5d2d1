/**
 * Enrolment: a token becomes an identity. The key is made on this host and never leaves it. A run that was cut
 * short is run again with the same token: the waiting key is on disk before anything is sent.
 */
import { type KeyObject, X509Certificate } from 'node:crypto'
import { createCertificateRequest } from '../../shared/node/certificate-request.ts'
import { verifyKeyset } from '../../shared/node/keyset.ts'
import { decodeUtf8 } from '../../shared/node/signing.ts'
import { keyFingerprintOf, serverNameOf } from '../../shared/node/tls.ts'
import { type EnrolmentRequest, EnrolmentResponse, type Inventory } from '../../shared/protocol/messages.ts'
import { compileSchema, parseStrict } from '../../shared/protocol/parse.ts'
import { PROTOCOL_VERSION } from '../../shared/protocol/version.ts'
import { type Identity, openIdentity } from './identity.ts'
import {
  createIdentityFolder,
  ensureNextKey,
  keyToPem,
  readIdentity,
  readRoot,
  removeNextKey,
  type StoredIdentity,
  verifyOwnChain,
  writeIdentity,
} from './identity-files.ts'
import { findPinnedRoot, type PinnedServer, postPinned } from './pinned-connection.ts'
import { readRefusalText } from './refusal.ts'

export interface EnrolOptions {
  /** `https://HOST:PORT` of the enrolment listener. */
  readonly url: string
  /** `<id>.<secret>.<root pin>` */
  readonly token: string
  /** Where the identity is kept. */
  readonly folder: string
  readonly inventory: Inventory
}

export interface EnrolError {
  readonly kind: 'url' | 'token' | 'otherFleet' | 'storage' | 'unreachable' | 'pin' | 'refused' | 'answer'
  readonly reason: string
  /** What to type or do. */
  readonly mend: string
}

export type EnrolResult =
  | { readonly ok: true; readonly identity: Identity }
  | { readonly ok: false; readonly error: EnrolError }

interface Token {
  readonly id: string
  readonly secret: string
  readonly pin: string
}

const answerBytesMax = 192 * 1024
const responseCheck = compileSchema(EnrolmentResponse)

/** Enrols this host. The same token again gives the same identity; nothing is sent before the pin fits. */
export async function enrol(options: EnrolOptions): Promise<EnrolResult> {
  const url = parseUrl(options.url)
  if (!url)
    return failed('url', `${options.url} is not an https address`, 'give the address as https://HOST:PORT')
  const token = parseToken(options.token)
  if (!token) {
    return failed(
      'token',
      'the token is not complete',
      'copy the whole token, with both dots, or make a new one',
    )
  }
  const conflict = findOtherFleet(options.folder, token)
  if (conflict) return conflict
  const pinned = await findPinnedRoot(url, token.pin)
  if (!pinned.ok) {
    const mend =
      pinned.kind === 'pin'
        ? 'check the address: another server answers there, or something in between'
        : 'check the address and that the controller runs'
    return failed(pinned.kind, pinned.reason, mend)
  }
  try {
    createIdentityFolder(options.folder)
    const stored = readIdentity(options.folder)
    const previous = stored.ok ? stored.value : undefined
    return await requestIdentity({ options, url, token, server: pinned.server, previous })
  } catch (error) {
    const reason = `the identity cannot be stored in ${options.folder}: ${(error as Error).message}`
    return failed('storage', reason, 'run as the user the agent runs as, and look at the free space')
  }
}

/** What one enrolment is about, from the first check to the last file. */
interface Attempt {
  readonly options: EnrolOptions
  readonly url: URL
  readonly token: Token
  readonly server: PinnedServer
  readonly previous: StoredIdentity | undefined
}

async function requestIdentity(attempt: Attempt): Promise<EnrolResult> {
  const { folder } = attempt.options
  // With the token that brought this identity, the key in force asks again; any other token gets a new key.
  if (attempt.previous?.file.tokenId === attempt.token.id) {
    const { key } = attempt.previous.credentials
    const answer = await ask(attempt, key)
    return answer.ok ? accept(attempt, key, answer.response) : answer.result
  }
  const waiting = ensureNextKey(folder)
  const answer = await ask(attempt, waiting)
  if (answer.ok) return accept(attempt, waiting, answer.response)
  if (answer.code !== 'keyInUse') return answer.result
  // The waiting key was certified under another token, or for a renewal, and that answer was lost.
  removeNextKey(folder)
  const fresh = ensureNextKey(folder)
  const second = await ask(attempt, fresh)
  return second.ok ? accept(attempt, fresh, second.response) : second.result
}

type Answer =
  | { readonly ok: true; readonly response: EnrolmentResponse }
  | { readonly ok: false; readonly code?: string; readonly result: EnrolResult }

async function ask({ options, url, token, server }: Attempt, key: KeyObject): Promise<Answer> {
  const request: EnrolmentRequest = {
    protocolVersion: PROTOCOL_VERSION,
    tokenId: token.id,
    tokenSecret: token.secret,
    csrPem: createCertificateRequest(key),
    inventory: options.inventory,
  }
  const answer = await postPinned(url, server, JSON.stringify(request), answerBytesMax)
  if (!answer.ok)
    return { ok: false, result: failed('unreachable', answer.reason, 'run the same command again') }
  const text = decodeUtf8(answer.body) ?? ''
  if (answer.status !== 200) return readRefusal(answer.status, text)
  const parsed = parseStrict(responseCheck, text, answerBytesMax)
  if (parsed.ok) return { ok: true, response: parsed.value }
  return { ok: false, result: badAnswer(`${parsed.error.path ?? ''} ${parsed.error.reason}`) }
}

/** Believes nothing in the answer that does not follow from the pin, and writes it down when all of it does. */
function accept(
  { options, url, token, server, previous }: Attempt,
  key: KeyObject,
  response: EnrolmentResponse,
): EnrolResult {
  const wrong = checkResponse(response, token, server)
  if (wrong) return badAnswer(wrong)
  const root = new X509Certificate(server.rootPem)
  const leaf = verifyOwnChain(response.certificateChainPem, { root, key, agentId: response.agentId })
  if (typeof leaf === 'string') return badAnswer(leaf)
  const keyset = { keyset: response.keyset, rootSignature: response.keysetRootSignature }
  const expected = { rootKey: root.publicKey, fleet: response.fleet, nowMs: null }
  // A keyset already kept is the floor: enrolling anew is no way back to an older one.
  const kept = previous && verifyKeyset(previous.keyset, { ...expected, versionMin: 1 })
  const versionMin = kept?.ok ? kept.keyset.version : 1
  const verified = verifyKeyset(keyset, { ...expected, versionMin })
  if (!verified.ok) return badAnswer(verified.failure.reason)
  const { agentId, fleet, serverName, gatewayUrl } = response
  writeIdentity(options.folder, {
    file: { v: 1, agentId, fleet, serverName, gatewayUrl, enrolmentUrl: url.origin, tokenId: token.id },
    rootPem: server.rootPem,
    keyset,
    keyPem: keyToPem(key),
    certificateChainPem: response.certificateChainPem,
  })
  removeNextKey(options.folder)
  const opened = openIdentity(options.folder)
  return opened.ok ? opened : failed('storage', opened.error.reason, opened.error.mend)
}
function checkResponse(response: EnrolmentResponse, token: Token, server: PinnedServer): string | undefined {
  if (fingerprintOfPem(response.rootPem) !== token.pin) return 'the root is not that of the token'
  if (response.serverName !== server.serverName || response.serverName !== serverNameOf(response.fleet)) {
    return 'the name of the server is not that of the fleet'
  }
  return URL.parse(response.gatewayUrl)?.protocol === 'wss:'
    ? undefined
    : 'the address of the gateway is not wss'
}

function fingerprintOfPem(pem: string): string | undefined {
  try {
    return keyFingerprintOf(new X509Certificate(pem))
  } catch {
    return undefined
  }
}

/** A host changes fleets only when somebody removes its identity by hand. */
function findOtherFleet(folder: string, token: Token): EnrolResult | undefined {
  const root = readRoot(folder)
  if (!root.ok || keyFingerprintOf(root.value) === token.pin) return undefined
  const mend = `remove ${folder} if this host is to leave its fleet`
  return failed('otherFleet', 'this host is enrolled in another fleet', mend)
}

function parseUrl(text: string): URL | undefined {
  const url = URL.parse(text)
  if (url?.protocol !== 'https:' || url.username !== '' || url.search !== '') return undefined
  url.pathname = '/v1/enrol'
  return url
}

function parseToken(text: string): Token | undefined {
  const [, id, secret, pin] = /^([0-9a-f]{16})\.([0-9a-f]{64})\.([0-9a-f]{64})$/.exec(text.trim()) ?? []
  return id && secret && pin ? { id, secret, pin } : undefined
}

function readRefusal(status: number, text: string): Answer {
  const refusal = readRefusalText(text)
  if (!refusal) return { ok: false, result: badAnswer(`status ${status} without a reason`) }
  const { code, message, hint } = refusal
  return { ok: false, code, result: failed('refused', `${message} (${code})`, hint) }
}

function badAnswer(reason: string): EnrolResult {
  return failed(
    'answer',
    `the controller's answer is not valid: ${reason}`,
    'is the agent of the same release?',
  )
}

function failed(kind: EnrolError['kind'], reason: string, mend: string): EnrolResult {
  return { ok: false, error: { kind, reason, mend } }
}
