/**
 * Detection on the agent: every event is matched against indicators at once, and the content that is worth
 * reading because of it is examined. What is found becomes a detection with the process of the event that led
 * there, however long the reading took.
 */

import { SEVERITIES, type Severity } from '../../shared/events/alert-events.ts'
import {
  buildDetection,
  type FileFacts,
  type Finding,
  indicatorFinding,
  type ProcessContext,
} from '../../shared/events/detection.ts'
import type { CordonEvent, EventOf } from '../../shared/events/event.ts'
import { inSchemaOrder } from '../../shared/events/schema-order.ts'
import type { IndicatorMatcher, Match } from '../../shared/ioc/matcher.ts'
import { detectionDigest } from '../../shared/node/detection-digest.ts'
import type { ContentFacts } from './content-cache.ts'
import { fileFactsOf } from './file-facts.ts'
import { createLru } from './lru.ts'
import type { Content, Observation } from './observation.ts'
import type { ScanOutcome } from './scan-outcome.ts'
import type { Scanner } from './scanner.ts'
import type { RuleHit } from './yara-engine.ts'

export interface DetectionOptions {
  readonly agentId: string
  readonly scanner: Scanner
  readonly matcher: IndicatorMatcher
  readonly processContext: (entityId: string) => ProcessContext
  /** Takes `file-examined` and `detection` events; the observed events themselves are not passed on. */
  readonly emit: (event: CordonEvent) => void
  /** Milliseconds since 1970. */
  readonly clock: () => number
  /** The same detection is told once within this time. */
  readonly repeatAfterMs?: number
}

interface DetectionStatus {
  readonly detections: number
  /** Detections that were made again within `repeatAfterMs`, and not told again. */
  readonly repeated: number
}

export interface Detection {
  /** Never throws and never waits. */
  handle(observation: Observation): void
  /** Reads a file whose writing is not told, because there was too much of it; what it holds is told. */
  examine(content: Content, pid: number | null): void
  /** What a file that was read on demand holds: emits like `handle`, without a process. */
  handleAsked(content: Content, outcome: ScanOutcome): readonly Finding[]
  /** From now on what was told is told again: after containment, a finding says that it did not hold. */
  forgetTold(): void
  status(): DetectionStatus
}

const REPEAT_AFTER_MS = 3_600_000
const REMEMBERED_MAX = 16_384
/** Of a rule that does not say how bad it is. */
const UNSAID_SEVERITY: Severity = 'medium'
const NONE_KNOWN: ReadonlySet<string> = new Set()

/** One thing that was seen: the event, and the file it is about when there is one. */
interface Subject {
  readonly source: CordonEvent
  readonly file: FileFacts
}

