/** Which events are worth more than others. Loads no schemas: the store's threads need nothing but the names. */
import type { EventAction } from './event.ts'

/** Delivery classes in order of worth: a full buffer drops from the highest number down, class 0 never. */
export const CLASS_CRITICAL = 0
export const CLASS_DETECTION = 1
export const CLASS_PROCESS = 2
export const CLASS_ACTIVITY = 3
export const EVENT_CLASSES = [CLASS_CRITICAL, CLASS_DETECTION, CLASS_PROCESS, CLASS_ACTIVITY] as const
export type EventClass = (typeof EVENT_CLASSES)[number]

export const CLASS_OF_ACTION: { readonly [Action in EventAction]: EventClass } = {
  exec: CLASS_PROCESS,
  'process-info': CLASS_PROCESS,
  exit: CLASS_PROCESS,
  connection: CLASS_ACTIVITY,
  'file-created': CLASS_ACTIVITY,
  'file-modified': CLASS_ACTIVITY,
  'file-deleted': CLASS_ACTIVITY,
  'file-renamed': CLASS_ACTIVITY,
  'file-examined': CLASS_ACTIVITY,
  detection: CLASS_DETECTION,
  'agent-started': CLASS_CRITICAL,
  'agent-stopped': CLASS_CRITICAL,
  'sensor-changed': CLASS_CRITICAL,
  gap: CLASS_CRITICAL,
  tamper: CLASS_CRITICAL,
  'action-state': CLASS_CRITICAL,
}
