/**
 * The API: Fastify around the table of routes. Everything that arrives is bounded, checked for place and
 * person, and held against its schema before a handler sees it; everything that leaves has a schema too.
 */
import { randomBytes } from 'node:crypto'
import fastifyCookie from '@fastify/cookie'
import fastifyRateLimit from '@fastify/rate-limit'
import fastifySwagger from '@fastify/swagger'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import type { Logger } from '../../shared/node/logger.ts'
import { aborted } from '../../shared/node/loop.ts'
import type { Operators } from '../operators/operators.ts'
import { SESSION_ABSOLUTE_MS } from '../operators/session-store.ts'
import { acceptOnlyJson, readIntegers } from './body.ts'
import { type ChangeStreams, createChangeStreams, STREAM_LIMITS, type StreamLimits } from './change-stream.ts'
import { answerClientError } from './client-error.ts'
import { csvOf } from './csv.ts'
import {
  type Caller,
  callerOf,
  checkAccess,
  checkPlace,
  type Place,
  placeOf,
  securityHeaders,
} from './guard.ts'
import { openApiInfo, openApiSchema } from './openapi.ts'
import { ICON, pageAt, STYLE } from './page.ts'
import { errorBody, PROBLEMS, type Problem, problem, problemOf } from './problem.ts'
import type { Access, Call, Download, Route } from './route.ts'
import { ROUTES } from './routes.ts'
import { API_PREFIX } from './schemas.ts'
import type { Services } from './services.ts'
import { addConsole, type ConsoleFiles } from './static-files.ts'

const BODY_BYTES_MAX = 256 * 1024
const URL_CHARACTERS_MAX = 8 * 1024
const HEADER_BYTES_MAX = 16 * 1024
const CONNECTIONS_MAX = 1_024
const REQUEST_TIMEOUT_MS = 30_000

export interface ApiOptions {
  readonly services: Services
  readonly operators: Operators
  /** Where browsers find it. Port 0 stands for the port that is listened on. */
  readonly publicUrl: string
  /** Further values of the Host header that are answered. */
  readonly allowedHosts?: readonly string[]
  readonly logger: Logger
  /** Null or left out: not built, and a page says so. */
  readonly console?: ConsoleFiles | null
  readonly requestsPerMinuteMax?: number
  readonly handlerTimeoutMs?: number
  readonly streamLimits?: StreamLimits
}

interface Listening {
  readonly port: number
  /** The public address, with the port filled in. */
  readonly url: string
  /** Resolves when every connection is closed after the abort. */
  readonly stopped: Promise<void>
}

export interface Api {
  listen(at: { readonly host: string; readonly port: number }, signal: AbortSignal): Promise<Listening>
}

declare module 'fastify' {
  interface FastifyRequest {
    caller: Caller | null
  }
  interface FastifyContextConfig {
    access?: Access
  }
}

export function createApi(options: ApiOptions): Api {
  const stop = new AbortController()
  const served = { place: placeOf(new URL(options.publicUrl), options.allowedHosts ?? []) }
  const streams = createChangeStreams(options.services.changes, options.streamLimits ?? STREAM_LIMITS)
  const context: Context = { options, served, streams, stop: stop.signal }
  const app = createServer(context)

  return {
    async listen({ host, port }, signal) {
      await app.listen({ host, port, signal })
      const address = app.server.address()
      if (address === null || typeof address === 'string') throw new Error('the API listens on no port')
      const url = new URL(options.publicUrl)
      if (url.port === '0') url.port = String(address.port)
      served.place = placeOf(url, options.allowedHosts ?? [])
      const stopped = aborted(signal).then(async () => {
        stop.abort()
        await app.close()
      })
      return { port: address.port, url: served.place.origin, stopped }
    },
  }
}

interface Context {
  readonly options: ApiOptions
  /** Changes once, when the port is known. */
  readonly served: { place: Place }
  readonly streams: ChangeStreams
  readonly stop: AbortSignal
}

