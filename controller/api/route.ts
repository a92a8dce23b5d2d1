/** A route as data: what it is called, who may call it, what it takes and what it answers. */
import type { Readable } from 'node:stream'
import type { Static, TObject, TSchema } from 'typebox'
import type { Operators } from '../operators/operators.ts'
import type { Role } from '../operators/role.ts'
import type { Session } from '../operators/session-store.ts'
import { type Problem, type ProblemCode, problem } from './problem.ts'
import type { Services } from './services.ts'

/** `anyone` needs no sign-in. */
export type Access = 'anyone' | Role

export interface Call<Params, Query, Body> {
  readonly params: Params
  readonly query: Query
  readonly body: Body
  /** Present on every route that is not for `anyone`, and there when a valid session was shown. */
  readonly session: Session | undefined
  /** Name of the operator, for what is done in their name. */
  readonly by: string
  /** Peer address of the socket. */
  readonly address: string
  readonly services: Services
  readonly operators: Operators
  /** The token as it was shown, for signing out. */
  readonly token: string | undefined
}

/** Bytes for whoever saves them: never shown, never run. */
export interface Download {
  readonly kind: 'download'
  readonly fileName: string
  readonly bytes: number
  readonly sha256: string
  open(): Readable
}

export type Answer<Body> =
  | { readonly kind: 'answer'; readonly body: Body; readonly cookie?: { readonly token: string | null } }
  | Download
  | { readonly kind: 'problem'; readonly problem: Problem }

export interface RouteShape {
  readonly method: 'GET' | 'POST' | 'PUT'
  /** Fastify's form, below `/api/v1`. */
  readonly path: string
  readonly name: string
  readonly access: Access
  readonly summary: string
  readonly params?: TObject
  readonly query?: TObject
  readonly body?: TSchema
  readonly response: TSchema
  /** Refused while a controller that came out of a backup waits for its confirmation. */
  readonly issues?: boolean
  /** Answers with the live stream of changes; its handler is never called. */
  readonly live?: boolean
  /** Answers with bytes instead of JSON, for as long as that takes. */
  readonly download?: boolean
  /** Name of the list in the answer that `format=csv` exports, and its columns by name. */
  readonly csv?: { readonly list: string; readonly columns: Readonly<Record<string, string>> }
}

type Taken<Schema> = Schema extends TSchema ? Static<Schema> : undefined

export type Handler<Shape extends RouteShape> = (
  call: Call<Taken<Shape['params']>, Taken<Shape['query']>, Taken<Shape['body']>>,
) => Answer<Static<Shape['response']>> | Promise<Answer<Static<Shape['response']>>>

export interface Route extends RouteShape {
  handle(call: Call<unknown, unknown, unknown>): Answer<unknown> | Promise<Answer<unknown>>
}

export function defineRoute<const Shape extends RouteShape>(shape: Shape, handle: Handler<Shape>): Route {
  // The validator has checked all three against the very schemas that the types come from.
  return { ...shape, handle: handle as unknown as Route['handle'] }
}

export function answer<Body>(body: Body, cookie?: { readonly token: string | null }): Answer<Body> {
  return { kind: 'answer', body, ...(cookie ? { cookie } : {}) }
}

export function refuse(code: ProblemCode, message: string, hint = ''): Answer<never> {
  return { kind: 'problem', problem: problem(code, message, hint) }
}

export function refuseWith(of: Problem): Answer<never> {
  return { kind: 'problem', problem: of }
}
