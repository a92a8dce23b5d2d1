/**
 * Which incident a detection belongs to, and why, in words. Pure: a finding and a view of the active
 * incidents in, a decision out.
 *
 * Reasons come in four strengths: one process tree on one host; one indicator on several hosts; one file;
 * and, said to be weaker, nearness in place and time. The strongest reason decides, among equals the oldest
 * incident; the others are told as related. Keys of a host are always bound to the agent that sent them, so
 * no agent can reach into another host's tree.
 */
import { baseName, type Finding, pidOf } from './finding.ts'

/** An incident without a detection for this long takes no more: what comes then is a new one. */
export const GROUPING_WINDOW_MS = 24 * 3_600_000
/** How near in time files in one folder must be when nothing better is known. */
const NEARBY_MS = 30_000
/** A full incident takes no more detections; the next ones open another. */
export const DETECTIONS_PER_INCIDENT_MAX = 2_000
/** Past this many active incidents on one host, its detections are gathered: a flood is one incident. */
export const INCIDENTS_PER_HOST_MAX = 100

const KEY_KINDS = [
  /** A detected process and its ancestors within its session. */
  'tree',
  /** A detected process. */
  'suspect',
  /** Any ancestor of a detected process. */
  'ancestor',
  'indicator',
  'sha256',
  'path',
  /** The same three, and the folder, left by a detection whose process is not known. */
  'indicatorAlone',
  'sha256Alone',
  'pathAlone',
  'folderAlone',
  'folder',
  /** Rule of a detection that knows neither process nor file. */
  'rule',
] as const
type KeyKind = (typeof KEY_KINDS)[number]

export interface GroupingKey {
  readonly kind: KeyKind
  readonly value: string
}

export interface KeyQuery extends GroupingKey {
  readonly agentId: string
  /** Whether the key must have been left by this agent's detections or by another's. */
  readonly where: 'thisHost' | 'otherHosts'
  /** Only incidents with a detection since then, by the controller's clock. */
  readonly activeSinceMs: number
  /** Only incidents with fewer detections. */
  readonly detectionsBelow: number
}

/** An active (not closed) incident that holds a key. */
export interface Holder {
  /** Rises with age: the lower, the older. */
  readonly incident: number
  /** Latest event time, by the leaving host's clock, of the detections that left the key. */
  readonly eventMs: number
  /** Name of a host whose detection left it. */
  readonly hostName: string
}

export interface IncidentView {
  /** Oldest incident first, bounded. */
  holders(query: KeyQuery): readonly Holder[]
  activeOnHost(agentId: string): { readonly count: number; readonly newest: number | null }
}

interface Related {
  readonly incident: number
  readonly because: string
}

export type Decision =
  | {
      readonly kind: 'join'
      readonly incident: number
      readonly because: string
      readonly related: readonly Related[]
    }
  | { readonly kind: 'open'; readonly because: string }

interface Clue {
  readonly key: GroupingKey
  readonly where: KeyQuery['where']
  /** 0 is the strongest. */
  readonly strength: 0 | 1 | 2 | 3
  readonly withinMs?: number
  readonly because: (holder: Holder) => string
}

export function correlate(finding: Finding, view: IncidentView): Decision {
  // The strongest clue of each incident; clues are asked in order of strength.
  const found = new Map<number, Related & { readonly strength: number }>()
  for (const clue of cluesOf(finding)) {
    const holders = view.holders({
      ...clue.key,
      agentId: finding.agentId,
      where: clue.where,
      activeSinceMs: finding.receivedMs - GROUPING_WINDOW_MS,
      detectionsBelow: DETECTIONS_PER_INCIDENT_MAX,
    })
    for (const holder of holders) {
      if (found.has(holder.incident)) continue
      if (clue.withinMs !== undefined && Math.abs(holder.eventMs - finding.eventMs) > clue.withinMs) continue
      const because = clue.because(holder)
      found.set(holder.incident, { incident: holder.incident, because, strength: clue.strength })
    }
  }
  const [best, ...others] = [...found.values()].sort(
    (a, b) => a.strength - b.strength || a.incident - b.incident,
  )
  if (best !== undefined) {
    const related = others.map(({ incident, because }) => ({ incident, because }))
    return { kind: 'join', incident: best.incident, because: best.because, related }
  }
  const active = view.activeOnHost(finding.agentId)
  if (active.count >= INCIDENTS_PER_HOST_MAX && active.newest !== null) {
    return {
      kind: 'join',
      incident: active.newest,
      because: `Gathered here only because ${finding.hostName} already has ${active.count} active incidents; nothing else connects it.`,
      related: [],
    }
  }
  return {
    kind: 'open',
    because:
      'First detection of the incident: it shares no process tree, indicator or file with an active one.',
  }
}

/** What a finding leaves in its incident for later ones to be recognised by. */
export function keysLeftBy(finding: Finding): readonly GroupingKey[] {
  const keys: GroupingKey[] = []
  const leave = (kind: KeyKind, value: string | null) => {
    if (value !== null) keys.push({ kind, value })
  }
  const alone = finding.entityId === null
  if (finding.entityId !== null) {
    leave('suspect', finding.entityId)
    for (const value of sessionOf(finding)) leave('tree', value)
    for (const value of finding.ancestors.filter(tellsSomething)) leave('ancestor', value)
  }
  const indicator = indicatorKey(finding)
  leave('indicator', indicator)
  leave('sha256', finding.fileSha256)
  leave('path', finding.filePath)
  for (const folder of foldersOf(finding)) leave('folder', folder)
  if (alone) {
    leave('indicatorAlone', indicator)
    leave('sha256Alone', finding.fileSha256)
    leave('pathAlone', finding.filePath)
    for (const folder of foldersOf(finding)) leave('folderAlone', folder)
    if (finding.filePath === null && indicator === null) leave('rule', finding.ruleId)
  }
  return keys
}

