/** Requests and answers of the API that are not records of another room. The CLI reads them from here too. */
import Type, { type Static, type TProperties } from 'typebox'
import { type CordonEvent, EVENT_SCHEMAS, type EventAction } from '../../shared/events/event.ts'
import { Timestamp } from '../../shared/events/fields.ts'
import { ACTIONS, type ActionName } from '../../shared/protocol/commands.ts'
import { KEYSET_BYTES_MAX } from '../../shared/protocol/limits.ts'
import { Inventory, IsolationStatus, SensorStatus } from '../../shared/protocol/messages.ts'
import { ACTION_STATES, Action } from '../dispatch/action.ts'
import { Evidence } from '../evidence/record.ts'
import {
  DetectionRecord,
  INCIDENT_STATUSES,
  Incident,
  ProcessNode,
  TimelineEntry,
} from '../incidents/incident.ts'
import { PASSWORD_CHARACTERS_MAX } from '../operators/password.ts'
import { ROLES } from '../operators/role.ts'
import { HOST_SORTS } from './host-list.ts'

/** Every route of the table is below it. */
export const API_PREFIX = '/api/v1'

const LIST_LIMIT_MAX = 10_000
const LIST_LIMIT_DEFAULT = 100

const closed = { additionalProperties: false } as const
export const Closed = <Properties extends TProperties>(properties: Properties) =>
  Type.Object(properties, closed)
/** A union of literals made from a list has no static type of its own: it is told here. */
const Words = <const Word extends string>(words: readonly Word[]) =>
  Type.Unsafe<Word>(Type.Union(words.map((word) => Type.Literal(word))))
const Text = (charactersMax: number) => Type.String({ maxLength: charactersMax })

export const AgentIdText = Type.String({ pattern: '^[0-9a-f]{32}$' })
export const IncidentIdText = Type.String({ pattern: '^INC-[0-9]{1,12}$' })
export const Reason = Type.String({ minLength: 1, maxLength: 1_024 })
export const Limit = Type.Integer({ minimum: 1, maximum: LIST_LIMIT_MAX, default: LIST_LIMIT_DEFAULT })
export const Format = Type.Optional(Words(['json', 'csv']))

export const Done = Closed({ done: Type.Literal(true) })

const Name = Type.String({ minLength: 1, maxLength: 64 })
const Password = Type.String({ minLength: 1, maxLength: PASSWORD_CHARACTERS_MAX * 4 })
const Kind = Type.Optional(Words(['cookie', 'bearer']))
const RoleText = Words(ROLES)

/** `kind` bearer answers with a token for programs; otherwise the session is a cookie that scripts cannot read. */
export const LoginRequest = Closed({ name: Name, password: Password, kind: Kind })
export const FirstSignInRequest = Closed({
  code: Type.String({ minLength: 8, maxLength: 64 }),
  name: Name,
  password: Password,
  kind: Kind,
})
export const SessionAnswer = Closed({
  name: Type.String(),
  role: RoleText,
  expiresAt: Timestamp,
  /** To be sent back as `X-CSRF-Token` with everything that a cookie session changes. */
  csrfToken: Type.Union([Type.String(), Type.Null()]),
  token: Type.Union([Type.String(), Type.Null()]),
})
export type SessionAnswer = Static<typeof SessionAnswer>

export const UserAnswer = Closed({
  name: Type.String(),
  role: RoleText,
  createdAt: Timestamp,
  disabledAt: Type.Union([Timestamp, Type.Null()]),
})
export type UserAnswer = Static<typeof UserAnswer>
export const Users = Closed({ users: Type.Array(UserAnswer) })
export const NewUser = Closed({ name: Name, role: RoleText, password: Password })

/** `failing`: something cannot be stored, and agents keep it. `problems` says what, and why. */
export const Health = Closed({
  status: Words(['ok', 'failing']),
  problems: Type.Array(Text(512), { maxItems: 8 }),
})

