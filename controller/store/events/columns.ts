/** The few facts of an event that queries look up, taken out of its body once, when it arrives. */
import type { CordonEvent } from '../../../shared/events/event.ts'

/** Values per event in the flat list that goes to the writer. */
export const COLUMNS_PER_EVENT = 7

export type ColumnValue = string | number | null

type Looked =
  | 'process.entity_id'
  | 'process.parent.entity_id'
  | 'file.hash.sha256'
  | 'process.hash.sha256'
  | 'destination.ip'
  | 'file.path'
  | 'process.executable'

/**
 * Appends `time_ms, action, entity_id, parent_entity_id, sha256, destination_ip, path`. A file's hash and path
 * go before the acting process's: they are what the event is about.
 */
export function addColumns(into: ColumnValue[], event: CordonEvent): void {
  const facts = event as { readonly [Field in Looked]?: string }
  into.push(
    Date.parse(event['@timestamp']),
    event['event.action'],
    facts['process.entity_id'] ?? null,
    facts['process.parent.entity_id'] ?? null,
    facts['file.hash.sha256'] ?? facts['process.hash.sha256'] ?? null,
    facts['destination.ip'] ?? null,
    facts['file.path'] ?? facts['process.executable'] ?? null,
  )
}
