/** Everything that the pages ask for, by keys that the stream of changes knows. */
import { keepPreviousData, useMutation, useQueries, useQuery, useQueryClient } from '@tanstack/react-query'
import { ApiProblem, api, bodyOf, keepCsrfToken } from './client.ts'
import type { HostQuery, IncidentFilter, ProcessNode, Session } from './types.ts'

export const SESSION_KEY = ['session'] as const
const INCIDENTS_MAX = 1_000
const ACTIONS_MAX = 500
const EVENTS_SHOWN = 100

export function useSession() {
  return useQuery({
    queryKey: SESSION_KEY,
    staleTime: Number.POSITIVE_INFINITY,
    async queryFn(): Promise<Session | null> {
      try {
        const session = await bodyOf(api.GET('/api/v1/auth/session'))
        keepCsrfToken(session.csrfToken)
        return session
      } catch (error) {
        if (error instanceof ApiProblem && error.status === 401) return null
        throw error
      }
    },
  })
}

export interface SignIn {
  readonly name: string
  readonly password: string
  /** The one-time code of the first administrator, or null. */
  readonly code: string | null
}

export function useSignIn() {
  const client = useQueryClient()
  return useMutation({
    mutationFn: ({ name, password, code }: SignIn) =>
      code === null
        ? bodyOf(api.POST('/api/v1/auth/login', { body: { name, password } }))
        : bodyOf(api.POST('/api/v1/auth/first', { body: { name, password, code } })),
    onSuccess(session) {
      keepCsrfToken(session.csrfToken)
      // What another person saw must not show.
      client.removeQueries({ predicate: ({ queryKey }) => queryKey[0] !== SESSION_KEY[0] })
      client.setQueryData(SESSION_KEY, session)
    },
  })
}

export function useSignOut() {
  const client = useQueryClient()
  return useMutation({
    mutationFn: () => bodyOf(api.POST('/api/v1/auth/logout')),
    onSuccess() {
      keepCsrfToken(null)
      client.setQueryData(SESSION_KEY, null)
    },
  })
}

export function useHosts(query: HostQuery) {
  return useQuery({
    queryKey: ['hosts', 'list', query],
    queryFn: ({ signal }) => bodyOf(api.GET('/api/v1/hosts', { params: { query }, signal })),
    placeholderData: keepPreviousData,
  })
}

export function useHost(id: string) {
  return useQuery({
    queryKey: ['hosts', 'one', id],
    queryFn: ({ signal }) => bodyOf(api.GET('/api/v1/hosts/{id}', { params: { path: { id } }, signal })),
  })
}

export function useIncidents(status: IncidentFilter | undefined) {
  const query = { limit: INCIDENTS_MAX, ...(status ? { status } : {}) }
  return useQuery({
    queryKey: ['incidents', 'list', status ?? 'all'],
    queryFn: async ({ signal }) =>
      (await bodyOf(api.GET('/api/v1/incidents', { params: { query }, signal }))).incidents,
    placeholderData: keepPreviousData,
  })
}

export function useIncident(id: string) {
  return useQuery({
    queryKey: ['incidents', 'one', id, 'head'],
    queryFn: ({ signal }) => bodyOf(api.GET('/api/v1/incidents/{id}', { params: { path: { id } }, signal })),
  })
}

export function useDetections(id: string) {
  return useQuery({
    queryKey: ['incidents', 'one', id, 'detections'],
    queryFn: async ({ signal }) =>
      (await bodyOf(api.GET('/api/v1/incidents/{id}/detections', { params: { path: { id } }, signal })))
        .detections,
  })
}

export function useTimeline(id: string) {
  return useQuery({
    queryKey: ['incidents', 'one', id, 'timeline'],
    queryFn: async ({ signal }) =>
      (await bodyOf(api.GET('/api/v1/incidents/{id}/timeline', { params: { path: { id } }, signal })))
        .entries,
  })
}

export type TreeScope = 'path' | 'all'