const HOST_STATES = ['connected', 'silent', 'stopped', 'held', 'revoked'] as const
export const HostAnswer = Closed({
  agentId: AgentIdText,
  hostName: Text(256),
  inventory: Inventory,
  agentVersion: Text(32),
  state: Words(HOST_STATES),
  notice: Type.Union([Text(1_024), Type.Null()]),
  enrolledAt: Timestamp,
  lastSeenAt: Type.Union([Timestamp, Type.Null()]),
  certificateExpiresAt: Timestamp,
  keyFingerprint: Type.String({ pattern: '^[0-9a-f]{64}$' }),
  bootId: Type.Union([Text(64), Type.Null()]),
  sensors: Type.Array(SensorStatus, { maxItems: 16 }),
  bufferedRows: Type.Integer({ minimum: 0 }),
  droppedRows: Type.Integer({ minimum: 0 }),
  isolation: Type.Union([IsolationStatus, Type.Null()]),
})
/** A part of a list: `offset` goes past what came before. */
const Offset = Type.Optional(Type.Integer({ minimum: 0, maximum: 10_000_000 }))
const Order = Type.Optional(Words(['ascending', 'descending']))
export const HostQuery = Closed({
  /** Part of a name, id, address or operating system. */
  search: Type.Optional(Type.String({ maxLength: 256 })),
  state: Type.Optional(HostAnswer.properties.state),
  /** Cut off from the network, or not, as the agents told it. */
  isolated: Type.Optional(Words(['yes', 'no'])),
  sort: Type.Optional(Words(HOST_SORTS)),
  order: Order,
  offset: Offset,
  /** All of them when it is left out. */
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: LIST_LIMIT_MAX })),
  format: Format,
})
export const Hosts = Closed({
  hosts: Type.Array(HostAnswer),
  /** How many fit what was asked for, of how many in the fleet. */
  matching: Type.Integer({ minimum: 0 }),
  total: Type.Integer({ minimum: 0 }),
  states: Type.Array(Closed({ state: HostAnswer.properties.state, count: Type.Integer({ minimum: 0 }) })),
  isolated: Type.Integer({ minimum: 0 }),
})

const ContenderAnswer = Closed({
  bootId: Text(64),
  certificateFingerprint: Type.String({ pattern: '^[0-9a-f]{64}$' }),
  hostName: Text(256),
  address: Text(64),
  seenAt: Timestamp,
})
export const Contenders = Closed({ contenders: Type.Array(ContenderAnswer, { maxItems: 8 }) })
/** `bootId` null lets any host with this identity go on, for when the others are gone. */
export const ReadmitRequest = Closed({
  reason: Reason,
  bootId: Type.Union([Type.String({ minLength: 1, maxLength: 64 }), Type.Null()]),
})
const RenewalAnswer = Closed({
  agentId: AgentIdText,
  hostName: Text(256),
  address: Text(64),
  expiredAt: Timestamp,
  askedAt: Timestamp,
  keyFingerprint: Type.String({ pattern: '^[0-9a-f]{64}$' }),
})
export const Renewals = Closed({ renewals: Type.Array(RenewalAnswer) })

export const BreakGlassRequest = Closed({ reason: Reason })
export const BreakGlassAnswer = Closed({
  code: Text(64),
  commandId: Type.String({ pattern: '^[0-9a-f]{32}$' }),
  createdAt: Timestamp,
})

export const TokenRequest = Closed({
  ttlMs: Type.Optional(Type.Integer({ minimum: 1_000, maximum: 3_600_000 })),
})
export const TokenAnswer = Closed({ token: Text(1_024), expiresAt: Timestamp, url: Text(2_048) })
export type TokenAnswer = Static<typeof TokenAnswer>

/** `active`: every status but closed. */
const INCIDENT_FILTERS = [...INCIDENT_STATUSES, 'active'] as const
/** Fewer than elsewhere, for each names its hosts. */
export const INCIDENT_LIMIT_MAX = 1_000
export const IncidentQuery = Closed({
  status: Type.Optional(Words(INCIDENT_FILTERS)),
  limit: Type.Integer({ minimum: 1, maximum: INCIDENT_LIMIT_MAX, default: LIST_LIMIT_DEFAULT }),
  format: Format,
})
export const Incidents = Closed({ incidents: Type.Array(Incident) })
export const Detections = Closed({ detections: Type.Array(DetectionRecord) })
export const Timeline = Closed({ entries: Type.Array(TimelineEntry) })
/** `path`: detected processes and their ancestors alone; `all`: what descends from them, too. */
export const ProcessesQuery = Closed({ scope: Type.Optional(Words(['path', 'all'])) })
export const Processes = Closed({ processes: Type.Array(ProcessNode) })
export const NextSteps = Closed({
  steps: Type.Array(Closed({ why: Type.String(), command: Type.Union([Type.String(), Type.Null()]) })),
})
export const NoteRequest = Closed({ text: Type.String({ minLength: 1, maxLength: 2_048 }) })