export function createDetection(options: DetectionOptions): Detection {
  const { matcher, scanner, clock } = options
  const repeatAfterMs = options.repeatAfterMs ?? REPEAT_AFTER_MS
  /** When each detection was told last, by its id. */
  let told = createLru<number>(REMEMBERED_MAX)
  /** Contents that were told at a path. */
  const examinedAt = createLru<true>(REMEMBERED_MAX)
  /** Indicators of the hashes of a content. Most contents are run again and again, and have none. */
  const hashMatches = new WeakMap<ContentFacts, readonly Match[]>()
  let detections = 0
  let repeated = 0

  const now = () => new Date(clock()).toISOString()

  function report(subject: Subject, finding: Finding): void {
    const { source, file } = subject
    const entityId = entityOf(source)
    const detection = buildDetection({
      source,
      finding,
      context: entityId === undefined ? null : options.processContext(entityId),
      file,
      agentId: options.agentId,
      timestamp: now(),
      digest: detectionDigest,
    })
    const id = detection['cordon.detection.id']
    const lastMs = told.get(id)
    if (lastMs !== undefined && clock() - lastMs < repeatAfterMs) {
      repeated += 1
      return
    }
    told.set(id, clock())
    detections += 1
    options.emit(detection)
  }

  function indicatorsOf(facts: ContentFacts, event: EventOf<'file-examined'>): readonly Match[] {
    let matches = hashMatches.get(facts)
    if (matches === undefined) {
      matches = matcher.match(event).filter(({ field }) => field.startsWith('file.hash.'))
      hashMatches.set(facts, matches)
    }
    return matches
  }

  /** `known`: indicators that the observed event itself matched. */
  function contentRead(
    source: CordonEvent | null,
    content: Content,
    outcome: ScanOutcome,
    known: ReadonlySet<string>,
  ): readonly Finding[] {
    // What was skipped is counted by the scanner.
    if (outcome.kind === 'skipped') return []
    const { facts, identity } = outcome
    const seenKey = `${pathKey(content)} ${facts.hashes?.sha256 ?? `${identity.inode} ${identity.changedNs}`}`
    const isNews = examinedAt.get(seenKey) === undefined
    const mayMatch = facts.hits.length > 0 || (hashMatches.get(facts)?.length ?? 1) > 0
    // The usual case by far: a program that was run before, and is nothing.
    if (!isNews && !mayMatch) return []
    const file = fileFactsOf(content.path, identity, facts)
    const examined = examinedEvent(source, file, now())
    if (isNews) {
      examinedAt.set(seenKey, true)
      options.emit(examined)
    }
    const findings = [
      ...indicatorsOf(facts, examined)
        .filter(({ indicator }) => !known.has(indicator.id))
        .map(indicatorFinding),
      ...facts.hits.map((hit) => ruleFinding(hit, file['file.path'])),
    ]
    const subject = { source: source ?? examined, file }
    for (const finding of findings) report(subject, finding)
    return findings
  }

  return {
    handle({ event, content }) {
      const matches = matcher.match(event)
      if (matches.length > 0) {
        const file = content === null ? {} : fileFactsOf(content.path, content.identity, null)
        for (const match of matches) report({ source: event, file }, indicatorFinding(match))
      }
      if (content === null) return
      const known = matches.length === 0 ? NONE_KNOWN : new Set(matches.map(({ indicator }) => indicator.id))
      const pid = 'process.pid' in event ? (event['process.pid'] ?? null) : null
      scanner.submit({ ...content, pid }, (outcome) => contentRead(event, content, outcome, known))
    },
    examine(content, pid) {
      scanner.submit({ ...content, pid }, (outcome) => contentRead(null, content, outcome, NONE_KNOWN))
    },
    handleAsked(content, outcome) {
      return contentRead(null, content, outcome, NONE_KNOWN)
    },
    forgetTold() {
      told = createLru(REMEMBERED_MAX)
    },
    status: () => ({ detections, repeated }),
  }
}

function entityOf(event: CordonEvent): string | undefined {
  return 'process.entity_id' in event ? event['process.entity_id'] : undefined
}

function pathKey(content: Content): string {
  return typeof content.path === 'string' ? content.path : Buffer.from(content.path).toString('base64')
}

/** The process is that of the event that led to the file; without one nothing is known of it. */
function examinedEvent(
  source: CordonEvent | null,
  file: FileFacts,
  timestamp: string,
): EventOf<'file-examined'> {
  const bytes = source !== null && 'cordon.bytes' in source ? source['cordon.bytes'] : {}
  const truncated = source !== null && 'cordon.truncated' in source ? (source['cordon.truncated'] ?? []) : []
  return inSchemaOrder('file-examined', {
    ...source,
    ...file,
    'cordon.bytes': { ...bytes, ...file['cordon.bytes'] },
    'cordon.truncated': [...new Set([...truncated, ...(file['cordon.truncated'] ?? [])])],
    '@timestamp': timestamp,
    'event.kind': 'event',
    'event.category': 'file',
    'event.type': 'info',
    'event.action': 'file-examined',
  })
}

function ruleFinding(hit: RuleHit, path: string): Finding {
  const strings = hit.strings.map(({ name, offset }) => `${name} at ${offset}`).join(', ')
  return {
    engine: 'yara',
    ruleId: hit.ruleId,
    ruleName: hit.ruleName,
    description: hit.description ?? undefined,
    severity: SEVERITIES.find((name) => name === hit.severity) ?? UNSAID_SEVERITY,
    techniques: hit.techniques,
    indicator: null,
    concerns: 'content',
    matched: { 'file.path': path, ...(strings === '' ? {} : { 'yara.strings': strings }) },
  }
}
