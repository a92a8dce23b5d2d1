/** What detection found. */
import Type from 'typebox'
import { oneOf } from '../protocol/one-of.ts'
import {
  Address,
  actor,
  Count,
  closed,
  common,
  EntityId,
  ecs,
  fidelity,
  fileFacts,
  Path,
  Port,
  Sha256,
  Text,
  Timestamp,
} from './fields.ts'

export const SEVERITIES = ['info', 'low', 'medium', 'high', 'critical'] as const
export type Severity = (typeof SEVERITIES)[number]
export const SeveritySchema = oneOf(SEVERITIES)

/**
 * What detection found. `cordon.detection.id` is derived from the finding and what it concerns, so the same
 * finding made at both ends is one detection.
 */
export const Detection = Type.Object(
  {
    ...common,
    ...ecs('alert', 'threat', 'indicator', 'detection'),
    /** When the observed event happened; `@timestamp` is when the finding was made. */
    'event.start': Type.Optional(Timestamp),
    'cordon.detection.id': Type.String({ pattern: '^[0-9a-f]{32}$' }),
    'cordon.detection.engine': Type.Union([Type.Literal('yara'), Type.Literal('ioc'), Type.Literal('sigma')]),
    'cordon.detection.severity': SeveritySchema,
    /** Field of the event that matched and its value, for a person to read. */
    'cordon.detection.matched': Type.Record(Type.String({ pattern: '^[@a-z0-9._]{1,64}$' }), Text(), {
      maxProperties: 8,
    }),
    'rule.id': Text(128),
    'rule.name': Text(256),
    'rule.description': Type.Optional(Text()),
    'threat.technique.id': Type.Optional(Type.Array(Text(16), { maxItems: 16 })),
    'threat.indicator.type': Type.Optional(Text(32)),
    'threat.indicator.name': Type.Optional(Text()),
    /** `<stream id>:<class>:<sequence>` would bind it to a row that may not be written yet: the action suffices. */
    'cordon.detection.event_action': Text(32),
    'process.session_leader.entity_id': Type.Optional(EntityId),
    /** Nearest first, up to the first process of the host. */
    'cordon.process.ancestors': Type.Optional(Type.Array(EntityId, { maxItems: 32 })),
    /** How many of the ancestors, from the nearest, share the process's session. */
    'cordon.process.session_ancestors': Type.Optional(Count),
    'process.working_directory': Type.Optional(Path),
    'process.hash.sha256': Type.Optional(Sha256),
    'source.ip': Type.Optional(Address),
    'source.port': Type.Optional(Port),
    'destination.ip': Type.Optional(Address),
    'destination.port': Type.Optional(Port),
    ...{ ...fileFacts, 'file.path': Type.Optional(Path) },
    ...actor,
    ...fidelity,
  },
  closed,
)
