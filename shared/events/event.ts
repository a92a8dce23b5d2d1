/**
 * The event schema: ECS 8 field names, flat and dotted, one closed object per action. What a sensor saw, what
 * a detection found and what the agent did all take this one form from the agent's buffer to the console.
 * Bodies are canonical: `JSON.stringify` of an object built in the schema's order.
 */
import Type, { type Static, type TSchema } from 'typebox'
import { COMMAND_LINE_CHARACTERS_MAX, PATH_CHARACTERS_MAX, TEXT_CHARACTERS_MAX } from '../protocol/limits.ts'
import { oneOf } from '../protocol/one-of.ts'

const Text = (charactersMax = TEXT_CHARACTERS_MAX) => Type.String({ maxLength: charactersMax })
const Path = Type.String({ minLength: 1, maxLength: PATH_CHARACTERS_MAX })
const Count = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
const Port = Type.Integer({ minimum: 0, maximum: 65_535 })
const Address = Type.String({ minLength: 2, maxLength: 45, pattern: '^[0-9a-fA-F:.]+$' })
const Sha256 = Type.String({ pattern: '^[0-9a-f]{64}$' })

/** `<agent 8 hex>.<boot 8 hex>.<pid>.<start ticks>`: readable, and never reused. */
export const EntityId = Type.String({ pattern: '^[0-9a-f]{8}\\.[0-9a-f]{8}\\.[0-9]{1,10}\\.[0-9]{1,15}$' })

/** RFC 3339 in UTC with milliseconds. */
export const Timestamp = Type.String({
  pattern: '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z$',
})

const common = {
  '@timestamp': Timestamp,
}

/** Set when a text field was not UTF-8 (exact bytes in base64, by field) or was cut (names of the fields). */
const fidelity = {
  'cordon.bytes': Type.Optional(
    Type.Record(Type.String({ pattern: '^[a-z._]{1,64}$' }), Type.String({ maxLength: 24_000 }), {
      maxProperties: 8,
    }),
  ),
  'cordon.truncated': Type.Optional(Type.Array(Type.String({ maxLength: 64 }), { maxItems: 8 })),
}

/** The acting process, as far as it is known. `cordon.attribution` says how it was found when not by the kernel. */
const actor = {
  'process.entity_id': Type.Optional(EntityId),
  'process.pid': Type.Optional(Count),
  'process.name': Type.Optional(Text(256)),
  'process.executable': Type.Optional(Path),
  'process.command_line': Type.Optional(Text(COMMAND_LINE_CHARACTERS_MAX)),
  'process.parent.entity_id': Type.Optional(EntityId),
  'process.parent.pid': Type.Optional(Count),
  'process.parent.executable': Type.Optional(Path),
  'user.id': Type.Optional(Text(32)),
  'user.name': Type.Optional(Text(256)),
  'cordon.attribution': Type.Optional(
    Type.Union([Type.Literal('open-descriptor'), Type.Literal('socket-owner'), Type.Literal('poll')]),
  ),
}

const ecs = <Kind extends string, Category extends string, Kinds extends string, Action extends string>(
  kind: Kind,
  category: Category,
  type: Kinds,
  action: Action,
) => ({
  'event.kind': Type.Literal(kind),
  'event.category': Type.Literal(category),
  'event.type': Type.Literal(type),
  'event.action': Type.Literal(action),
})

const closed = { additionalProperties: false } as const

const processImage = {
  'process.working_directory': Type.Optional(Path),
  'process.args_count': Type.Optional(Count),
  'process.session_leader.entity_id': Type.Optional(EntityId),
  'process.session_leader.pid': Type.Optional(Count),
  'process.group.id': Type.Optional(Text(32)),
  'process.hash.sha256': Type.Optional(Sha256),
}

const Exec = Type.Object(
  { ...common, ...ecs('event', 'process', 'start', 'exec'), ...actor, ...processImage, ...fidelity },
  closed,
)
/**
 * A process told because something refers to it: it forked without exec, or ran before the agent did. Told
 * once, before the first event that refers to it; `@timestamp` is when it started.
 */
const ProcessInfo = Type.Object(
  { ...common, ...ecs('event', 'process', 'info', 'process-info'), ...actor, ...processImage, ...fidelity },
  closed,
)
const Exit = Type.Object(
  {
    ...common,
    ...ecs('event', 'process', 'end', 'exit'),
    'process.entity_id': EntityId,
    'process.pid': Count,
    'process.exit_code': Type.Optional(Type.Integer({ minimum: 0, maximum: 255 })),
    'cordon.process.signal': Type.Optional(Type.Integer({ minimum: 1, maximum: 64 })),
  },
  closed,
)

const Connection = Type.Object(
  {
    ...common,
    ...ecs('event', 'network', 'start', 'connection'),
    'event.outcome': Type.Union([Type.Literal('success'), Type.Literal('failure'), Type.Literal('unknown')]),
    'network.transport': Type.Literal('tcp'),
    'network.type': Type.Union([Type.Literal('ipv4'), Type.Literal('ipv6')]),
    'network.direction': Type.Literal('egress'),
    'source.ip': Type.Optional(Address),
    'source.port': Type.Optional(Port),
    'destination.ip': Address,
    'destination.port': Port,
    ...actor,
    ...fidelity,
  },
  closed,
)

