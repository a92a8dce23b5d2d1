/**
 * How hosts come to their certificates: enrolment by a token, renewal by the certificate in force. What can go
 * wrong is a value with a code for the agent and a hint for the person at its terminal.
 */
import { randomBytes } from 'node:crypto'
import type { Sqlite } from '../../shared/node/sqlite.ts'
import type { EnrolmentRequest, EnrolmentResponse, Inventory } from '../../shared/protocol/messages.ts'
import { PROTOCOL_VERSION } from '../../shared/protocol/version.ts'
import type { Authority, IssuedCertificate } from './authority.ts'
import { type CertificateRequest, readCertificateRequest } from './certificate-request.ts'
import type { EnrolmentTokens, TokenRow } from './enrolment-tokens.ts'
import type { KeysetStore } from './keyset-store.ts'
import { failed, type Outcome, type PkiError } from './outcome.ts'
import type { PkiAlert, Registry } from './registry.ts'

export type EnrolmentError = PkiError<
  | 'protocolVersion'
  | 'tokenInvalid'
  | 'tokenExhausted'
  | 'tokenExpired'
  | 'tokenUsed'
  | 'requestInvalid'
  | 'keyInUse'
  | 'revoked'
  | 'notConfirmed'
>
export type RenewalError = PkiError<'notAuthorised' | 'requestInvalid' | 'keyInUse' | 'notConfirmed'>

export interface EnrolledAgent {
  readonly certificate: IssuedCertificate
  readonly group: string
  readonly inventory: Inventory
}

export interface EnrolmentOptions {
  readonly database: Sqlite
  readonly authority: Authority
  readonly registry: Registry
  readonly tokens: EnrolmentTokens
  readonly keyset: Pick<KeysetStore, 'current'>
  /** Where agents enrol, as they reach it: `https://HOST:PORT`. */
  readonly enrolmentUrl: string
  /** Where agents connect afterwards: `wss://HOST:PORT/…`. */
  readonly gatewayUrl: string
  readonly clock: () => number
  readonly alert: (alert: PkiAlert) => void
  /** Called once per new agent, after it was entered. */
  readonly enrolled: (agent: EnrolledAgent) => void
}

export interface Enrolment {
  /** A token for one host, shown once. `ttlMs` is cut to an hour. */
  createToken(by: string, ttlMs: number, group?: string): { token: string; expiresAt: string; url: string }
  /** Answers a request that was parsed strictly. */
  enrol(request: EnrolmentRequest): Outcome<EnrolmentResponse, EnrolmentError>
  /**
   * Renews with a new key. The certificate in force stays valid until the new one is first seen; asking again
   * with the same key gives the same certificate.
   */
  renew(
    agentId: string,
    certificateFingerprint: string,
    csrPem: string,
  ): Outcome<{ readonly certificateChainPem: string }, RenewalError>
}

export function createEnrolment(options: EnrolmentOptions): Enrolment {
  const { authority, tokens } = options
  return {
    createToken(by, ttlMs, group = 'default') {
      const { id, secret, expiresAtMs } = tokens.create(by, group, ttlMs)
      return {
        token: `${id}.${secret}.${authority.rootFingerprint}`,
        expiresAt: new Date(expiresAtMs).toISOString(),
        url: options.enrolmentUrl,
      }
    },
    enrol: (request) => enrol(options, request),
    renew: (agentId, certificateFingerprint, csrPem) =>
      renew(options, agentId, certificateFingerprint, csrPem),
  }
}

