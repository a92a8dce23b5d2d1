/**
 * The listener for hosts without a valid certificate: TLS 1.3, `POST /v1/enrol` with a token, and
 * `/v1/renew-expired` with a proof of the old key, nothing else. Every refusal is `{error: {code, message, hint}}`.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Logger } from '../../shared/node/logger.ts'
import { aborted, runEvery } from '../../shared/node/loop.ts'
import { decodeUtf8 } from '../../shared/node/signing.ts'
import { enrolmentTlsOptions } from '../../shared/node/tls.ts'
import { ENROLMENT_BODY_BYTES_MAX } from '../../shared/protocol/limits.ts'
import { EnrolmentRequest, ExpiredRenewalRequest } from '../../shared/protocol/messages.ts'
import { compileSchema, parseStrict } from '../../shared/protocol/parse.ts'
import type { Authority } from './authority.ts'
import type { Enrolment, EnrolmentError } from './enrolment.ts'
import type { ExpiredRenewalError, ExpiredRenewals } from './expired-renewal.ts'
import { createRateLimit, type RateLimit } from './rate-limit.ts'

export interface EnrolmentServerOptions {
  readonly host: string
  /** 0 for any free port. */
  readonly port: number
  readonly authority: Authority
  readonly enrolment: Enrolment
  /** Left out: expired certificates are not renewed. */
  readonly renewals?: ExpiredRenewals
  readonly logger: Logger
  readonly clock: () => number
  /** Requests per minute and address; 60 unless said. */
  readonly requestsPerMinuteMax?: number
}

export interface EnrolmentServer {
  readonly port: number
  /** Resolves once every connection is closed, after `signal` aborted. */
  readonly stopped: Promise<void>
}

const connectionsMax = 256
const requestTimeoutMs = 15_000
const certificateCheckIntervalMs = 3_600_000
const requestCheck = compileSchema(EnrolmentRequest)
const renewalCheck = compileSchema(ExpiredRenewalRequest)
const RENEWAL_PATH = '/v1/renew-expired'

/** Listens until `signal` aborts. Rejects when the port cannot be had. */
export async function startEnrolmentServer(
  options: EnrolmentServerOptions,
  signal: AbortSignal,
): Promise<EnrolmentServer> {
  const rateLimit = createRateLimit(options.requestsPerMinuteMax ?? 60, options.clock)
  const server = createServer(
    {
      ...enrolmentTlsOptions(options.authority.serverCredentials()),
      handshakeTimeout: requestTimeoutMs,
      headersTimeout: requestTimeoutMs,
      requestTimeout: requestTimeoutMs,
      maxHeaderSize: 8 * 1024,
    },
    (request, response) => {
      answer(options, rateLimit, request, response).catch((error: unknown) => {
        options.logger.error({ error }, 'an enrolment failed')
        respondError(
          response,
          500,
          'internal',
          'the controller could not answer',
          "look at the controller's log",
        )
      })
    },
  )
  server.maxConnections = connectionsMax
  server.maxRequestsPerSocket = 8
  await listen(server, options.host, options.port)
  // Without a listener the first failing socket after the start would end the process.
  server.on('error', (error) => options.logger.error({ error }, 'the enrolment listener failed'))
  return { port: (server.address() as AddressInfo).port, stopped: runUntilAborted(server, options, signal) }
}

async function runUntilAborted(
  server: Server,
  { authority }: EnrolmentServerOptions,
  signal: AbortSignal,
): Promise<void> {
  await Promise.all([
    runEvery(certificateCheckIntervalMs, signal, () => {
      server.setSecureContext(enrolmentTlsOptions(authority.serverCredentials()))
    }),
    aborted(signal).then(
      () =>
        new Promise<void>((resolve) => {
          server.close(() => resolve())
          server.closeAllConnections()
        }),
    ),
  ])
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, () => {
      server.off('error', reject)
      resolve()
    })
  })
}

