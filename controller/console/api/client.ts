/** The API as generated types describe it. Changes repeat the session's CSRF token; an ended session is told of. */
import createClient from 'openapi-fetch'
import type { paths } from './schema.ts'

/** What the controller refuses, with what to do about it. */
export class ApiProblem extends Error {
  readonly status: number
  readonly code: string
  readonly hint: string
  readonly requestId: string

  constructor(status: number, told: { code: string; message: string; hint: string; requestId: string }) {
    super(told.message)
    this.name = 'ApiProblem'
    this.status = status
    this.code = told.code
    this.hint = told.hint
    this.requestId = told.requestId
  }
}

let csrfToken: string | null = null
const sessionEnds = new Set<() => void>()

export function keepCsrfToken(token: string | null): void {
  csrfToken = token
}

/** Calls back when an answer says that nobody is signed in (any more). Gives what ends the listening. */
export function onSessionEnd(listener: () => void): () => void {
  sessionEnds.add(listener)
  return () => {
    sessionEnds.delete(listener)
  }
}

export const api = createClient<paths>({ credentials: 'same-origin' })
api.use({
  onRequest({ request }) {
    if (request.method !== 'GET' && csrfToken !== null) request.headers.set('x-csrf-token', csrfToken)
    return request
  },
  async onResponse({ response }) {
    if (response.status !== 401) return
    const told = await response.clone().json()
    if (told?.error?.code === 'unauthenticated') for (const listener of sessionEnds) listener()
  },
})

interface Answered<Body> {
  readonly data?: Body
  readonly error?: unknown
  readonly response: Response
}

/** The body, or the refusal as an error. */
export async function bodyOf<Body>(call: Promise<Answered<Body>>): Promise<Body> {
  const { data, error, response } = await call
  if (data !== undefined) return data
  const told = (error as { error?: ConstructorParameters<typeof ApiProblem>[1] } | undefined)?.error
  throw new ApiProblem(
    response.status,
    told ?? {
      code: 'unreadable',
      message: `the controller answered with status ${response.status}`,
      hint: 'Is there a proxy before it that answers in its place?',
      requestId: '',
    },
  )
}
