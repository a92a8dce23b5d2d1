/** Names for the parts of the API's answers; the answers themselves are generated. */
import type { paths } from './schema.ts'

type Get<Path extends keyof paths> = paths[Path] extends {
  get: { responses: { 200: { content: { 'application/json': infer Body } } } }
}
  ? Body
  : never

export type Session = Get<'/api/v1/auth/session'>
export type Host = Get<'/api/v1/hosts/{id}'>
export type HostQuery = NonNullable<paths['/api/v1/hosts']['get']['parameters']['query']>
export type Incident = Get<'/api/v1/incidents/{id}'>
export type IncidentFilter = NonNullable<
  NonNullable<paths['/api/v1/incidents']['get']['parameters']['query']>['status']
>
export type Detection = Get<'/api/v1/incidents/{id}/detections'>['detections'][number]
export type TimelineEntry = Get<'/api/v1/incidents/{id}/timeline'>['entries'][number]
export type ProcessNode = Get<'/api/v1/incidents/{id}/processes'>['processes'][number]
export type Action = Get<'/api/v1/actions/{id}'>
export type Severity = Incident['severity']
export type StoredEvent = Get<'/api/v1/events/at'>
export type Change = paths['/api/v1/stream']['get']['responses'][200]['content']['text/event-stream']