async function answer(
  options: EnrolmentServerOptions,
  rateLimit: RateLimit,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { enrolment, renewals, logger } = options
  const address = request.socket.remoteAddress ?? ''
  if (!rateLimit.take(address)) {
    response.setHeader('retry-after', '60')
    return respondError(response, 429, 'rate', 'too many requests from this address', 'wait a minute')
  }
  if (request.url === RENEWAL_PATH && renewals) {
    if (request.method === 'GET') return respond(response, 200, { nonce: renewals.nonce() })
    if (request.method === 'POST') return renewExpired({ renewals, logger }, address, request, response)
  }
  if (request.url !== '/v1/enrol') {
    return respondError(response, 404, 'notFound', 'there is nothing here', 'agents enrol at POST /v1/enrol')
  }
  if (request.method !== 'POST') {
    response.setHeader('allow', 'POST')
    return respondError(response, 405, 'method', 'only POST is answered here', 'run `cordon-agent enroll`')
  }
  const body = await readBody(request)
  if (!body) {
    const message = `the body is longer than ${ENROLMENT_BODY_BYTES_MAX} bytes`
    return respondError(response, 413, 'tooLong', message, 'is the agent of this release?')
  }
  const parsed = parseStrict(requestCheck, decodeUtf8(body) ?? '', ENROLMENT_BODY_BYTES_MAX)
  if (!parsed.ok) {
    const message = `the request is not valid at ${parsed.error.path || '/'}: ${parsed.error.reason}`
    return respondError(response, 400, 'malformed', message, 'is the agent of this release?')
  }
  const result = enrolment.enrol(parsed.value)
  if (result.ok) {
    logger.info({ agentId: result.value.agentId, address }, 'enrolled an agent')
    return respond(response, 200, result.value)
  }
  logger.warn({ tokenId: parsed.value.tokenId, address, code: result.error.kind }, 'refused an enrolment')
  const { status, hint } = refusals[result.error.kind]
  respondError(response, status, result.error.kind, result.error.reason, hint)
}

async function renewExpired(
  { renewals, logger }: { readonly renewals: ExpiredRenewals; readonly logger: Logger },
  address: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const body = await readBody(request)
  if (!body) {
    const message = `the body is longer than ${ENROLMENT_BODY_BYTES_MAX} bytes`
    return respondError(response, 413, 'tooLong', message, 'is the agent of this release?')
  }
  const parsed = parseStrict(renewalCheck, decodeUtf8(body) ?? '', ENROLMENT_BODY_BYTES_MAX)
  if (!parsed.ok) {
    const message = `the request is not valid at ${parsed.error.path || '/'}: ${parsed.error.reason}`
    return respondError(response, 400, 'malformed', message, 'is the agent of this release?')
  }
  const result = renewals.ask(parsed.value, address)
  if (result.ok) return respond(response, 200, result.value)
  logger.warn({ address, code: result.error.kind }, 'refused to renew an expired certificate')
  const { status, hint } = renewalRefusals[result.error.kind]
  respondError(response, status, result.error.kind, result.error.reason, hint)
}

const enrolAnew = 'enrol the host anew with a token from `cordon host enroll-token`'
const renewalRefusals: { readonly [Kind in ExpiredRenewalError['kind']]: { status: number; hint: string } } =
  {
    protocolVersion: { status: 409, hint: 'install an agent of the same release as the controller' },
    nonceInvalid: { status: 401, hint: 'ask again with a fresh nonce' },
    proofInvalid: { status: 401, hint: enrolAnew },
    requestInvalid: { status: 400, hint: 'is the agent of this release?' },
    keyInUse: { status: 409, hint: 'ask again with a new key' },
    unknownCertificate: { status: 403, hint: enrolAnew },
    notExpired: { status: 409, hint: 'set the clock of the host; it connects with the certificate it has' },
    expiredTooLong: { status: 410, hint: enrolAnew },
    replaced: { status: 403, hint: `${enrolAnew}, if it is no copy of another` },
    revoked: { status: 403, hint: enrolAnew },
    held: { status: 403, hint: 'an administrator looks at `cordon host get`, and readmits the right host' },
  }

const newToken = 'make a new token on the controller'
const refusals: { readonly [Kind in EnrolmentError['kind']]: { status: number; hint: string } } = {
  protocolVersion: { status: 409, hint: 'install an agent of the same release as the controller' },
  tokenInvalid: { status: 401, hint: `check that the whole token was given, or ${newToken}` },
  tokenExhausted: { status: 401, hint: newToken },
  tokenExpired: { status: 410, hint: newToken },
  tokenUsed: { status: 409, hint: `a token is for one host: ${newToken}, and find out who used this one` },
  requestInvalid: { status: 400, hint: 'is the agent of this release?' },
  keyInUse: { status: 409, hint: 'this host is enrolled already' },
  revoked: { status: 403, hint: newToken },
  notConfirmed: { status: 503, hint: 'try again when an operator has confirmed the restored controller' },
}

/** The whole body, or undefined as soon as it is longer than any enrolment. */
async function readBody(request: IncomingMessage): Promise<Buffer | undefined> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > ENROLMENT_BODY_BYTES_MAX) return undefined
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

function respondError(
  response: ServerResponse,
  status: number,
  code: string,
  message: string,
  hint: string,
): void {
  respond(response, status, { error: { code, message, hint } })
}

function respond(response: ServerResponse, status: number, value: unknown): void {
  if (response.headersSent) return
  response.writeHead(status, {
    'content-type': 'application/json',
    'cache-control': 'no-store',
    connection: 'close',
  })
  response.end(JSON.stringify(value))
}