function createServer(context: Context): FastifyInstance {
  const app = Fastify({
    logger: false,
    bodyLimit: BODY_BYTES_MAX,
    requestTimeout: REQUEST_TIMEOUT_MS,
    keepAliveTimeout: 60_000,
    forceCloseConnections: true,
    exposeHeadRoutes: false,
    requestIdHeader: false,
    genReqId: () => randomBytes(8).toString('hex'),
    trustProxy: false,
    routerOptions: { maxParamLength: 128 },
    http: { maxHeaderSize: HEADER_BYTES_MAX, headersTimeout: 10_000 },
    clientErrorHandler: answerClientError(() => securityHeaders(context.served.place.secure)),
    frameworkErrors: (_error, request, reply) => {
      reply.headers(securityHeaders(context.served.place.secure))
      send(reply, request.id, problem('invalidRequest', 'the address cannot be read'))
    },
    ajv: {
      customOptions: { removeAdditional: false, coerceTypes: false, useDefaults: true, allErrors: false },
    },
  })
  app.server.maxConnections = CONNECTIONS_MAX
  app.server.maxHeadersCount = 64
  app.decorateRequest('caller', null)
  app.setSerializerCompiler(() => JSON.stringify)
  acceptOnlyJson(app)
  app.register(fastifyCookie)
  app.register(fastifySwagger, openApiInfo())
  app.register(fastifyRateLimit, {
    max: context.options.requestsPerMinuteMax ?? 6_000,
    timeWindow: 60_000,
    cache: 10_000,
  })
  // After the plugins, whose hooks on routes see only what is added later.
  app.register(async (routes) => {
    addGuards(routes, context)
    addPages(routes, context)
    for (const route of ROUTES) addRoute(routes, context, route)
  })
  app.setErrorHandler((error, request, reply) => {
    const of = problemOf(error)
    if (of.code === 'internal')
      context.options.logger.error({ err: error, requestId: request.id }, 'request failed')
    send(reply, request.id, of)
  })
  return app
}

function addGuards(app: FastifyInstance, context: Context): void {
  const { operators, logger } = context.options
  app.addHook('onRequest', async (request, reply) => {
    const { place } = context.served
    reply.headers(securityHeaders(place.secure))
    const misplaced =
      request.raw.url !== undefined && request.raw.url.length > URL_CHARACTERS_MAX
        ? problem('addressTooLong', `the address has more than ${URL_CHARACTERS_MAX} characters`)
        : checkPlace(request, place)
    if (misplaced) return send(reply, request.id, misplaced)
    if (request.is404) return
    request.caller = callerOf(request, place, operators) ?? null
    const refused = checkAccess(request, request.routeOptions.config.access, request.caller ?? undefined)
    if (refused) return send(reply, request.id, refused)
  })
  app.addHook('onResponse', async (request, reply) => {
    const { method, url } = request.routeOptions
    if (request.method === 'GET' && reply.statusCode < 400) return
    logger.info(
      {
        requestId: request.id,
        method,
        route: url,
        status: reply.statusCode,
        by: request.caller?.session.name,
      },
      'request',
    )
  })
  app.setNotFoundHandler((request, reply) => {
    send(reply, request.id, problem('notFound', 'there is nothing at this address', 'See /api/openapi.json.'))
  })
}

function addPages(app: FastifyInstance, context: Context): void {
  const { console: files } = context.options
  if (files) addConsole(app, files)
  const firstPage = [
    { path: '/', type: 'text/html; charset=utf-8', text: () => pageAt(context.served.place.origin) },
    { path: '/cordon.css', type: 'text/css; charset=utf-8', text: () => STYLE },
  ]
  const pages = [
    ...(files ? [] : firstPage),
    { path: '/icon.svg', type: 'image/svg+xml', text: () => ICON },
    {
      path: '/api/openapi.json',
      type: 'application/json; charset=utf-8',
      text: () => JSON.stringify(app.swagger()),
    },
  ]
  for (const { path, type, text } of pages) {
    app.get(path, { config: { access: 'anyone' }, schema: { hide: true } }, async (_request, reply) =>
      reply.type(type).send(text()),
    )
  }
}

