/** What the sensors' room hands to detection: an event, and the content that is worth reading because of it. */
import type { CordonEvent } from '../../shared/events/event.ts'
import type { FileIdentity, KernelText } from '../sensors/records.ts'

export interface Content {
  readonly path: KernelText
  /** As the kernel told it at the time; null when unknown. */
  readonly identity: FileIdentity | null
  readonly why: 'written' | 'executed'
}

export interface Observation {
  readonly event: CordonEvent
  readonly content: Content | null
}