export const ActionQuery = Closed({
  incidentId: Type.Optional(IncidentIdText),
  agentId: Type.Optional(AgentIdText),
  state: Type.Optional(Words(ACTION_STATES)),
  action: Type.Optional(Words(Object.keys(ACTIONS) as ActionName[])),
  limit: Limit,
  format: Format,
})
export const Actions = Closed({ actions: Type.Array(Action) })

export const EvidenceQuery = Closed({
  agentId: Type.Optional(AgentIdText),
  limit: Limit,
  format: Format,
})
export const EvidenceList = Closed({ evidence: Type.Array(Evidence) })
/** Where to go on from, when a download broke off. */
export const DownloadQuery = Closed({
  offset: Type.Optional(Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })),
})

const EVENT_ACTIONS = Object.keys(EVENT_SCHEMAS) as EventAction[]
const Milliseconds = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
/** EventQuery of the store, as a query string. */
export const EventQueryText = Closed({
  agentId: Type.Optional(AgentIdText),
  action: Type.Optional(Words(EVENT_ACTIONS)),
  entityId: Type.Optional(Text(64)),
  parentEntityId: Type.Optional(Text(64)),
  sha256: Type.Optional(Type.String({ pattern: '^[0-9a-f]{64}$' })),
  destinationAddress: Type.Optional(Type.String({ maxLength: 45, pattern: '^[0-9a-fA-F:.]+$' })),
  path: Type.Optional(Type.String({ minLength: 1, maxLength: 4_096 })),
  contains: Type.Optional(Type.String({ minLength: 1, maxLength: 256 })),
  fromMs: Type.Optional(Milliseconds),
  toMs: Type.Optional(Milliseconds),
  after: Type.Optional(Type.String({ maxLength: 128, pattern: '^[A-Za-z0-9_.:/-]*$' })),
  order: Type.Optional(Words(['ascending', 'descending'])),
  limit: Limit,
  format: Format,
})
export const StoredEventAnswer = Closed({
  cursor: Type.String(),
  agentId: AgentIdText,
  streamId: Type.String(),
  class: Type.Integer({ minimum: 0, maximum: 3 }),
  sequence: Type.Integer({ minimum: 0 }),
  receivedMs: Milliseconds,
  event: Type.Unsafe<CordonEvent>(Type.Union(EVENT_ACTIONS.map((action) => EVENT_SCHEMAS[action]))),
})
export const Events = Closed({ events: Type.Array(StoredEventAnswer) })
export const EventAtQuery = Closed({ cursor: Type.String({ minLength: 1, maxLength: 128 }) })

const Base64 = (bytesMax: number) =>
  Type.String({ maxLength: Math.ceil(bytesMax / 3) * 4, pattern: '^[A-Za-z0-9+/]*={0,2}$' })
export const KeysetRequest = Closed({ keyset: Base64(KEYSET_BYTES_MAX), rootSignature: Base64(1_024) })
export const KeysetAnswer = Closed({
  version: Type.Integer({ minimum: 0 }),
  keyset: Base64(KEYSET_BYTES_MAX),
  rootSignature: Base64(1_024),
})
export type KeysetAnswer = Static<typeof KeysetAnswer>
export const KeysetReplaced = Closed({ version: Type.Integer({ minimum: 0 }) })

const AuditEntryAnswer = Closed({
  at: Timestamp,
  by: Type.String(),
  action: Type.String(),
  subject: Type.String(),
  detail: Type.String(),
  hash: Type.String(),
})
export const Audit = Closed({ entries: Type.Array(AuditEntryAnswer) })

/** What one event of the live stream carries. */
export const ChangeAnswer = Type.Union([
  Closed({ kind: Type.Literal('incident'), id: Type.String() }),
  Closed({ kind: Type.Literal('action'), id: Type.String(), state: Words(ACTION_STATES) }),
  Closed({ kind: Type.Literal('host'), id: Type.String() }),
  Closed({ kind: Type.Literal('events'), cursor: Type.String() }),
])