function cluesOf(finding: Finding): readonly Clue[] {
  return [
    ...treeClues(finding),
    ...indicatorClues(finding),
    ...fileClues(finding),
    ...nearbyClues(finding),
  ].sort((a, b) => a.strength - b.strength)
}

function treeClues(finding: Finding): readonly Clue[] {
  const { entityId } = finding
  if (entityId === null) return []
  const self = `${finding.processName ?? 'process'} (pid ${pidOf(entityId)})`
  const clue = (kind: KeyKind, value: string, because: string): Clue => ({
    key: { kind, value },
    where: 'thisHost',
    strength: 0,
    because: () => because,
  })
  return [
    clue('suspect', entityId, `Same process: ${self} on ${finding.hostName} was already detected here.`),
    ...finding.ancestors
      .filter(tellsSomething)
      .map((value) =>
        clue(
          'suspect',
          value,
          `Same process tree: ${self} descends from pid ${pidOf(value)} on ${finding.hostName}, which was detected here.`,
        ),
      ),
    ...(tellsSomething(entityId)
      ? [
          clue(
            'ancestor',
            entityId,
            `Same process tree: a process detected here descends from ${self} on ${finding.hostName}.`,
          ),
        ]
      : []),
    ...sessionOf(finding).map((value) =>
      clue(
        'tree',
        value,
        value === entityId
          ? `Same process tree: a process detected here runs in a session under ${self} on ${finding.hostName}.`
          : `Same session: ${self} and a process detected here share the ancestor pid ${pidOf(value)} on ${finding.hostName}.`,
      ),
    ),
  ]
}

function indicatorClues(finding: Finding): readonly Clue[] {
  const { indicator } = finding
  const value = indicatorKey(finding)
  if (indicator === null || value === null) return []
  const named = `Same indicator ${indicator.name} (${indicator.type})`
  const clues: Clue[] = [
    {
      key: { kind: 'indicator', value },
      where: 'otherHosts',
      strength: 1,
      because: (holder) => `${named} was detected on ${holder.hostName} within 24 hours.`,
    },
  ]
  // On one host the process tells attacks apart; only where it is not known must the indicator do.
  clues.push({
    key: { kind: finding.entityId === null ? 'indicator' : 'indicatorAlone', value },
    where: 'thisHost',
    strength: 2,
    because: () => `${named} on ${finding.hostName}; the process of one of the two detections is not known.`,
  })
  return clues
}

function fileClues(finding: Finding): readonly Clue[] {
  const clues: Clue[] = []
  const alone = finding.entityId === null
  if (finding.fileSha256 !== null) {
    clues.push({
      key: { kind: 'sha256', value: finding.fileSha256 },
      where: 'otherHosts',
      strength: 1,
      because: (holder) =>
        `Same file (SHA-256 ${finding.fileSha256}) was detected on ${holder.hostName} within 24 hours.`,
    })
    clues.push({
      key: { kind: alone ? 'sha256' : 'sha256Alone', value: finding.fileSha256 },
      where: 'thisHost',
      strength: 2,
      because: () =>
        `Same file content on ${finding.hostName}; the process of one of the two detections is not known.`,
    })
  }
  if (finding.filePath !== null) {
    clues.push({
      key: { kind: alone ? 'path' : 'pathAlone', value: finding.filePath },
      where: 'thisHost',
      strength: 2,
      because: () =>
        `Same file ${shortened(finding.filePath ?? '')} on ${finding.hostName}; the process of one of the two detections is not known.`,
    })
  }
  return clues
}

function nearbyClues(finding: Finding): readonly Clue[] {
  const alone = finding.entityId === null
  const clues: Clue[] = foldersOf(finding).map((folder) => ({
    key: { kind: alone ? 'folder' : 'folderAlone', value: folder },
    where: 'thisHost',
    strength: 3,
    withinMs: NEARBY_MS,
    because: () =>
      `Weaker reason: within ${NEARBY_MS / 1_000} seconds of a detection in the same folder ${shortened(folder)} on ${finding.hostName}, and the process of one of the two is not known.`,
  }))
  if (alone && finding.filePath === null && finding.indicator === null) {
    clues.push({
      key: { kind: 'rule', value: finding.ruleId },
      where: 'thisHost',
      strength: 3,
      because: () =>
        `Weaker reason: the same rule on ${finding.hostName} within 24 hours, and neither process nor file is known.`,
    })
  }
  return clues
}

/** The process and its ancestors up to the leader of its session. */
function sessionOf(finding: Finding): readonly string[] {
  const { entityId, sessionLeader } = finding
  if (entityId === null) return []
  const session = new Set([entityId, ...finding.ancestors.slice(0, finding.sessionAncestors)])
  if (sessionLeader !== null) session.add(sessionLeader)
  return [...session].filter(tellsSomething)
}

/** The first process of a host and the kernel's own are everybody's ancestors, so they connect nothing. */
function tellsSomething(entityId: string): boolean {
  return pidOf(entityId) > 2
}

function indicatorKey({ indicator }: Finding): string | null {
  return indicator === null ? null : `${indicator.type}\0${indicator.name}`
}

function foldersOf(finding: Finding): readonly string[] {
  const folders = new Set<string>()
  if (finding.filePath !== null) {
    folders.add(finding.filePath.slice(0, -baseName(finding.filePath).length - 1))
  }
  // A detection that knows no process knows no working directory either; the other one may.
  if (finding.workingDirectory !== null) folders.add(finding.workingDirectory.replace(/\/+$/, ''))
  folders.delete('')
  return [...folders]
}

function shortened(text: string): string {
  return text.length <= 200 ? text : `${text.slice(0, 199)}…`
}
