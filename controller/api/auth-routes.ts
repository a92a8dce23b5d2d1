/** Signing in and out, and the operators themselves. */

import Type from 'typebox'
import { type OperatorError, USER_NAME_PATTERN, type User } from '../operators/operators.ts'
import type { NewSession, Session } from '../operators/session-store.ts'
import { type Answer, answer, defineRoute, type Route, refuse, refuseWith } from './route.ts'
import {
  Closed,
  Done,
  FirstSignInRequest,
  Health,
  LoginRequest,
  NewUser,
  SessionAnswer,
  UserAnswer,
  Users,
} from './schemas.ts'

const UserParams = Closed({ name: Type.String({ pattern: USER_NAME_PATTERN }) })

export const AUTH_ROUTES: readonly Route[] = [
  defineRoute(
    {
      method: 'GET',
      path: '/health',
      name: 'health',
      access: 'anyone',
      summary: 'Says that the controller answers, and whether everything can be stored.',
      response: Health,
    },
    ({ services }) => {
      const problems = [...services.health.problems()]
      return answer({ status: problems.length === 0 ? ('ok' as const) : ('failing' as const), problems })
    },
  ),
  defineRoute(
    {
      method: 'POST',
      path: '/auth/first',
      name: 'firstSignIn',
      access: 'anyone',
      summary: 'Makes the first administrator with the one-time code, and signs in.',
      body: FirstSignInRequest,
      response: SessionAnswer,
    },
    async ({ body, operators, services, address }) => {
      const { code, name, password, kind = 'cookie' } = body
      const outcome = await operators.useFirstSignIn(code, { name, password, address, kind })
      if (!outcome.ok) {
        return signInRefused(
          outcome.error,
          name,
          'The code works once, for an hour, and only while there is no administrator.',
        )
      }
      services.audit.record(name, 'user.create', name, 'first administrator, by the one-time code')
      return signedIn(outcome.value)
    },
  ),
  defineRoute(
    {
      method: 'POST',
      path: '/auth/login',
      name: 'login',
      access: 'anyone',
      summary: 'Signs in with name and password.',
      body: LoginRequest,
      response: SessionAnswer,
    },
    async ({ body, operators, services, address }) => {
      const { name, password, kind = 'cookie' } = body
      const outcome = await operators.logIn({ name, password, address, kind })
      if (!outcome.ok) {
        // What the limit stopped is not recorded: a flood must not fill the audit log.
        if (outcome.error.kind === 'wrong')
          services.audit.record('nobody', 'auth.refused', name, `from ${address}`)
        return signInRefused(outcome.error, name, 'Check name and password.')
      }
      services.audit.record(outcome.value.name, 'auth.login', outcome.value.name, `${kind} from ${address}`)
      return signedIn(outcome.value)
    },
  ),
  defineRoute(
    {
      method: 'POST',
      path: '/auth/logout',
      name: 'logout',
      access: 'viewer',
      summary: 'Ends this session.',
      response: Done,
    },
    ({ operators, services, token, by }) => {
      if (token !== undefined) operators.logOut(token)
      services.audit.record(by, 'auth.logout', by, '')
      return answer({ done: true as const }, { token: null })
    },
  ),
  defineRoute(
    {
      method: 'GET',
      path: '/auth/session',
      name: 'session',
      access: 'viewer',
      summary: 'Says who is signed in, and the CSRF token of a cookie session.',
      response: SessionAnswer,
    },
    ({ session }) => (session ? answer(sessionAnswer(session)) : refuse('unauthenticated', 'not signed in')),
  ),
  defineRoute(
    {
      method: 'GET',
      path: '/users',
      name: 'users',
      access: 'admin',
      summary: 'Lists the operators.',
      response: Users,
    },
    ({ operators }) => answer({ users: operators.users().map(userAnswer) }),
  ),
  defineRoute(
    {
      method: 'POST',
      path: '/users',
      name: 'createUser',
      access: 'admin',
      summary: 'Makes an operator.',
      body: NewUser,
      response: UserAnswer,
    },
    async ({ body, operators, services, by }) => {
      const outcome = await operators.createUser(body.name, body.role, body.password)
      if (!outcome.ok) return userRefused(outcome.error, body.name)
      services.audit.record(by, 'user.create', body.name, `role ${body.role}`)
      return answer(userAnswer(outcome.value))
    },
  ),
  defineRoute(
    {
      method: 'POST',
      path: '/users/:name/disable',
      name: 'disableUser',
      access: 'admin',
      summary: 'Ends an operator’s right to sign in, and their sessions at once.',
      params: UserParams,
      response: UserAnswer,
    },
    ({ params, operators, services, by }) => {
      const outcome = operators.disableUser(params.name)
      if (!outcome.ok) return userRefused(outcome.error, params.name)
      services.audit.record(by, 'user.disable', params.name, '')
      return answer(userAnswer(outcome.value))
    },
  ),
]

function signedIn(session: NewSession): Answer<SessionAnswer> {
  const body = sessionAnswer(session)
  return session.kind === 'bearer'
    ? answer({ ...body, token: session.token })
    : answer(body, { token: session.token })
}

function sessionAnswer(session: Session): SessionAnswer {
  return {
    name: session.name,
    role: session.role,
    expiresAt: new Date(session.expiresMs).toISOString(),
    csrfToken: session.kind === 'cookie' ? session.csrfToken : null,
    token: null,
  }
}

function userAnswer(user: User): UserAnswer {
  return {
    name: user.name,
    role: user.role,
    createdAt: new Date(user.createdMs).toISOString(),
    disabledAt: user.disabledMs === null ? null : new Date(user.disabledMs).toISOString(),
  }
}

function signInRefused(error: OperatorError, name: string, hint: string): Answer<never> {
  return error.kind === 'wrong'
    ? refuse('wrongSignIn', 'the sign-in is not right', hint)
    : userRefused(error, name)
}

function userRefused(error: OperatorError, name: string): Answer<never> {
  switch (error.kind) {
    case 'wrong':
      return refuse('wrongSignIn', 'the sign-in is not right')
    case 'tooMany': {
      const seconds = Math.ceil(error.retryAfterMs / 1_000)
      return refuseWith({
        code: 'tooManyRequests',
        message: 'too many sign-in attempts',
        hint: `Try again in ${seconds} s.`,
        retryAfterMs: error.retryAfterMs,
      })
    }
    case 'invalid':
      return refuse('refused', error.reason)
    case 'exists':
      return refuse('conflict', `there is a user ${name} already`)
    case 'notFound':
      return refuse('notFound', `there is no user ${name}`)
  }
}
