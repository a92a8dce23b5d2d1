/**
 * What the API needs of the rest of the controller: ports that `main.ts` fills. Every method that changes
 * something takes the acting operator's name, for the audit log.
 */

import type { Inventory, IsolationStatus, Signature } from '../../shared/protocol/messages.ts'
import type { Action, ActionError, ActionPlan, ActionRequest, ActionState } from '../dispatch/action.ts'
import type { Evidence, EvidenceDownload } from '../evidence/record.ts'
import type {
  DetectionRecord,
  INCIDENT_STATUSES,
  Incident,
  ProcessNode,
  TimelineEntry,
} from '../incidents/incident.ts'
import type { EventQuery, StoredEvent } from '../store/event-store.ts'

export type Outcome<Value, Failure> =
  | { readonly ok: true; readonly value: Value }
  | { readonly ok: false; readonly error: Failure }

export interface Host {
  readonly agentId: string
  readonly hostName: string
  readonly inventory: Inventory
  readonly agentVersion: string
  /**
   * `silent`: it should be connected and is not; `stopped`: the same, and it said before that it stops; `held`:
   * two hosts use its identity, and neither is heard.
   */
  readonly state: 'connected' | 'silent' | 'stopped' | 'held' | 'revoked'
  /** What a person should know or do about its connection; null when all is as it should be. */
  readonly notice: string | null
  readonly enrolledAt: string
  readonly lastSeenAt: string | null
  readonly certificateExpiresAt: string
  /** SHA-256 of the DER SubjectPublicKeyInfo in its certificate, lower-case hex. */
  readonly keyFingerprint: string
  readonly bootId: string | null
  /** Last status message, as the agent told it. */
  readonly sensors: readonly { name: string; inForce: boolean; reason: string; seen: number; lost: number }[]
  readonly bufferedRows: number
  readonly droppedRows: number
  /** Whether it is cut off, as the agent told it; null while it never did. */
  readonly isolation: IsolationStatus | null
}

export interface HostService {
  list(): readonly Host[]
  get(agentId: string): Host | undefined
  /** Ends the agent's right to connect; its live sockets close within 5 s. */
  revoke(agentId: string, by: string, reason: string): boolean
}

export interface BreakGlassCode {
  /** In groups, as it is read out and typed. */
  readonly code: string
  /** The isolation that it ends. */
  readonly commandId: string
  readonly createdAt: string
}

export interface BreakGlassService {
  /** The code of the isolation that the host is in, else of the last that was asked for. Its showing is audited. */
  show(agentId: string, by: string, reason: string): BreakGlassCode | undefined
}

/** One of those who use a held identity. */
export interface Contender {
  readonly bootId: string
  readonly certificateFingerprint: string
  readonly hostName: string
  readonly address: string
  readonly seenAt: string
}

export interface ExpiredRenewal {
  readonly agentId: string
  readonly hostName: string
  readonly address: string
  readonly expiredAt: string
  readonly askedAt: string
  /** Of the new key. */
  readonly keyFingerprint: string
}

/** Hosts that wait for a person: held identities, and certificates that ran out while their host was away. */
export interface HostStandingService {
  contenders(agentId: string): readonly Contender[]
  /** `bootId` names one contender; null lets any go on, for when the others are gone. */
  readmit(
    agentId: string,
    bootId: string | null,
    by: string,
    reason: string,
  ): 'readmitted' | 'notHeld' | 'unknownBoot'
  renewals(): readonly ExpiredRenewal[]
  approveRenewal(
    agentId: string,
    by: string,
    reason: string,
  ): { readonly ok: true } | { readonly ok: false; readonly reason: string }
}

export interface HealthService {
  /** What cannot be written at the moment, and why; empty when all is well. */
  problems(): readonly string[]
}

export interface EnrolmentService {
  /** A token for one host: `<id>.<secret>.<root pin>`, shown once, valid for `ttlMs` (at most an hour). */
  createToken(by: string, ttlMs: number): { token: string; expiresAt: string; url: string }
}

