/** Actions as they are stored, served and shown. An action is one command for one host under one intent. */
import Type, { type Static } from 'typebox'
import { Timestamp } from '../../shared/events/fields.ts'
import { ACTIONS, type ActionName, COMMAND_CLASSES, Leaf } from '../../shared/protocol/commands.ts'
import { INTENT_BYTES_MAX } from '../../shared/protocol/limits.ts'
import { Signature } from '../../shared/protocol/messages.ts'
import { oneOf } from '../../shared/protocol/one-of.ts'

const closed = { additionalProperties: false } as const
const Text = (charactersMax = 1_024) => Type.String({ maxLength: charactersMax })
const Id = Type.String({ pattern: '^[0-9a-f]{32}$' })
const ActionNameSchema = oneOf(Object.keys(ACTIONS) as ActionName[])
const Base64 = (bytesMax: number) =>
  Type.String({ maxLength: Math.ceil(bytesMax / 3) * 4, pattern: '^[A-Za-z0-9+/]*={0,2}$' })

export const ACTION_STATES = [
  'requested',
  'awaitingApproval',
  'queued',
  'sent',
  'received',
  'applied',
  'probed',
  'done',
  'expired',
  'cancelled',
  'failed',
  'refused',
  'reverted',
  'unknown',
] as const
export type ActionState = (typeof ACTION_STATES)[number]
/** States that nothing follows. */
export const FINAL_STATES: ReadonlySet<ActionState> = new Set<ActionState>([
  'done',
  'expired',
  'cancelled',
  'failed',
  'refused',
  'reverted',
])

export const ActionStep = Type.Object(
  {
    state: oneOf(ACTION_STATES),
    at: Timestamp,
    /** Who or what brought it about: an operator's name, `controller`, or `agent`. */
    by: Text(128),
    reason: Text(),
    /** What the agent measured; empty for the controller's own steps. */
    proof: Type.Record(Text(48), Type.Union([Text(), Type.Number(), Type.Boolean(), Type.Null()])),
  },
  closed,
)
export type ActionStep = Static<typeof ActionStep>

export const Action = Type.Object(
  {
    /** The command's id. */
    id: Id,
    intentId: Id,
    action: ActionNameSchema,
    class: oneOf(COMMAND_CLASSES),
    agentId: Id,
    hostName: Text(256),
    target: Leaf.properties.target,
    args: Type.Record(Text(64), Type.Unknown()),
    reason: Text(),
    incidentId: Type.Union([Text(32), Type.Null()]),
    requestedBy: Text(128),
    state: oneOf(ACTION_STATES),
    createdAt: Timestamp,
    expiresAt: Timestamp,
    steps: Type.Array(ActionStep, { maxItems: 64 }),
    /** Of a file that is coming: how much of it is here. */
    progress: Type.Optional(
      Type.Object(
        { receivedBytes: Type.Integer({ minimum: 0 }), sizeBytes: Type.Integer({ minimum: 0 }) },
        closed,
      ),
    ),
  },
  closed,
)
export type Action = Static<typeof Action>

/** What a client asks for: the controller answers with the exact bytes to sign. */
export const ActionRequest = Type.Object(
  {
    action: ActionNameSchema,
    args: Type.Record(Type.String({ maxLength: 64 }), Type.Unknown(), { maxProperties: 32 }),
    targets: Type.Array(Type.Object({ agentId: Id, target: Leaf.properties.target }, closed), {
      minItems: 1,
      maxItems: 1_000,
    }),
    reason: Type.String({ minLength: 1, maxLength: 1_024 }),
    incidentId: Type.Optional(Type.String({ maxLength: 32 })),
    ttlMs: Type.Optional(Type.Integer({ minimum: 1_000, maximum: 24 * 3_600_000 })),
    /** The same key gives the same action back instead of a second one. */
    idempotencyKey: Type.Optional(Type.String({ minLength: 8, maxLength: 128 })),
  },
  closed,
)
export type ActionRequest = Static<typeof ActionRequest>

/** Exact bytes for the operator's own program to check, show and sign. */
export const ActionPlan = Type.Object(
  {
    intentId: Id,
    /** Base64 of the intent's bytes and of each leaf's bytes, in order. */
    intent: Base64(INTENT_BYTES_MAX),
    leaves: Type.Array(Base64(8 * 1024), { maxItems: 1_000 }),
    /** Distinct operators whose signatures are still needed; 0: it is on its way. */
    signaturesNeeded: Type.Integer({ minimum: 0, maximum: 8 }),
    actions: Type.Array(Action, { maxItems: 1_000 }),
  },
  closed,
)
export type ActionPlan = Static<typeof ActionPlan>

export const Approval = Type.Object({ signature: Signature }, closed)

export type ActionError =
  | { readonly kind: 'notFound'; readonly what: string }
  | { readonly kind: 'invalid'; readonly reason: string }
  /** Signature wrong, key not in the keyset, key lacks the class, the same operator twice. */
  | { readonly kind: 'notAuthorised'; readonly reason: string }
  | { readonly kind: 'tooLate'; readonly state: ActionState }
