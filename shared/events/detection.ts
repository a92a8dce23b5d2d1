/**
 * Makes detections: the one way from a finding and the event it was found in to the event that tells it. Both
 * programs use it, so the same finding made at both ends is one detection with one id.
 */

import { TEXT_CHARACTERS_MAX } from '../protocol/limits.ts'
import type { Severity } from './alert-events.ts'
import type { CordonEvent, DetectionEvent } from './event.ts'
import { inSchemaOrder } from './schema-order.ts'

/** What is known of a process beyond its own event. */
export interface ProcessContext {
  /** Nearest first. */
  readonly ancestors: readonly string[]
  /** How many of the ancestors, from the nearest, share the process's session. */
  readonly sessionAncestors: number
  readonly sessionLeaderEntityId: string | undefined
  readonly workingDirectory: string | undefined
  readonly sha256: string | undefined
}

type DetectionEngine = DetectionEvent['cordon.detection.engine']

export interface Finding {
  readonly engine: DetectionEngine
  readonly ruleId: string
  readonly ruleName: string
  readonly description: string | undefined
  readonly severity: Severity
  readonly techniques: readonly string[]
  readonly indicator: { readonly type: string; readonly value: string } | null
  /**
   * What the finding is about, and so what tells two detections of it apart: the acting process, a file at its
   * path, or a content at its path.
   */
  readonly concerns: 'process' | 'file' | 'content'
  /** Fields that matched and their values, 8 at most; names of `[@a-z0-9._]`, 64 characters at most. */
  readonly matched: Readonly<Record<string, string>>
}

interface DetectionKeyParts {
  /** The host: the same file on two hosts is two detections. */
  readonly agentId: string
  readonly engine: DetectionEngine
  readonly ruleId: string
  /** As `detectionSubject` gives it. */
  readonly subject: string
  /** `<type>:<value>`, or empty. */
  readonly indicator: string
}

/** The text whose SHA-256 (its first 16 bytes in hex) is the id of the detection. */
function detectionKey(parts: DetectionKeyParts): string {
  return JSON.stringify([
    'cordon-detection-1',
    parts.agentId,
    parts.engine,
    parts.ruleId,
    parts.subject,
    parts.indicator,
  ])
}

export type FileFacts = Partial<
  Pick<
    DetectionEvent,
    | Extract<keyof DetectionEvent, `file.${string}` | `cordon.file.${string}`>
    | 'cordon.bytes'
    | 'cordon.truncated'
  >
>

/** Both ends have what this needs: the event, and for a content its hash. */
function detectionSubject(source: CordonEvent, facts: FileFacts, concerns: Finding['concerns']): string {
  const fields: Readonly<Record<string, unknown>> = { ...source, ...facts }
  const actor = textOf(fields['process.entity_id']) || `pid ${String(fields['process.pid'] ?? '')}`
  const path = textOf(fields['file.path'])
  switch (concerns) {
    case 'process':
      return JSON.stringify([actor])
    case 'file':
      return JSON.stringify([actor, path])
    case 'content':
      return JSON.stringify([actor, path, textOf(fields['file.hash.sha256'])])
  }
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

export interface DetectionParts {
  /** The event that the finding was made in: its actor, file and addresses are those of the detection. */
  readonly source: CordonEvent
  readonly finding: Finding
  /** Null: nothing is known of the process beyond the event. */
  readonly context: ProcessContext | null
  /** What is known of the file beyond the event. */
  readonly file: FileFacts
  readonly agentId: string
  /** When the finding was made, RFC 3339 in UTC with milliseconds. */
  readonly timestamp: string
  /** First 16 bytes of the SHA-256 of the text's UTF-8, in hex. */
  readonly digest: (text: string) => string
}

export function buildDetection(parts: DetectionParts): DetectionEvent {
  const { source, finding, context, file } = parts
  const indicator = finding.indicator === null ? '' : `${finding.indicator.type}:${finding.indicator.value}`
  const subject = detectionSubject(source, file, finding.concerns)
  const id = parts.digest(
    detectionKey({
      agentId: parts.agentId,
      engine: finding.engine,
      ruleId: finding.ruleId,
      subject,
      indicator,
    }),
  )
  return inSchemaOrder('detection', {
    // Each of these wins over those before it: the event itself knows its process better than a table does.
    ...contextFields(context),
    ...source,
    ...file,
    '@timestamp': parts.timestamp,
    'event.kind': 'alert',
    'event.category': 'threat',
    'event.type': 'indicator',
    'event.action': 'detection',
    'event.start': source['@timestamp'],
    'cordon.detection.id': id,
    'cordon.detection.engine': finding.engine,
    'cordon.detection.severity': finding.severity,
    'cordon.detection.matched': cutValues(finding.matched),
    'rule.id': finding.ruleId.slice(0, 128),
    'rule.name': finding.ruleName.slice(0, 256),
    'rule.description': finding.description?.slice(0, TEXT_CHARACTERS_MAX),
    'threat.technique.id': techniques(finding.techniques),
    'threat.indicator.type': finding.indicator?.type,
    'threat.indicator.name': finding.indicator?.value.slice(0, TEXT_CHARACTERS_MAX),
    'cordon.detection.event_action': source['event.action'],
  })
}

const ANCESTORS_MAX = 32
const MATCHED_MAX = 8
const TECHNIQUES_MAX = 16

function contextFields(context: ProcessContext | null): Readonly<Record<string, unknown>> {
  if (context === null) return {}
  const ancestors = context.ancestors.slice(0, ANCESTORS_MAX)
  return {
    'cordon.process.ancestors': ancestors,
    'cordon.process.session_ancestors': Math.min(context.sessionAncestors, ancestors.length),
    ...(context.sessionLeaderEntityId === undefined
      ? {}
      : { 'process.session_leader.entity_id': context.sessionLeaderEntityId }),
    ...(context.workingDirectory === undefined
      ? {}
      : { 'process.working_directory': context.workingDirectory }),
    ...(context.sha256 === undefined ? {} : { 'process.hash.sha256': context.sha256 }),
  }
}

function techniques(names: readonly string[]): readonly string[] | undefined {
  const known = names.filter((name) => name.length > 0 && name.length <= 16).slice(0, TECHNIQUES_MAX)
  return known.length === 0 ? undefined : known
}

function cutValues(matched: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(matched)
      .slice(0, MATCHED_MAX)
      .map(([field, value]) => [field, value.slice(0, TEXT_CHARACTERS_MAX)]),
  )
}

/** The finding of an indicator that matched a field. */
export function indicatorFinding(match: {
  readonly indicator: {
    readonly id: string
    readonly type: string
    readonly value: string
    readonly name: string
    readonly description?: string
    readonly severity: Severity
    readonly techniques?: readonly string[]
  }
  readonly field: string
  readonly value: string
}): Finding {
  const { indicator, field, value } = match
  return {
    engine: 'ioc',
    ruleId: indicator.id,
    ruleName: indicator.name,
    description: indicator.description,
    severity: indicator.severity,
    techniques: indicator.techniques ?? [],
    indicator: { type: indicator.type, value: indicator.value },
    concerns: field.startsWith('file.hash.') ? 'content' : field.includes('file.') ? 'file' : 'process',
    matched: { [field]: value },
  }
}
