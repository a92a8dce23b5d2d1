/**
 * Which telemetry an operator leaves out, keeps or exempts from caps. A list can only name actions that come from
 * observations in number: what a detection found, what was done to the agent, logons and changes of the
 * configuration are not among them, nor are `exec` and `exit`, which every other event refers to.
 */
import Type, { type Static } from 'typebox'
import type { EventAction } from '../events/event.ts'
import { PATH_CHARACTERS_MAX, TELEMETRY_RULES_MAX } from './limits.ts'
import { oneOf } from './one-of.ts'
import { inSchemaOrder } from './schema-order.ts'

export const LISTABLE_ACTIONS = [
  'script',
  'memory-file-created',
  'memory-executable',
  'process-access',
  'process-tampering',
  'credentials-changed',
  'namespace-changed',
  'library-loaded',
  'module-loaded',
  'module-unloaded',
  'bpf-used',
  'mount-changed',
  'connection',
  'connection-accepted',
  'connection-closed',
  'datagram-flow',
  'socket-listen',
  'raw-socket',
  'dns-query',
  'dns-answer',
  'file-created',
  'file-modified',
  'file-deleted',
  'file-renamed',
  'file-linked',
  'file-attributes-changed',
  'device-read',
  'sysctl-written',
] as const satisfies readonly EventAction[]

/** `drop`: counted and not told. `keep`: no later rule drops it. `always`: kept, and no cap holds it back. */
export const VERDICTS = ['drop', 'keep', 'always'] as const

const AbsolutePath = Type.String({ minLength: 1, maxLength: PATH_CHARACTERS_MAX, pattern: '^/' })

/** All that is said must hold. Of several rules the first that holds decides. */
export const TelemetryRule = Type.Object(
  {
    /** Told with the count of what it dropped. */
    name: Type.String({ pattern: '^[a-zA-Z0-9][a-zA-Z0-9 ._-]{0,63}$' }),
    verdict: oneOf(VERDICTS),
    /** Absent: all that can be listed. */
    actions: Type.Optional(
      Type.Array(oneOf(LISTABLE_ACTIONS), {
        minItems: 1,
        maxItems: LISTABLE_ACTIONS.length,
        uniqueItems: true,
      }),
    ),
    /** The program of the acting process, as it is on the host. */
    executable: Type.Optional(AbsolutePath),
    parentExecutable: Type.Optional(AbsolutePath),
    userId: Type.Optional(Type.Integer({ minimum: 0, maximum: 4_294_967_295 })),
    /** A file, or a folder with all below it: `/var/log` is not `/var/logs`. */
    pathPrefix: Type.Optional(AbsolutePath),
    destinationAddress: Type.Optional(
      Type.String({ minLength: 2, maxLength: 45, pattern: '^[0-9a-fA-F:.]+$' }),
    ),
    destinationPort: Type.Optional(Type.Integer({ minimum: 0, maximum: 65_535 })),
  },
  { additionalProperties: false },
)
export type TelemetryRule = Readonly<Static<typeof TelemetryRule>>

export const TelemetryLists = Type.Object(
  { rules: Type.Array(TelemetryRule, { maxItems: TELEMETRY_RULES_MAX }) },
  { additionalProperties: false },
)
export type TelemetryLists = Readonly<Static<typeof TelemetryLists>>

/** The one text of lists, whoever wrote them: what is measured, hashed and kept. */
export function canonicalTelemetryLists(lists: TelemetryLists): string {
  return JSON.stringify(inSchemaOrder(TelemetryLists, lists))
}
