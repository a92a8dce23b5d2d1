/** What is made for each row of telemetry, and which events must come of it. */
import type { EventAction } from '../../../shared/events/event.ts'

export type Fields = Readonly<Record<string, unknown>>

/** One row: so many times something was done, and each must be told once. */
export interface Made {
  /** As in `agent/sensors/telemetry/rows.ts`. */
  readonly row: string
  readonly made: number
  readonly action: EventAction
  /** Whether an event of that action is one of those that were made, with the right process. */
  readonly isOne: (event: Fields) => boolean
}

export interface Seen extends Made {
  readonly seen: number
  /** The last events of the action that are none of them. */
  readonly others: readonly Fields[]
}
