/** Actions and the signatures they wait for, and the stored events. */
import Type from 'typebox'
import { Action, type ActionError, ActionPlan, ActionRequest, Approval } from '../dispatch/action.ts'
import { type Answer, answer, defineRoute, type Route, refuse } from './route.ts'
import {
  ActionQuery,
  Actions,
  ChangeAnswer,
  Closed,
  EventAtQuery,
  EventQueryText,
  Events,
  Reason,
  StoredEventAnswer,
} from './schemas.ts'

const Hex16 = Type.String({ pattern: '^[0-9a-f]{32}$' })
const params = Closed({ id: Hex16 })

export const ACTION_ROUTES: readonly Route[] = [
  defineRoute(
    {
      method: 'GET',
      path: '/actions',
      name: 'actions',
      access: 'viewer',
      summary: 'Lists actions, newest first: pending and past ones alike.',
      query: ActionQuery,
      response: Actions,
      csv: {
        list: 'actions',
        columns: {
          id: 'id',
          action: 'action',
          class: 'class',
          hostName: 'hostName',
          state: 'state',
          reason: 'reason',
          incidentId: 'incidentId',
          requestedBy: 'requestedBy',
          createdAt: 'createdAt',
          expiresAt: 'expiresAt',
        },
      },
    },
    ({ services, query: { format: _format, ...filter } }) =>
      answer({ actions: [...services.actions.list(filter)] }),
  ),
  defineRoute(
    {
      method: 'GET',
      path: '/actions/:id',
      name: 'action',
      access: 'viewer',
      summary: 'One action with each step it took and what was measured.',
      params,
      response: Action,
    },
    ({ services, params: { id } }) => {
      const action = services.actions.get(id)
      return action ? answer(action) : refuse('notFound', `there is no action ${id}`, 'cordon action ls')
    },
  ),
  defineRoute(
    {
      method: 'POST',
      path: '/actions',
      name: 'planAction',
      access: 'responder',
      issues: true,
      summary: 'Plans an action and answers with the exact bytes to sign. Class R is queued at once.',
      body: ActionRequest,
      response: ActionPlan,
    },
    ({ services, body, by }) => {
      const outcome = services.actions.plan(body, by)
      return outcome.ok ? answer(outcome.value) : actionRefused(outcome.error)
    },
  ),
  defineRoute(
    {
      method: 'GET',
      path: '/intents/:id',
      name: 'intent',
      access: 'responder',
      summary: 'The bytes of a planned intent again, for another operator to check and sign.',
      params,
      response: ActionPlan,
    },
    ({ services, params: { id } }) => {
      const plan = services.actions.planOf(id)
      return plan ? answer(plan) : refuse('notFound', `there is no intent ${id}`)
    },
  ),
  defineRoute(
    {
      method: 'POST',
      path: '/intents/:id/approvals',
      name: 'approveIntent',
      access: 'responder',
      issues: true,
      summary: 'Hands in an operator’s signature over the bytes of an intent.',
      params,
      body: Approval,
      response: ActionPlan,
    },
    ({ services, params: { id }, body, by }) => {
      const outcome = services.actions.approve(id, body.signature, by)
      return outcome.ok ? answer(outcome.value) : actionRefused(outcome.error)
    },
  ),
  defineRoute(
    {
      method: 'POST',
      path: '/actions/:id/cancel',
      name: 'cancelAction',
      access: 'responder',
      summary: 'Cancels an action that has not been applied yet.',
      params,
      body: Closed({ reason: Reason }),
      response: Action,
    },
    ({ services, params: { id }, body, by }) => {
      const outcome = services.actions.cancel(id, by, body.reason)
      return outcome.ok ? answer(outcome.value) : actionRefused(outcome.error)
    },
  ),
  defineRoute(
    {
      method: 'GET',
      path: '/events',
      name: 'events',
      access: 'viewer',
      summary: 'Stored events. Every condition given must hold; `after` goes on from a cursor.',
      query: EventQueryText,
      response: Events,
      csv: {
        list: 'events',
        columns: {
          cursor: 'cursor',
          agentId: 'agentId',
          time: 'event.@timestamp',
          action: 'event.event.action',
          process: 'event.process.executable',
          commandLine: 'event.process.command_line',
          file: 'event.file.path',
          destination: 'event.destination.ip',
          rule: 'event.rule.name',
        },
      },
    },
    async ({ services, query: { format: _format, ...query } }) =>
      answer({ events: [...(await services.events.query(query))] }),
  ),
  defineRoute(
    {
      method: 'GET',
      path: '/events/at',
      name: 'event',
      access: 'viewer',
      summary: 'One stored event by its cursor.',
      query: EventAtQuery,
      response: StoredEventAnswer,
    },
    async ({ services, query: { cursor } }) => {
      const event = await services.events.at(cursor)
      return event
        ? answer(event)
        : refuse('notFound', 'no event is stored there', 'Events are dropped after their retention.')
    },
  ),
  defineRoute(
    {
      method: 'GET',
      path: '/stream',
      name: 'stream',
      access: 'viewer',
      summary: 'Says live what changed, as server-sent events `ready` and `change`.',
      live: true,
      response: ChangeAnswer,
    },
    () => refuse('internal', 'the stream is answered by the server itself'),
  ),
]

function actionRefused(error: ActionError): Answer<never> {
  switch (error.kind) {
    case 'notFound':
      return refuse('notFound', `there is no such ${error.what}`)
    case 'invalid':
      return refuse('refused', error.reason)
    case 'notAuthorised':
      return refuse('signatureRefused', error.reason, 'Is the key in the keyset? `cordon keys ls` tells.')
    case 'tooLate':
      return refuse('tooLate', `it is too late: the action is ${error.state}`)
  }
}
