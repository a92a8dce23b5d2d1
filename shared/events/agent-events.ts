/** The agent on itself: its life, its sensors, what it lost, what was done to it and what it did. */
import Type from 'typebox'
import { oneOf } from '../protocol/one-of.ts'
import { actor, Count, closed, common, ecs, Text, Timestamp } from './fields.ts'

export const AgentStarted = Type.Object(
  {
    ...common,
    ...ecs('event', 'host', 'start', 'agent-started'),
    'agent.version': Text(32),
    'host.boot.id': Text(64),
    'cordon.sensors': Type.Array(Text(64), { maxItems: 16 }),
  },
  closed,
)
export const AgentStopped = Type.Object(
  { ...common, ...ecs('event', 'host', 'end', 'agent-stopped'), 'event.reason': Text() },
  closed,
)
export const SensorChanged = Type.Object(
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
export const Gap = Type.Object(
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
    /** Of which kinds they were, where that is known; their sum is `count`. */
    'cordon.gap.actions': Type.Optional(
      Type.Record(Type.String({ pattern: '^[a-z-]{1,32}$' }), Count, { maxProperties: 64 }),
    ),
    /** The process whose events were left out, when they were left out because they were its. */
    ...actor,
  },
  closed,
)
/** Something touched the agent, its identity or its data. */
export const Tamper = Type.Object(
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

export const ActionState = Type.Object(
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
