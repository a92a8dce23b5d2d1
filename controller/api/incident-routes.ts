/** Incidents: what happened, in which order, by which processes, and what people noted. */

import { EntityId } from '../../shared/events/fields.ts'
import { nextSteps } from '../cli/next-steps.ts'
import { Incident } from '../incidents/incident.ts'
import { answer, defineRoute, type Route, refuse } from './route.ts'
import {
  AgentIdText,
  Closed,
  Detections,
  Done,
  Format,
  IncidentIdText,
  IncidentQuery,
  Incidents,
  Limit,
  NextSteps,
  NoteRequest,
  Processes,
  ProcessesQuery,
  Reason,
  Timeline,
} from './schemas.ts'

const params = Closed({ id: IncidentIdText })
const ACTIONS_WEIGHED_MAX = 500
const DETECTIONS_CSV = {
  list: 'detections',
  columns: {
    id: 'id',
    incidentId: 'incidentId',
    detectedAt: 'detectedAt',
    severity: 'severity',
    engine: 'engine',
    ruleName: 'ruleName',
    hostName: 'hostName',
    processName: 'processName',
    commandLine: 'commandLine',
    filePath: 'filePath',
    fileSha256: 'fileSha256',
    indicator: 'indicator',
    groupedBecause: 'groupedBecause',
  },
} as const
const none = (id: string) => refuse('notFound', `there is no incident ${id}`, 'cordon incident ls --all')

export const INCIDENT_ROUTES: readonly Route[] = [
  defineRoute(
    {
      method: 'GET',
      path: '/incidents',
      name: 'incidents',
      access: 'viewer',
      summary: 'Lists incidents, newest first; `active` are those that are not closed.',
      query: IncidentQuery,
      response: Incidents,
      csv: {
        list: 'incidents',
        columns: {
          id: 'id',
          title: 'title',
          status: 'status',
          severity: 'severity',
          startedAt: 'startedAt',
          detectedAt: 'detectedAt',
          openedAt: 'openedAt',
          containedAt: 'containedAt',
          detectionCount: 'detectionCount',
          actionCount: 'actionCount',
        },
      },
    },
    ({ services, query: { status, limit } }) =>
      answer({ incidents: [...services.incidents.list({ ...(status ? { status } : {}), limit })] }),
  ),
  defineRoute(
    {
      method: 'GET',
      path: '/incidents/:id',
      name: 'incident',
      access: 'viewer',
      summary: 'One incident.',
      params,
      response: Incident,
    },
    ({ services, params: { id } }) => {
      const incident = services.incidents.get(id)
      return incident ? answer(incident) : none(id)
    },
  ),
  defineRoute(
    {
      method: 'GET',
      path: '/incidents/:id/detections',
      name: 'incidentDetections',
      access: 'viewer',
      summary: 'The detections of an incident, and why each is in it.',
      params,
      query: Closed({ format: Format }),
      response: Detections,
      csv: DETECTIONS_CSV,
    },
    ({ services, params: { id } }) =>
      services.incidents.get(id) ? answer({ detections: [...services.incidents.detections(id)] }) : none(id),
  ),
  defineRoute(
    {
      method: 'GET',
      path: '/detections',
      name: 'detections',
      access: 'viewer',
      summary: 'The detections of all incidents, the last stored first.',
      query: Closed({ limit: Limit, format: Format }),
      response: Detections,
      csv: DETECTIONS_CSV,
    },
    ({ services, query: { limit } }) =>
      answer({ detections: [...services.incidents.recentDetections(limit)] }),
  ),
  defineRoute(
    {
      method: 'GET',
      path: '/incidents/:id/timeline',
      name: 'incidentTimeline',
      access: 'viewer',
      summary: 'What happened, in order.',
      params,
      response: Timeline,
    },
    async ({ services, params: { id } }) =>
      services.incidents.get(id)
        ? answer({ entries: [...(await services.incidents.timeline(id))] })
        : none(id),
  ),
  defineRoute(
    {
      method: 'GET',
      path: '/incidents/:id/processes',
      name: 'incidentProcesses',
      access: 'viewer',
      summary: 'The processes of an incident with their parents.',
      params,
      query: ProcessesQuery,
      response: Processes,
    },
    async ({ services, params: { id }, query: { scope } }) =>
      services.incidents.get(id)
        ? answer({ processes: [...(await services.incidents.processTree(id, scope))] })
        : none(id),
  ),
  defineRoute(
    {
      method: 'GET',
      path: '/hosts/:id/processes/:entity/children',
      name: 'processChildren',
      access: 'viewer',
      summary: 'The processes that one process started.',
      params: Closed({ id: AgentIdText, entity: EntityId }),
      response: Processes,
    },
    async ({ services, params: { id, entity } }) =>
      answer({ processes: [...(await services.incidents.childrenOf(id, entity))] }),
  ),
  defineRoute(
    {
      method: 'GET',
      path: '/incidents/:id/next',
      name: 'incidentNextSteps',
      access: 'viewer',
      summary: 'What an operator would do next, as commands to type.',
      params,
      response: NextSteps,
    },
    async ({ services, params: { id } }) => {
      const incident = services.incidents.get(id)
      if (incident === undefined) return none(id)
      const steps = nextSteps({
        incident,
        detections: services.incidents.detections(id),
        processes: await services.incidents.processTree(id, 'path'),
        actions: services.actions.list({ incidentId: id, limit: ACTIONS_WEIGHED_MAX }),
        hosts: services.hosts.list(),
      })
      return answer({ steps: [...steps] })
    },
  ),
  defineRoute(
    {
      method: 'POST',
      path: '/incidents/:id/notes',
      name: 'noteIncident',
      access: 'responder',
      summary: 'Adds a note.',
      params,
      body: NoteRequest,
      response: Done,
    },
    ({ services, params: { id }, body, by }) =>
      services.incidents.note(id, by, body.text) ? answer({ done: true as const }) : none(id),
  ),
  defineRoute(
    {
      method: 'POST',
      path: '/incidents/:id/close',
      name: 'closeIncident',
      access: 'responder',
      summary: 'Closes an incident, with the reason.',
      params,
      body: Closed({ reason: Reason }),
      response: Done,
    },
    ({ services, params: { id }, body, by }) =>
      services.incidents.close(id, by, body.reason) ? answer({ done: true as const }) : none(id),
  ),
]
