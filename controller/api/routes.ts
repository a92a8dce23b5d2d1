/** Every route of the API. What is not in this table is not served. */
import { ACTION_ROUTES } from './action-routes.ts'
import { AUTH_ROUTES } from './auth-routes.ts'
import { EVIDENCE_ROUTES } from './evidence-routes.ts'
import { FLEET_ROUTES } from './fleet-routes.ts'
import { INCIDENT_ROUTES } from './incident-routes.ts'
import type { Route } from './route.ts'

export const ROUTES: readonly Route[] = [
  ...AUTH_ROUTES,
  ...FLEET_ROUTES,
  ...INCIDENT_ROUTES,
  ...ACTION_ROUTES,
  ...EVIDENCE_ROUTES,
]