function enrol(
  options: EnrolmentOptions,
  request: EnrolmentRequest,
): Outcome<EnrolmentResponse, EnrolmentError> {
  if (request.protocolVersion !== PROTOCOL_VERSION) {
    return failed('protocolVersion', `this controller speaks protocol version ${PROTOCOL_VERSION}`)
  }
  const opened = options.tokens.open(request.tokenId, request.tokenSecret)
  if (!opened.ok) {
    if (opened.error.kind === 'tokenExhausted') {
      options.alert({ kind: 'tokenGuessed', tokenId: request.tokenId, reason: opened.error.reason })
    }
    return opened
  }
  const parsed = readCertificateRequest(request.csrPem)
  if (!parsed.ok) return parsed
  const token = opened.value
  if (token.used_by_key !== null) return answerAgain(options, token, parsed.value)
  if (token.expires_at <= options.clock()) return failed('tokenExpired', 'the token has expired')
  if (options.registry.findByKey(parsed.value.keyFingerprint)) {
    return failed('keyInUse', 'the key belongs to an agent already')
  }
  return enterAgent(options, token, request)
}

function enterAgent(
  options: EnrolmentOptions,
  token: TokenRow,
  request: EnrolmentRequest,
): Outcome<EnrolmentResponse, EnrolmentError> {
  const { authority, registry, tokens, database } = options
  const issued = authority.issueAgentCertificate(request.csrPem, randomBytes(16).toString('hex'))
  if (!issued.ok) return issued
  const certificate = issued.value
  const entered = database.transaction(() => {
    if (!tokens.use(token.id, certificate.keyFingerprint)) return false
    registry.enter(certificate, token.group_name)
    return true
  })()
  if (!entered) return failed('tokenUsed', 'the token was used by another host at this moment')
  options.enrolled({ certificate, group: token.group_name, inventory: request.inventory })
  return { ok: true, value: responseFor(options, certificate.agentId, certificate.certificateChainPem) }
}

/** The token was used before: by the same key when an answer was lost, by another when it was stolen. */
function answerAgain(
  options: EnrolmentOptions,
  token: TokenRow,
  request: CertificateRequest,
): Outcome<EnrolmentResponse, EnrolmentError> {
  if (token.used_by_key !== request.keyFingerprint) {
    const reason = 'a token that one host had used was shown by another'
    options.alert({ kind: 'tokenReused', tokenId: token.id, reason })
    return failed('tokenUsed', 'the token was used by another host')
  }
  const found = options.registry.findByKey(request.keyFingerprint)
  if (found?.standing !== 'ok')
    return failed('revoked', 'the certificate given for this token is no longer in force')
  return { ok: true, value: responseFor(options, found.agentId, found.chainPem) }
}

function responseFor(
  { authority, gatewayUrl, keyset }: EnrolmentOptions,
  agentId: string,
  certificateChainPem: string,
): EnrolmentResponse {
  const { keyset: keysetBytes, rootSignature } = keyset.current()
  return {
    agentId,
    certificateChainPem,
    rootPem: authority.rootPem,
    gatewayUrl,
    serverName: authority.serverName,
    fleet: authority.fleet,
    keyset: keysetBytes,
    keysetRootSignature: rootSignature,
  }
}

function renew(
  { authority, registry }: EnrolmentOptions,
  agentId: string,
  certificateFingerprint: string,
  csrPem: string,
): Outcome<{ readonly certificateChainPem: string }, RenewalError> {
  if (registry.authorise(certificateFingerprint, agentId) !== 'ok') {
    return failed('notAuthorised', 'the certificate is not in force')
  }
  const parsed = readCertificateRequest(csrPem)
  if (!parsed.ok) return parsed
  const known = registry.findByKey(parsed.value.keyFingerprint)
  if (known) {
    const again =
      known.agentId === agentId && known.standing === 'ok' && !isCurrent(registry, agentId, parsed.value)
    if (again) return { ok: true, value: { certificateChainPem: known.chainPem } }
    return failed('keyInUse', 'a renewal needs a new key')
  }
  const issued = authority.issueAgentCertificate(csrPem, agentId)
  if (!issued.ok) return issued
  registry.enterRenewal(issued.value)
  return { ok: true, value: { certificateChainPem: issued.value.certificateChainPem } }
}

function isCurrent(registry: Registry, agentId: string, request: CertificateRequest): boolean {
  return registry.get(agentId)?.keyFingerprint === request.keyFingerprint
}
