/** How an incident is named: from its leading detection and the process behind it. */
import { SEVERITIES, type Severity } from '../../shared/events/alert-events.ts'
import { baseName, type Finding, pidOf } from './finding.ts'

const TITLE_CHARACTERS_MAX = 512

/** Indicators of where a process reached out to: by itself, the name of a place tells of no act. */
const PLACES: ReadonlySet<string> = new Set(['ipv4', 'ipv6', 'domain', 'url'])

export function titleOf(finding: Finding): string {
  const reachedOut = finding.indicator !== null && PLACES.has(finding.indicator.type)
  const what = `${reachedOut ? 'Contact with ' : ''}${clipped(finding.ruleName, 160)}`
  const process =
    finding.entityId === null
      ? ''
      : ` by ${clipped(finding.processName ?? 'a process', 64)} (pid ${pidOf(finding.entityId)})`
  const file = finding.filePath === null ? '' : ` in ${clipped(baseName(finding.filePath), 96)}`
  return clipped(`${what}${file}${process} on ${clipped(finding.hostName, 96)}`, TITLE_CHARACTERS_MAX)
}

/** Rank of a severity: 0 is `info`. */
export function severityRank(severity: Severity): number {
  return SEVERITIES.indexOf(severity)
}

export function severityOfRank(rank: number): Severity {
  const severity = SEVERITIES[rank]
  if (severity === undefined) throw new Error(`no severity has the rank ${rank}`)
  return severity
}

export function clipped(text: string, charactersMax: number): string {
  if (text.length <= charactersMax) return text
  const cut = text.slice(0, charactersMax - 1)
  // Never half of a surrogate pair.
  return `${/[\uD800-\uDBFF]$/.test(cut) ? cut.slice(0, -1) : cut}…`
}
