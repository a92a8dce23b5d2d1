/** Events in the order of their schema: the one canonical form. */
import { type CordonEvent, EVENT_SCHEMAS, type EventAction, type EventOf } from './event.ts'

const fieldNames = Object.fromEntries(
  Object.entries(EVENT_SCHEMAS).map(([action, schema]) => [action, Object.keys(schema.properties)]),
) as unknown as { readonly [Action in EventAction]: readonly string[] }

/**
 * An event of the schema's fields in the schema's order, out of a record that has at least those the schema
 * requires; other fields, and those that are undefined, are left out. `cordon.bytes` and `cordon.truncated`
 * keep only what they say of fields that are there.
 */
export function inSchemaOrder<Action extends EventAction>(
  action: Action,
  fields: Readonly<Record<string, unknown>>,
): EventOf<Action> {
  const event: Record<string, unknown> = {}
  for (const name of fieldNames[action]) {
    const value = name === 'cordon.bytes' || name === 'cordon.truncated' ? undefined : fields[name]
    if (value !== undefined) event[name] = value
  }
  const bytes = fields['cordon.bytes']
  if (typeof bytes === 'object' && bytes !== null) {
    const kept = Object.entries(bytes).filter(([name]) => Object.hasOwn(event, name))
    if (kept.length > 0) event['cordon.bytes'] = Object.fromEntries(kept)
  }
  const truncated = fields['cordon.truncated']
  if (Array.isArray(truncated)) {
    const kept = truncated.filter((name: unknown) => typeof name === 'string' && Object.hasOwn(event, name))
    if (kept.length > 0) event['cordon.truncated'] = kept
  }
  return event as unknown as EventOf<Action>
}

type Constants = Pick<CordonEvent, 'event.kind' | 'event.category' | 'event.action'> & {
  /** Absent where an action has several. */
  readonly 'event.type'?: string
}

const constants = Object.fromEntries(
  Object.entries(EVENT_SCHEMAS).map(([action, { properties }]) => [
    action,
    Object.fromEntries(
      Object.entries(properties).flatMap(([field, schema]) =>
        field.startsWith('event.') && 'const' in schema ? [[field, schema.const]] : [],
      ),
    ),
  ]),
) as unknown as { readonly [Action in EventAction]: Constants }

/** What the schema of an action fixes: kind, category, type and the action itself. */
export function constantsOf(action: EventAction): Constants {
  return constants[action]
}
