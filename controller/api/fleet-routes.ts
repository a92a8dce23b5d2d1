/** Hosts, enrolment, the keyset and the audit log. */
import { selectHosts } from './host-list.ts'
import { answer, defineRoute, type Route, refuse } from './route.ts'
import {
  AgentIdText,
  Audit,
  BreakGlassAnswer,
  BreakGlassRequest,
  Closed,
  Contenders,
  Done,
  Format,
  HostAnswer,
  HostQuery,
  Hosts,
  KeysetAnswer,
  KeysetReplaced,
  KeysetRequest,
  Limit,
  ReadmitRequest,
  Reason,
  Renewals,
  TokenAnswer,
  TokenRequest,
} from './schemas.ts'
import type { Host } from './services.ts'

const HostParams = Closed({ id: AgentIdText })
const TOKEN_TTL_MS_DEFAULT = 15 * 60_000

export const FLEET_ROUTES: readonly Route[] = [
  defineRoute(
    {
      method: 'GET',
      path: '/hosts',
      name: 'hosts',
      access: 'viewer',
      summary: 'Lists the enrolled hosts: those that fit, in the order asked for.',
      query: HostQuery,
      response: Hosts,
      csv: {
        list: 'hosts',
        columns: {
          agentId: 'agentId',
          hostName: 'hostName',
          state: 'state',
          agentVersion: 'agentVersion',
          lastSeenAt: 'lastSeenAt',
          certificateExpiresAt: 'certificateExpiresAt',
          bufferedRows: 'bufferedRows',
          droppedRows: 'droppedRows',
        },
      },
    },
    ({ services, query: { format: _format, ...filter } }) => {
      const { hosts, states, ...counts } = selectHosts(services.hosts.list(), filter)
      return answer({ ...counts, hosts: hosts.map(hostAnswer), states: [...states] })
    },
  ),
  defineRoute(
    {
      method: 'GET',
      path: '/hosts/:id',
      name: 'host',
      access: 'viewer',
      summary: 'One host with its sensors and its buffer.',
      params: HostParams,
      response: HostAnswer,
    },
    ({ services, params }) => {
      const host = services.hosts.get(params.id)
      return host ? answer(hostAnswer(host)) : refuse('notFound', 'there is no such host')
    },
  ),
  defineRoute(
    {
      method: 'POST',
      path: '/hosts/:id/break-glass',
      name: 'breakGlass',
      access: 'responder',
      summary:
        'Shows the code that ends the isolation of a host on the host itself. Each showing is audited.',
      params: HostParams,
      body: BreakGlassRequest,
      response: BreakGlassAnswer,
    },
    ({ services, params, body, by }) => {
      if (!services.hosts.get(params.id)) return refuse('notFound', 'there is no such host')
      const shown = services.breakGlass.show(params.id, by, body.reason)
      return shown ? answer({ ...shown }) : refuse('notFound', 'no isolation was asked for on this host')
    },
  ),
  defineRoute(
    {
      method: 'POST',
      path: '/hosts/:id/revoke',
      name: 'revokeHost',
      access: 'admin',
      summary: 'Ends an agent’s right to connect; its live connection closes within 5 s.',
      params: HostParams,
      body: Closed({ reason: Reason }),
      response: Done,
    },
    ({ services, params, body, by }) =>
      services.hosts.revoke(params.id, by, body.reason)
        ? answer({ done: true as const })
        : refuse('notFound', 'there is no such host'),
  ),
  defineRoute(
    {
      method: 'GET',
      path: '/hosts/:id/contenders',
      name: 'contenders',
      access: 'viewer',
      summary: 'Those who use the identity of a held host: what to decide from.',
      params: HostParams,
      response: Contenders,
    },
    ({ services, params }) => answer({ contenders: [...services.standing.contenders(params.id)] }),
  ),
  defineRoute(
    {
      method: 'POST',
      path: '/hosts/:id/readmit',
      name: 'readmitHost',
      access: 'admin',
      summary:
        'Lets a held host go on: that of one boot, or any when the others are gone. It renews at once.',
      params: HostParams,
      body: ReadmitRequest,
      response: Done,
    },
    ({ services, params, body, by }) => {
      const outcome = services.standing.readmit(params.id, body.bootId, by, body.reason)
      if (outcome === 'readmitted') return answer({ done: true as const })
      return outcome === 'notHeld'
        ? refuse('refused', 'the host is not held')
        : refuse('refused', 'no host with this identity came from that boot')
    },
  ),
  defineRoute(
    {
      method: 'GET',
      path: '/renewals',
      name: 'renewals',
      access: 'viewer',
      summary: 'Hosts whose certificate ran out while they were away, and who ask for another.',
      response: Renewals,
    },
    ({ services }) => answer({ renewals: [...services.standing.renewals()] }),
  ),
  defineRoute(
    {
      method: 'POST',
      path: '/hosts/:id/approve-renewal',
      name: 'approveRenewal',
      access: 'admin',
      issues: true,
      summary: 'Gives a host whose certificate ran out another one, for the new key that it asked with.',
      params: HostParams,
      body: Closed({ reason: Reason }),
      response: Done,
    },
    ({ services, params, body, by }) => {
      const outcome = services.standing.approveRenewal(params.id, by, body.reason)
      return outcome.ok ? answer({ done: true as const }) : refuse('refused', outcome.reason)
    },
  ),
  defineRoute(
    {
      method: 'POST',
      path: '/enrolment/tokens',
      name: 'createEnrolmentToken',
      access: 'admin',
      issues: true,
      summary: 'Makes a token with which one host can enrol. It is shown once.',
      body: TokenRequest,
      response: TokenAnswer,
    },
    ({ services, body, by }) =>
      answer(services.enrolment.createToken(by, body.ttlMs ?? TOKEN_TTL_MS_DEFAULT)),
  ),
  defineRoute(
    {
      method: 'GET',
      path: '/keyset',
      name: 'keyset',
      access: 'viewer',
      summary: 'The keyset in force: its signed bytes and the root’s signature.',
      response: KeysetAnswer,
    },
    ({ services }) => answer(services.keyset.current()),
  ),
  defineRoute(
    {
      method: 'PUT',
      path: '/keyset',
      name: 'replaceKeyset',
      access: 'admin',
      issues: true,
      summary: 'Puts a newer keyset in force. The root must have signed it.',
      body: KeysetRequest,
      response: KeysetReplaced,
    },
    ({ services, body, by }) => {
      const outcome = services.keyset.replace(body.keyset, body.rootSignature, by)
      return outcome.ok ? answer(outcome.value) : refuse('refused', outcome.error.reason)
    },
  ),
  defineRoute(
    {
      method: 'GET',
      path: '/audit',
      name: 'audit',
      access: 'admin',
      summary: 'Who did what to which subject, newest first; each entry is chained to the one before.',
      query: Closed({ limit: Limit, format: Format }),
      response: Audit,
      csv: {
        list: 'entries',
        columns: { at: 'at', by: 'by', action: 'action', subject: 'subject', detail: 'detail', hash: 'hash' },
      },
    },
    ({ services, query }) => answer({ entries: [...services.audit.list(query.limit)] }),
  ),
]

function hostAnswer(host: Host) {
  return { ...host, sensors: [...host.sensors] }
}