export interface IncidentFilter {
  /** `active`: every status but closed. */
  readonly status?: (typeof INCIDENT_STATUSES)[number] | 'active'
  readonly limit: number
}

export interface IncidentService {
  list(filter: IncidentFilter): readonly Incident[]
  get(id: string): Incident | undefined
  detections(id: string): readonly DetectionRecord[]
  /** Of all incidents, the last stored first. */
  recentDetections(limit: number): readonly DetectionRecord[]
  timeline(id: string): Promise<readonly TimelineEntry[]>
  /** `path`: without what descends from the detected processes. */
  processTree(id: string, scope?: 'path' | 'all'): Promise<readonly ProcessNode[]>
  /** The processes that one process started, as far as events tell of them. */
  childrenOf(agentId: string, entityId: string): Promise<readonly ProcessNode[]>
  note(id: string, by: string, text: string): boolean
  close(id: string, by: string, reason: string): boolean
}

export interface EvidenceService {
  /** Newest first. */
  list(filter: { readonly agentId?: string; readonly limit: number }): readonly Evidence[]
  get(id: string): Evidence | undefined
  /** Writes down who takes it away; undefined when there is no such whole file, or it ends before `offset`. */
  download(id: string, offset: number, by: string): EvidenceDownload | undefined
}

export interface ActionService {
  list(filter: {
    incidentId?: string
    agentId?: string
    state?: ActionState
    action?: Action['action']
    limit: number
  }): readonly Action[]
  get(id: string): Action | undefined
  /** Makes intent and leaves. Class R is signed by the controller and queued at once. */
  plan(request: ActionRequest, by: string): Outcome<ActionPlan, ActionError>
  /** The same bytes again, for a second operator to check and sign. */
  planOf(intentId: string): ActionPlan | undefined
  approve(intentId: string, signature: Signature, by: string): Outcome<ActionPlan, ActionError>
  cancel(id: string, by: string, reason: string): Outcome<Action, ActionError>
}

export interface EventService {
  query(query: EventQuery): Promise<readonly StoredEvent[]>
  at(cursor: string): Promise<StoredEvent | undefined>
}

/** One change, for live views. Consumers fetch what they show; the stream only says what changed. */
export type Change =
  | { readonly kind: 'incident'; readonly id: string }
  | { readonly kind: 'action'; readonly id: string; readonly state: ActionState }
  | { readonly kind: 'host'; readonly id: string }
  | { readonly kind: 'events'; readonly cursor: string }

export interface ChangeFeed {
  /** Calls back on each change until `signal` aborts. The listener must not throw or block. */
  subscribe(listener: (change: Change) => void, signal: AbortSignal): void
}

export interface AuditEntry {
  readonly at: string
  readonly by: string
  readonly action: string
  readonly subject: string
  readonly detail: string
  /** `SHA-256(previous hash || entry)`, lower-case hex. */
  readonly hash: string
}

export interface AuditLog {
  record(by: string, action: string, subject: string, detail: string): void
  list(limit: number): readonly AuditEntry[]
}

export interface KeysetService {
  /** The keyset in force: exact signed bytes in base64, and the root's signature over them. */
  current(): { version: number; keyset: string; rootSignature: string }
  /** Takes a newer keyset signed by the root; refuses an older one or a wrong signature. */
  replace(
    keyset: string,
    rootSignature: string,
    by: string,
  ): Outcome<{ version: number }, { kind: 'invalid'; reason: string }>
}

/** Whether this controller may issue commands, certificates, tokens and keysets. */
export interface IssuingService {
  /** Why not, for a person; null when it may. */
  refusal(): string | null
}

export interface Services {
  readonly issuing: IssuingService
  readonly hosts: HostService
  readonly standing: HostStandingService
  readonly health: HealthService
  readonly enrolment: EnrolmentService
  readonly incidents: IncidentService
  readonly actions: ActionService
  readonly evidence: EvidenceService
  readonly breakGlass: BreakGlassService
  readonly events: EventService
  readonly changes: ChangeFeed
  readonly audit: AuditLog
  readonly keyset: KeysetService
}
