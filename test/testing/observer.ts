/** What tests ask the controller's API for, again and again, at a rate that it serves. */
import type { Static } from 'typebox'
import { vi } from 'vitest'
import { Actions, Detections, Events, Incidents } from '../../controller/api/schemas.ts'
import { type Action, FINAL_STATES } from '../../controller/dispatch/action.ts'
import type { DetectionRecord, Incident } from '../../controller/incidents/incident.ts'
import type { Operator } from '../../scripts/setup/operator.ts'

/** Generous: a machine that runs other tests too is slow. */
export const WAIT = { timeout: 30_000, interval: 100 }

type StoredEvent = Static<typeof Events>['events'][number]
type Fields = Readonly<Record<string, unknown>>

export interface Observer {
  incident(id: string): Promise<Incident>
  /** Detections below a folder, oldest incident first. Other tests on this machine make their own. */
  detectionsBelow(folder: string): Promise<readonly DetectionRecord[]>
  /** Waits for a detection in a file. */
  detectionOf(path: string): Promise<DetectionRecord>
  /** Waits until the first of the actions has come to its end. */
  endOf(asked: readonly Action[]): Promise<Action>
  events(
    query: Readonly<Record<string, string | number>>,
  ): Promise<readonly (StoredEvent & { readonly fields: Fields })[]>
}

export function createObserver(operator: Operator): Observer {
  /** Detections of each incident as of its last change: there may be many incidents of others. */
  const known = new Map<string, { readonly updatedAt: string; readonly detections: DetectionRecord[] }>()
  const incidents = async () => (await operator.get('/incidents', Incidents, { limit: 1_000 })).incidents

  const observer: Observer = {
    async incident(id) {
      const incident = (await incidents()).find((one) => one.id === id)
      if (incident === undefined) throw new Error(`${id} is not listed`)
      return incident
    },
    async detectionsBelow(folder) {
      const found: DetectionRecord[] = []
      for (const { id, updatedAt } of (await incidents()).toReversed()) {
        let entry = known.get(id)
        if (entry?.updatedAt !== updatedAt) {
          entry = { updatedAt, ...(await operator.get(`/incidents/${id}/detections`, Detections)) }
          known.set(id, entry)
        }
        found.push(...entry.detections.filter(({ filePath }) => filePath?.startsWith(`${folder}/`)))
      }
      return found
    },
    detectionOf: (path) =>
      vi.waitFor(async () => {
        const detections = await observer.detectionsBelow(path.slice(0, path.lastIndexOf('/')))
        const found = detections.find(({ filePath }) => filePath === path)
        if (found === undefined) throw new Error(`nothing was detected in ${path}`)
        return found
      }, WAIT),
    endOf: (asked) =>
      vi.waitFor(async () => {
        const { actions } = await operator.get('/actions', Actions, { limit: 1_000 })
        const action = actions.find(({ id }) => id === asked[0]?.id)
        if (action === undefined || !FINAL_STATES.has(action.state)) {
          throw new Error(`the action is ${action?.state ?? 'not listed'}`)
        }
        return action
      }, WAIT),
    async events(query) {
      const { events } = await operator.get('/events', Events, {
        order: 'ascending',
        limit: 10_000,
        ...query,
      })
      return events.map((stored) => ({ ...stored, fields: { ...stored.event } }))
    },
  }
  return observer
}
