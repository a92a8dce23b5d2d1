/**
 * What is checked before a route's handler sees anything: the host that was asked for, the origin that asks,
 * and who it is. A route that says nothing about access is closed.
 */
import { timingSafeEqual } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import type { Operators } from '../operators/operators.ts'
import { roleCovers } from '../operators/role.ts'
import type { Session, SessionKind } from '../operators/session-store.ts'
import { type Problem, problem } from './problem.ts'
import type { Access } from './route.ts'

export interface Place {
  /** Scheme, host and port that browsers are sent to. */
  readonly origin: string
  readonly secure: boolean
  /** Values of the Host header that are answered, in lower case. */
  readonly hosts: ReadonlySet<string>
  readonly origins: ReadonlySet<string>
  readonly cookieName: string
}

const LOOPBACK_NAMES = ['localhost', '127.0.0.1', '[::1]']

/** A name that resolves to this machine but is not in the list is a rebinding attack, or a wrong setting. */
export function placeOf(publicUrl: URL, allowedHosts: readonly string[]): Place {
  const secure = publicUrl.protocol === 'https:'
  const port = publicUrl.port === '' ? '' : `:${publicUrl.port}`
  const names = LOOPBACK_NAMES.includes(publicUrl.hostname) ? LOOPBACK_NAMES : [publicUrl.hostname]
  const hosts = new Set(
    [...names.map((name) => `${name}${port}`), ...allowedHosts].map((h) => h.toLowerCase()),
  )
  return {
    origin: publicUrl.origin,
    secure,
    hosts,
    origins: new Set([...hosts].map((host) => `${secure ? 'https' : 'http'}://${host}`)),
    // The prefix makes browsers refuse the cookie from any other host or path; it needs https.
    cookieName: secure ? '__Host-cordon' : `cordon-${publicUrl.port || '80'}`,
  }
}

export function securityHeaders(secure: boolean): Readonly<Record<string, string>> {
  return {
    'content-security-policy':
      "default-src 'none'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    'x-content-type-options': 'nosniff',
    'x-frame-options': 'DENY',
    'referrer-policy': 'no-referrer',
    'cross-origin-opener-policy': 'same-origin',
    'cross-origin-resource-policy': 'same-origin',
    'permissions-policy': 'camera=(), geolocation=(), microphone=(), payment=(), usb=()',
    'cache-control': 'no-store',
    ...(secure ? { 'strict-transport-security': 'max-age=31536000' } : {}),
  }
}

export interface Caller {
  readonly session: Session
  readonly token: string
}

/** Where the request went to and came from. */
export function checkPlace(request: FastifyRequest, place: Place): Problem | undefined {
  // Of two Host headers a proxy before us may have read the other one.
  const [host, another] = request.raw.headersDistinct['host'] ?? []
  if (host === undefined || another !== undefined || !place.hosts.has(host.toLowerCase())) {
    return problem('wrongHost', 'this host name is not served here', `The address is ${place.origin}`)
  }
  const { origin } = request.headers
  if (origin !== undefined && !place.origins.has(origin)) {
    return problem('wrongOrigin', 'pages of another origin may not use this API')
  }
  return undefined
}

/** Who asks. A session that is not valid is nobody. */
export function callerOf(request: FastifyRequest, place: Place, operators: Operators): Caller | undefined {
  const { authorization } = request.headers
  if (authorization !== undefined) {
    const token = /^Bearer ([A-Za-z0-9_-]{43})$/i.exec(authorization)?.[1]
    return token === undefined ? undefined : callerWith(operators, token, 'bearer')
  }
  const site = request.headers['sec-fetch-site']
  // Another port of this host is the same site to a browser, and would be sent the cookie.
  if (site !== undefined && site !== 'same-origin' && site !== 'none') return undefined
  const cookie = request.cookies[place.cookieName]
  return cookie !== undefined && /^[A-Za-z0-9_-]{43}$/.test(cookie)
    ? callerWith(operators, cookie, 'cookie')
    : undefined
}

function callerWith(operators: Operators, token: string, kind: SessionKind): Caller | undefined {
  const session = operators.authenticate(token, kind)
  return session && { session, token }
}

export function checkAccess(
  request: FastifyRequest,
  access: Access | undefined,
  caller: Caller | undefined,
): Problem | undefined {
  if (access === undefined) return problem('forbidden', 'this is closed')
  if (access === 'anyone') return undefined
  if (!caller) return problem('unauthenticated', 'not signed in', 'Sign in: `cordon auth login`.')
  if (!roleCovers(caller.session.role, access)) {
    return problem('forbidden', `this needs the role ${access}`, `You are ${caller.session.role}.`)
  }
  if (request.method === 'GET' || caller.session.kind === 'bearer') return undefined
  if (request.headers.origin === undefined) {
    return problem('wrongOrigin', 'a change with a cookie needs the Origin header')
  }
  if (!sameText(request.headers['x-csrf-token'], caller.session.csrfToken)) {
    return problem(
      'wrongCsrfToken',
      'the X-CSRF-Token header is missing or wrong',
      'GET /api/v1/auth/session.',
    )
  }
  return undefined
}

function sameText(given: string | string[] | undefined, expected: string): boolean {
  if (typeof given !== 'string') return false
  const left = Buffer.from(given)
  const right = Buffer.from(expected)
  return left.length === right.length && timingSafeEqual(left, right)
}
