/** What the API answers when it refuses: always `{error: {code, message, hint, requestId}}`, never a stack. */
import Type, { type Static } from 'typebox'
import { QueryTooLong } from '../store/event-store.ts'

export const PROBLEMS = {
  invalidRequest: 400,
  malformedBody: 400,
  unauthenticated: 401,
  wrongSignIn: 401,
  forbidden: 403,
  wrongOrigin: 403,
  wrongCsrfToken: 403,
  signatureRefused: 403,
  notFound: 404,
  requestTimeout: 408,
  conflict: 409,
  tooLate: 409,
  notConfirmed: 409,
  bodyTooLarge: 413,
  addressTooLong: 414,
  wrongContentType: 415,
  wrongHost: 421,
  refused: 422,
  tooManyRequests: 429,
  headersTooLarge: 431,
  internal: 500,
  overloaded: 503,
} as const
export type ProblemCode = keyof typeof PROBLEMS

export interface Problem {
  readonly code: ProblemCode
  readonly message: string
  /** What to do about it; empty when nothing can be said. */
  readonly hint: string
  readonly retryAfterMs?: number
}

export const ErrorBody = Type.Object(
  {
    error: Type.Object(
      { code: Type.String(), message: Type.String(), hint: Type.String(), requestId: Type.String() },
      { additionalProperties: false },
    ),
  },
  { additionalProperties: false },
)
export type ErrorBody = Static<typeof ErrorBody>

export function problem(code: ProblemCode, message: string, hint = ''): Problem {
  return { code, message, hint }
}

export function errorBody(of: Problem, requestId: string): ErrorBody {
  return { error: { code: of.code, message: of.message.slice(0, 1_024), hint: of.hint, requestId } }
}

interface CodedError {
  readonly code?: unknown
  readonly statusCode?: unknown
  readonly validation?: readonly { instancePath?: string; message?: string; params?: unknown }[]
  readonly validationContext?: unknown
}

/** Fastify's own refusals by their codes; whatever is not known is an error of the program, and tells nothing. */
export function problemOf(error: unknown): Problem {
  const { code, statusCode, validation, validationContext } = (error ?? {}) as CodedError
  if (validation) {
    const first = validation[0]
    const where = `${String(validationContext ?? 'request')}${first?.instancePath ?? ''}`
    return problem(
      'invalidRequest',
      `${where} ${first?.message ?? 'is invalid'}${unknownName(first?.params)}`,
      'The schemas are at /api/openapi.json.',
    )
  }
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') return problem('bodyTooLarge', 'the body is too large')
  if (code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE') {
    return problem('wrongContentType', 'bodies are application/json', 'Send Content-Type: application/json.')
  }
  if (code === 'FST_ERR_HANDLER_TIMEOUT')
    return problem('overloaded', 'the answer took too long', 'Try again.')
  if (error instanceof QueryTooLong)
    return problem('overloaded', 'the query took too long', 'Ask for a shorter time or fewer events.')
  if (statusCode === 429) return problem('tooManyRequests', 'too many requests', 'Wait a little.')
  if (statusCode === 400 || statusCode === 414) return problem('malformedBody', 'the request cannot be read')
  return problem('internal', 'something went wrong in the controller', 'Its log has the request id.')
}

/** The client's own word for a field that does not exist, made harmless. */
function unknownName(params: unknown): string {
  const name = (params as { additionalProperty?: unknown } | undefined)?.additionalProperty
  return typeof name === 'string' ? `: ${JSON.stringify(name.slice(0, 64))}` : ''
}
