/** An event in the making: what is its own, before time and acting process are added. */
import type { EventAction } from '../../shared/events/event.ts'

export type Fields = Readonly<Record<string, unknown>>

export interface Described {
  readonly action: EventAction
  readonly fields: Fields
}
