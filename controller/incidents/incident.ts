/** Incidents and detections as they are stored, served and shown: one schema for database, API and CLI. */
import Type, { type Static } from 'typebox'
import { SeveritySchema } from '../../shared/events/alert-events.ts'
import { EntityId, Timestamp } from '../../shared/events/fields.ts'
import { oneOf } from '../../shared/protocol/one-of.ts'

const closed = { additionalProperties: false } as const
const Text = (charactersMax = 1_024) => Type.String({ maxLength: charactersMax })

export const INCIDENT_STATUSES = ['open', 'contained', 'closed'] as const

export const DetectionRecord = Type.Object(
  {
    id: Type.String({ pattern: '^[0-9a-f]{32}$' }),
    incidentId: Text(32),
    agentId: Type.String({ pattern: '^[0-9a-f]{32}$' }),
    hostName: Text(256),
    /** When it was detected on the host, and when the controller had it on disk. */
    detectedAt: Timestamp,
    storedAt: Timestamp,
    engine: Text(16),
    severity: SeveritySchema,
    ruleId: Text(128),
    ruleName: Text(256),
    techniques: Type.Array(Text(16), { maxItems: 16 }),
    indicator: Type.Union([Text(), Type.Null()]),
    entityId: Type.Union([EntityId, Type.Null()]),
    processName: Type.Union([Text(256), Type.Null()]),
    commandLine: Type.Union([Text(16_384), Type.Null()]),
    parentExecutable: Type.Union([Text(4_096), Type.Null()]),
    filePath: Type.Union([Text(4_096), Type.Null()]),
    fileSha256: Type.Union([Text(64), Type.Null()]),
    /** Why it is in this incident, in words. */
    groupedBecause: Text(),
    /** Same finding reported again. */
    repeats: Type.Integer({ minimum: 0 }),
  },
  closed,
)
export type DetectionRecord = Static<typeof DetectionRecord>

export const Incident = Type.Object(
  {
    /** `INC-` and a number that counts up. */
    id: Text(32),
    title: Text(512),
    status: oneOf(INCIDENT_STATUSES),
    severity: SeveritySchema,
    /** First malicious action as the host's clock told it. */
    startedAt: Timestamp,
    /** First detection made on the host. */
    detectedAt: Timestamp,
    /** When the controller formed the incident. */
    openedAt: Timestamp,
    updatedAt: Timestamp,
    containedAt: Type.Union([Timestamp, Type.Null()]),
    hosts: Type.Array(Type.Object({ agentId: Text(32), hostName: Text(256) }, closed), { maxItems: 1_000 }),
    detectionCount: Type.Integer({ minimum: 0 }),
    actionCount: Type.Integer({ minimum: 0 }),
    assignee: Type.Union([Text(128), Type.Null()]),
  },
  closed,
)
export type Incident = Static<typeof Incident>

const TIMELINE_KINDS = [
  'detection',
  'process',
  'file',
  'network',
  'action',
  /** Times in which a host could not see. */
  'blind',
  /** Starts of the agent, its sensors, and what was done to it. */
  'agent',
  'note',
  'status',
] as const

export const TimelineEntry = Type.Object(
  {
    at: Timestamp,
    kind: oneOf(TIMELINE_KINDS),
    hostName: Type.Union([Text(256), Type.Null()]),
    summary: Text(2_048),
    /** Id of the detection or action, or cursor of the event, that this entry tells of. */
    reference: Type.Union([Text(128), Type.Null()]),
    /** End of a time in which a host could not see, when it is known. */
    until: Type.Union([Timestamp, Type.Null()]),
  },
  closed,
)
export type TimelineEntry = Static<typeof TimelineEntry>

export const ProcessNode = Type.Object(
  {
    entityId: EntityId,
    parentEntityId: Type.Union([EntityId, Type.Null()]),
    pid: Type.Integer({ minimum: 0 }),
    executable: Type.Union([Text(4_096), Type.Null()]),
    commandLine: Type.Union([Text(16_384), Type.Null()]),
    user: Type.Union([Text(256), Type.Null()]),
    sha256: Type.Union([Text(64), Type.Null()]),
    startedAt: Type.Union([Timestamp, Type.Null()]),
    endedAt: Type.Union([Timestamp, Type.Null()]),
    /** Rule names of detections on this very process. */
    detections: Type.Array(Text(256), { maxItems: 64 }),
  },
  closed,
)
export type ProcessNode = Static<typeof ProcessNode>