const fileFacts = {
  'file.path': Path,
  'file.name': Type.Optional(Text(256)),
  'file.extension': Type.Optional(Text(64)),
  'file.size': Type.Optional(Count),
  'file.inode': Type.Optional(Text(24)),
  'file.device': Type.Optional(Text(24)),
  'file.hash.sha256': Type.Optional(Sha256),
  'file.hash.sha1': Type.Optional(Type.String({ pattern: '^[0-9a-f]{40}$' })),
  'file.hash.md5': Type.Optional(Type.String({ pattern: '^[0-9a-f]{32}$' })),
}

const fileEvent = <Kinds extends string, Action extends string>(type: Kinds, action: Action) =>
  Type.Object(
    { ...common, ...ecs('event', 'file', type, action), ...fileFacts, ...actor, ...fidelity },
    closed,
  )

const FileCreated = fileEvent('creation', 'file-created')
const FileModified = fileEvent('change', 'file-modified')
const FileDeleted = fileEvent('deletion', 'file-deleted')
const FileRenamed = Type.Object(
  {
    ...common,
    ...ecs('event', 'file', 'change', 'file-renamed'),
    ...fileFacts,
    'cordon.file.previous_path': Type.Optional(Path),
    ...actor,
    ...fidelity,
  },
  closed,
)
/** The content of a file was read: its hashes and size. Told once per content. */
const FileExamined = fileEvent('info', 'file-examined')

export const SEVERITIES = ['info', 'low', 'medium', 'high', 'critical'] as const
export type Severity = (typeof SEVERITIES)[number]
export const SeveritySchema = oneOf(SEVERITIES)

/**
 * What detection found. `cordon.detection.id` is derived from the finding and what it concerns, so the same
 * finding made at both ends is one detection.
 */
const Detection = Type.Object(
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

const AgentStarted = Type.Object(
  {
    ...common,
    ...ecs('event', 'host', 'start', 'agent-started'),
    'agent.version': Text(32),
    'host.boot.id': Text(64),
    'cordon.sensors': Type.Array(Text(64), { maxItems: 16 }),
  },
  closed,
)
const AgentStopped = Type.Object(
  { ...common, ...ecs('event', 'host', 'end', 'agent-stopped'), 'event.reason': Text() },
  closed,
)
const SensorChanged = Type.Object(
  {
    ...common,
    ...ecs('event', 'host', 'change', 'sensor-changed'),
    'cordon.sensor.name': Text(64),
    'cordon.sensor.in_force': Type.Boolean(),
    'event.reason': Text(),
  },
  closed,
)
/** Events that were seen or made and will never be delivered. `count` null: nobody could count them. */
const Gap = Type.Object(
  {
    ...common,
    ...ecs('event', 'host', 'info', 'gap'),
    'cordon.gap.class': Type.Integer({ minimum: 0, maximum: 3 }),
    /** First and last lost sequence of the class; absent when they were lost before they had one. */
    'cordon.gap.from': Type.Optional(Count),
    'cordon.gap.to': Type.Optional(Count),
    'cordon.gap.count': Type.Union([Count, Type.Null()]),
    'cordon.gap.bytes': Type.Union([Count, Type.Null()]),
    'cordon.gap.started': Timestamp,
    'cordon.gap.ended': Timestamp,
    'event.reason': Text(),
  },
  closed,
)
/** Something touched the agent, its identity or its data. */
const Tamper = Type.Object(
  { ...common, ...ecs('alert', 'host', 'info', 'tamper'), 'event.reason': Text(), ...actor },
  closed,
)

/** The states a command reaches on the agent. The controller's own states are in dispatch. */
const AGENT_COMMAND_STATES = [
  'received',
  'applied',
  'probed',
  'done',
  'failed',
  'refused',
  'expired',
  'unknown',
  /** What it had done was taken back, by the host or by a later command. */
  'reverted',
] as const
export type AgentCommandState = (typeof AGENT_COMMAND_STATES)[number]

const ActionState = Type.Object(
  {
    ...common,
    ...ecs('event', 'host', 'change', 'action-state'),
    'cordon.command.id': Type.String({ pattern: '^[0-9a-f]{32}$' }),
    'cordon.command.action': Text(32),
    'cordon.command.state': oneOf(AGENT_COMMAND_STATES),
    /** Why, in words for a person; for a refusal, its cause. */
    'event.reason': Text(),
    /** What the agent measured on the host that shows the state is true. */
    'cordon.command.proof': Type.Record(
      Type.String({ pattern: '^[a-zA-Z_.]{1,48}$' }),
      Type.Union([Text(), Type.Number(), Type.Boolean(), Type.Null()]),
      { maxProperties: 24 },
    ),
  },
  closed,
)

/** One schema per action: the only source of types, validators and docs/events.md. */
export const EVENT_SCHEMAS = {
  exec: Exec,
  'process-info': ProcessInfo,
  exit: Exit,
  connection: Connection,
  'file-created': FileCreated,
  'file-modified': FileModified,
  'file-deleted': FileDeleted,
  'file-renamed': FileRenamed,
  'file-examined': FileExamined,
  detection: Detection,
  'agent-started': AgentStarted,
  'agent-stopped': AgentStopped,
  'sensor-changed': SensorChanged,
  gap: Gap,
  tamper: Tamper,
  'action-state': ActionState,
} as const satisfies Record<string, TSchema>

export type EventAction = keyof typeof EVENT_SCHEMAS
export type EventOf<Action extends EventAction> = Static<(typeof EVENT_SCHEMAS)[Action]>
export type CordonEvent = { [Action in EventAction]: EventOf<Action> }[EventAction]
export type DetectionEvent = EventOf<'detection'>