export function useProcesses(id: string, scope: TreeScope) {
  return useQuery({
    queryKey: ['incidents', 'one', id, 'processes', scope],
    queryFn: async ({ signal }) =>
      (
        await bodyOf(
          api.GET('/api/v1/incidents/{id}/processes', {
            params: { path: { id }, query: { scope } },
            signal,
          }),
        )
      ).processes,
    placeholderData: keepPreviousData,
  })
}

export interface Opened {
  readonly agentId: string
  readonly entityId: string
}

/** Children of each process that was opened, as far as they are loaded. */
export function useChildren(opened: readonly Opened[]): ReadonlyMap<string, readonly ProcessNode[]> {
  return useQueries({
    queries: opened.map(({ agentId, entityId }) => ({
      queryKey: ['hosts', 'one', agentId, 'children', entityId],
      queryFn: async ({ signal }: { signal: AbortSignal }) => {
        const path = { id: agentId, entity: entityId }
        const { processes } = await bodyOf(
          api.GET('/api/v1/hosts/{id}/processes/{entity}/children', { params: { path }, signal }),
        )
        return { entityId, processes }
      },
    })),
    combine: (results) =>
      new Map(results.flatMap(({ data }) => (data ? [[data.entityId, data.processes] as const] : []))),
  })
}

export function useNextSteps(id: string) {
  return useQuery({
    queryKey: ['incidents', 'one', id, 'next'],
    queryFn: async ({ signal }) =>
      (await bodyOf(api.GET('/api/v1/incidents/{id}/next', { params: { path: { id } }, signal }))).steps,
  })
}

export function useActions(of: { readonly incidentId: string } | { readonly agentId: string }) {
  return useQuery({
    queryKey: ['actions', 'list', of],
    queryFn: async ({ signal }) =>
      (await bodyOf(api.GET('/api/v1/actions', { params: { query: { ...of, limit: ACTIONS_MAX } }, signal })))
        .actions,
  })
}

export function useProcessEvents(agentId: string, entityId: string) {
  return useQuery({
    queryKey: ['hosts', 'one', agentId, 'events', entityId],
    queryFn: async ({ signal }) => {
      const query = { agentId, entityId, order: 'descending', limit: EVENTS_SHOWN } as const
      return (await bodyOf(api.GET('/api/v1/events', { params: { query }, signal }))).events
    },
  })
}

/** One stored event: by its cursor, or the detection's own by the id that its body holds. */
export function useRawEvent(of: { readonly cursor: string } | { readonly detection: string } | null) {
  return useQuery({
    queryKey: ['raw', of],
    enabled: of !== null,
    staleTime: Number.POSITIVE_INFINITY,
    async queryFn({ signal }) {
      if (of === null) return null
      if ('cursor' in of) {
        return bodyOf(api.GET('/api/v1/events/at', { params: { query: { cursor: of.cursor } }, signal }))
      }
      const query = { action: 'detection', contains: of.detection, limit: 1 } as const
      const { events } = await bodyOf(api.GET('/api/v1/events', { params: { query }, signal }))
      return events[0] ?? null
    },
  })
}

export function useNote(id: string) {
  return useIncidentChange(id, (text: string) =>
    bodyOf(api.POST('/api/v1/incidents/{id}/notes', { params: { path: { id } }, body: { text } })),
  )
}

export function useClose(id: string) {
  return useIncidentChange(id, (reason: string) =>
    bodyOf(api.POST('/api/v1/incidents/{id}/close', { params: { path: { id } }, body: { reason } })),
  )
}

function useIncidentChange(id: string, change: (text: string) => Promise<unknown>) {
  const client = useQueryClient()
  return useMutation({
    mutationFn: change,
    onSuccess: () => client.invalidateQueries({ queryKey: ['incidents', 'one', id] }),
  })
}

export function useCancel() {
  const client = useQueryClient()
  return useMutation({
    mutationFn: ({ id, reason }: { readonly id: string; readonly reason: string }) =>
      bodyOf(api.POST('/api/v1/actions/{id}/cancel', { params: { path: { id } }, body: { reason } })),
    onSuccess: () => client.invalidateQueries({ queryKey: ['actions'] }),
  })
}
