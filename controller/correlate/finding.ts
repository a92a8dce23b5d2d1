/** What correlation needs to know of a detection, wherever it was made. Pure: events in, findings out. */
import { createHash } from 'node:crypto'
import type { Severity } from '../../shared/events/alert-events.ts'
import type { DetectionEvent, EventOf } from '../../shared/events/event.ts'

export interface Finding {
  /** Derived from the finding and what it concerns: the same finding made at both ends has one id. */
  readonly id: string
  /** From the certificate of whoever sent it, never from the event. */
  readonly agentId: string
  readonly hostName: string
  /** Which end found it. */
  readonly source: 'agent' | 'fleet'
  /** When it was found, by the host's clock. */
  readonly eventMs: number
  /** When what was found happened, by the host's clock; never later than `eventMs`. */
  readonly startedMs: number
  /** By the controller's clock, when it was on disk. */
  readonly receivedMs: number
  readonly engine: string
  readonly severity: Severity
  readonly ruleId: string
  readonly ruleName: string
  readonly techniques: readonly string[]
  readonly indicator: { readonly type: string; readonly name: string } | null
  readonly entityId: string | null
  readonly sessionLeader: string | null
  /** Nearest first. */
  readonly ancestors: readonly string[]
  /** The nearest `sessionAncestors` of them share the process's session. */
  readonly sessionAncestors: number
  readonly processName: string | null
  readonly commandLine: string | null
  readonly parentExecutable: string | null
  readonly workingDirectory: string | null
  readonly filePath: string | null
  readonly fileSha256: string | null
}

/** Where an event came from, as the controller knows it. */
export interface Origin {
  readonly agentId: string
  readonly hostName: string
  readonly receivedMs: number
  readonly source: Finding['source']
}

export function findingFromDetection(event: DetectionEvent, origin: Origin): Finding {
  const parent = event['process.parent.entity_id']
  // The agent tells the whole ancestry; a detection made here from a plain event knows the parent at most.
  const ancestors = event['cordon.process.ancestors'] ?? (parent === undefined ? [] : [parent])
  const indicatorName = event['threat.indicator.name']
  const eventMs = eventTimeMs(event, origin.receivedMs)
  const sourceMs = Date.parse(event['event.start'] ?? '')
  return {
    ...origin,
    id: event['cordon.detection.id'],
    eventMs,
    startedMs: Number.isFinite(sourceMs) ? Math.min(sourceMs, eventMs) : eventMs,
    engine: event['cordon.detection.engine'],
    severity: event['cordon.detection.severity'],
    ruleId: event['rule.id'],
    ruleName: event['rule.name'],
    techniques: event['threat.technique.id'] ?? [],
    indicator:
      indicatorName === undefined
        ? null
        : { type: event['threat.indicator.type'] ?? 'unknown', name: indicatorName },
    sessionLeader: event['process.session_leader.entity_id'] ?? null,
    ancestors,
    sessionAncestors: Math.min(ancestors.length, event['cordon.process.session_ancestors'] ?? 0),
    ...actorOf(event),
    workingDirectory: event['process.working_directory'] ?? null,
    filePath: event['file.path'] ?? null,
    fileSha256: event['file.hash.sha256'] ?? null,
  }
}

/**
 * Tampering with the agent is a finding of its own: whoever blinds a host does it for a reason. Its id comes
 * from the host and the reason, so the same complaint repeated is one detection.
 */
export function findingFromTamper(event: EventOf<'tamper'>, origin: Origin): Finding {
  const eventMs = eventTimeMs(event, origin.receivedMs)
  return {
    ...origin,
    id: createHash('sha256')
      .update(`tamper\0${origin.agentId}\0${event['event.reason']}`)
      .digest('hex')
      .slice(0, 32),
    eventMs,
    startedMs: eventMs,
    engine: 'cordon',
    severity: 'high',
    ruleId: 'cordon.tamper',
    ruleName: `Tampering with the agent: ${event['event.reason']}`.slice(0, 256),
    techniques: ['T1562.001'],
    indicator: null,
    sessionLeader: null,
    ancestors: [],
    sessionAncestors: 0,
    ...actorOf(event),
    workingDirectory: null,
    filePath: null,
    fileSha256: null,
  }
}

/** The acting process of an event, in the finding's terms. */
function actorOf(
  event: DetectionEvent | EventOf<'tamper'>,
): Pick<Finding, 'entityId' | 'processName' | 'commandLine' | 'parentExecutable'> {
  const executable = event['process.executable']
  return {
    entityId: event['process.entity_id'] ?? null,
    processName: event['process.name'] ?? (executable === undefined ? null : baseName(executable)),
    commandLine: event['process.command_line'] ?? null,
    parentExecutable: event['process.parent.executable'] ?? null,
  }
}

export function baseName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1) || path
}

/** Process id in an entity id (`<agent>.<boot>.<pid>.<ticks>`). */
export function pidOf(entityId: string): number {
  return Number(entityId.split('.')[2])
}

/** A time stamp may have the right shape and name no moment (a 31st of February); then arrival has to do. */
export function eventTimeMs(event: { readonly '@timestamp': string }, receivedMs: number): number {
  const ms = Date.parse(event['@timestamp'])
  return Number.isFinite(ms) ? ms : receivedMs
}