function addRoute(app: FastifyInstance, context: Context, route: Route): void {
  const { query } = route
  app.route({
    method: route.method,
    url: `${API_PREFIX}${route.path}`,
    schema: openApiSchema(route),
    config: { access: route.access },
    ...(route.live || route.download
      ? {}
      : { handlerTimeout: context.options.handlerTimeoutMs ?? REQUEST_TIMEOUT_MS }),
    preValidation: async (request, reply) => {
      if (query) readIntegers(request, query)
      if (!route.body && request.body !== undefined) {
        return send(reply, request.id, problem('invalidRequest', 'this takes no body'))
      }
    },
    handler: async (request, reply) => {
      if (route.live) return openStream(context, request, reply)
      const unconfirmed = route.issues ? context.options.services.issuing.refusal() : null
      if (unconfirmed !== null) return send(reply, request.id, problem('notConfirmed', unconfirmed))
      const answered = await route.handle(callFrom(context, request))
      if (answered.kind === 'problem') return send(reply, request.id, answered.problem)
      if (answered.kind === 'download') return sendDownload(reply, answered)
      if (answered.cookie) setCookie(reply, context.served.place, answered.cookie.token)
      const wanted = (request.query as { format?: string }).format
      if (route.csv && wanted === 'csv') {
        const rows = (answered.body as Record<string, readonly unknown[]>)[route.csv.list] ?? []
        reply.header('content-disposition', `attachment; filename="${route.csv.list}.csv"`)
        return reply.type('text/csv; charset=utf-8').send(csvOf(rows, route.csv.columns))
      }
      return reply.type('application/json; charset=utf-8').send(answered.body)
    },
  })
}

function callFrom(context: Context, request: FastifyRequest): Call<unknown, unknown, unknown> {
  const { services, operators } = context.options
  return {
    params: request.params,
    query: request.query,
    body: request.body,
    session: request.caller?.session,
    by: request.caller?.session.name ?? 'nobody',
    address: request.ip,
    token: request.caller?.token,
    services,
    operators,
  }
}

function openStream(context: Context, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const { caller } = request
  if (!caller) return send(reply, request.id, problem('unauthenticated', 'not signed in'))
  const { sessionId, kind } = caller.session
  if (!context.streams.hasRoom(sessionId)) {
    return send(reply, request.id, problem('tooManyRequests', 'too many live streams', 'Close one first.'))
  }
  reply.hijack()
  const { place } = context.served
  const stillAllowed = () => context.options.operators.authenticate(caller.token, kind) !== undefined
  context.streams
    .serve(reply.raw, securityHeaders(place.secure), { sessionId, stillAllowed }, context.stop)
    .catch((error) => {
      context.options.logger.error({ err: error, requestId: request.id }, 'live stream failed')
      reply.raw.destroy()
    })
  return reply
}

function sendDownload(reply: FastifyReply, { fileName, bytes, sha256, open }: Download): FastifyReply {
  return reply
    .type('application/octet-stream')
    .header('content-disposition', `attachment; filename="${fileName}"`)
    .header('content-length', String(bytes))
    .header('x-cordon-sha256', sha256)
    .send(open())
}

function setCookie(reply: FastifyReply, place: Place, token: string | null): void {
  const attributes = { httpOnly: true, sameSite: 'strict', path: '/', secure: place.secure } as const
  if (token === null) reply.clearCookie(place.cookieName, attributes)
  else reply.setCookie(place.cookieName, token, { ...attributes, maxAge: SESSION_ABSOLUTE_MS / 1_000 })
}

function send(reply: FastifyReply, requestId: string, of: Problem): FastifyReply {
  if (of.retryAfterMs !== undefined) reply.header('retry-after', String(Math.ceil(of.retryAfterMs / 1_000)))
  return reply
    .code(PROBLEMS[of.code])
    .type('application/json; charset=utf-8')
    .send(JSON.stringify(errorBody(of, requestId)))
}
