/**
 * Matches events against indicators at event rate: exact values by hash map, networks by one lookup for each
 * prefix length in use, and only the globs one after the other.
 */
import type { CordonEvent } from '../events/event.ts'
import { parseAddress, parseNetwork, prefixKey } from './address.ts'
import { compileGlob, type GlobMatcher, isGlob } from './glob.ts'
import { type Indicator, normaliseDomain } from './indicator.ts'

export interface Match {
  readonly indicator: Indicator
  /** The event's field that matched, and its value. */
  readonly field: string
  readonly value: string
}

export interface IndicatorMatcher {
  /** Indicators in force; those that are expired or refused are not counted. */
  readonly size: number
  /** Why indicators were left out, for a person. */
  readonly refused: readonly string[]
  /** Each indicator at most once, 16 at most. An indicator counts when the event's time is within its validity. */
  match(event: CordonEvent): readonly Match[]
  /** Indicators of a domain name or of a domain above it. */
  matchDomain(name: string): readonly Indicator[]
}

const MATCHES_MAX = 16
const GLOBS_MAX = 4_096
const NONE: readonly Match[] = []

interface Glob {
  readonly indicator: Indicator
  readonly test: GlobMatcher
}

type ExactIndex<Key> = Map<Key, Indicator[]>

/** Names or paths: as written, and in lower case for those that ignore it. */
interface TextIndex {
  readonly exact: ExactIndex<string>
  readonly folded: ExactIndex<string>
  readonly globs: Glob[]
}

interface NetworkIndex {
  readonly isIpv4: boolean
  readonly prefixLength: number
  readonly networks: ExactIndex<number | string>
}

interface Indexes {
  readonly hashes: ExactIndex<string>
  readonly addresses: ExactIndex<number | string>
  readonly networks: NetworkIndex[]
  readonly domains: ExactIndex<string>
  readonly names: TextIndex
  readonly paths: TextIndex
}

/** `nowMs`: indicators that are no longer valid then are left out. */
export function compileIndicators(indicators: readonly Indicator[], nowMs: number): IndicatorMatcher {
  const indexes: Indexes = {
    hashes: new Map(),
    addresses: new Map(),
    networks: [],
    domains: new Map(),
    names: { exact: new Map(), folded: new Map(), globs: [] },
    paths: { exact: new Map(), folded: new Map(), globs: [] },
  }
  const refused: string[] = []
  let size = 0
  let globsRefused = 0
  for (const indicator of indicators) {
    if (indicator.validUntil !== undefined && Date.parse(indicator.validUntil) <= nowMs) continue
    if (addIndicator(indexes, indicator)) size += 1
    else globsRefused += 1
  }
  if (globsRefused > 0) {
    refused.push(`${globsRefused} globs were left out: at most ${GLOBS_MAX} for names and as many for paths`)
  }
  return {
    size,
    refused,
    match: (event) => (size === 0 ? NONE : matchEvent(indexes, event)),
    matchDomain: (name) => matchDomain(indexes.domains, name),
  }
}

function addIndicator(indexes: Indexes, indicator: Indicator): boolean {
  switch (indicator.type) {
    case 'sha256':
    case 'sha1':
    case 'md5':
      addExact(indexes.hashes, indicator.value, indicator)
      return true
    case 'ipv4':
    case 'ipv6': {
      const address = parseAddress(indicator.value)
      if (address !== null) addExact(indexes.addresses, address, indicator)
      return true
    }
    case 'cidr':
      addNetwork(indexes.networks, indicator)
      return true
    case 'domain':
      addExact(indexes.domains, indicator.value, indicator)
      return true
    case 'fileName':
      return addText(indexes.names, indicator)
    case 'filePath':
      return addText(indexes.paths, indicator)
  }
}

function addExact<Key>(index: ExactIndex<Key>, key: Key, indicator: Indicator): void {
  const present = index.get(key)
  if (present === undefined) index.set(key, [indicator])
  else present.push(indicator)
}

function addNetwork(indexes: NetworkIndex[], indicator: Indicator): void {
  const network = parseNetwork(indicator.value)
  if (network === null) return
  let index = indexes.find(
    (known) => known.isIpv4 === network.isIpv4 && known.prefixLength === network.prefixLength,
  )
  if (index === undefined) {
    index = { isIpv4: network.isIpv4, prefixLength: network.prefixLength, networks: new Map() }
    indexes.push(index)
  }
  addExact(index.networks, network.key, indicator)
}

function addText(index: TextIndex, indicator: Indicator): boolean {
  const value = indicator.ignoreCase ? indicator.value.toLowerCase() : indicator.value
  if (!isGlob(value)) {
    addExact(indicator.ignoreCase ? index.folded : index.exact, value, indicator)
    return true
  }
  if (index.globs.length >= GLOBS_MAX) return false
  const test = compileGlob(value)
  index.globs.push({ indicator, test: indicator.ignoreCase ? (text) => test(text.toLowerCase()) : test })
  return true
}

function matchEvent(indexes: Indexes, event: CordonEvent): readonly Match[] {
  const found: Match[] = []
  switch (event['event.action']) {
    case 'exec':
    case 'process-info':
      matchHash(indexes, found, 'process.hash.sha256', event['process.hash.sha256'])
      matchPath(indexes, found, 'process.executable', event['process.executable'])
      break
    case 'connection':
      // Connections go out, so the source is this host's own address: no finding.
      matchAddress(indexes, found, 'destination.ip', event['destination.ip'])
      break
    case 'file-renamed':
      matchPath(indexes, found, 'cordon.file.previous_path', event['cordon.file.previous_path'])
      matchFile(indexes, found, event)
      break
    case 'file-created':
    case 'file-modified':
    case 'file-deleted':
    case 'file-examined':
      matchFile(indexes, found, event)
      break
    default:
      return NONE
  }
  return found.length === 0 ? NONE : chooseMatches(found, event['@timestamp'])
}

interface FileFields {
  readonly 'file.path': string
  readonly 'file.hash.sha256'?: string
  readonly 'file.hash.sha1'?: string
  readonly 'file.hash.md5'?: string
}

function matchFile(indexes: Indexes, found: Match[], event: FileFields): void {
  matchHash(indexes, found, 'file.hash.sha256', event['file.hash.sha256'])
  matchHash(indexes, found, 'file.hash.sha1', event['file.hash.sha1'])
  matchHash(indexes, found, 'file.hash.md5', event['file.hash.md5'])
  matchPath(indexes, found, 'file.path', event['file.path'])
}

function matchHash(indexes: Indexes, found: Match[], field: string, value: string | undefined): void {
  if (value !== undefined) addMatches(found, indexes.hashes.get(value), field, value)
}

/** A path against paths, and its last component against names. */
function matchPath(indexes: Indexes, found: Match[], field: string, path: string | undefined): void {
  if (path === undefined) return
  matchText(indexes.paths, found, field, path, path)
  matchText(indexes.names, found, field, path, path.slice(path.lastIndexOf('/') + 1))
}

function matchText(index: TextIndex, found: Match[], field: string, value: string, text: string): void {
  addMatches(found, index.exact.get(text), field, value)
  if (index.folded.size > 0) addMatches(found, index.folded.get(text.toLowerCase()), field, value)
  for (const glob of index.globs) {
    if (glob.test(text)) found.push({ indicator: glob.indicator, field, value })
  }
}

function matchAddress(indexes: Indexes, found: Match[], field: string, value: string): void {
  const address = parseAddress(value)
  if (address === null) return
  addMatches(found, indexes.addresses.get(address), field, value)
  const isIpv4 = typeof address === 'number'
  for (const index of indexes.networks) {
    if (index.isIpv4 !== isIpv4) continue
    addMatches(found, index.networks.get(prefixKey(address, index.prefixLength)), field, value)
  }
}

function addMatches(
  found: Match[],
  indicators: readonly Indicator[] | undefined,
  field: string,
  value: string,
): void {
  if (indicators === undefined) return
  for (const indicator of indicators) found.push({ indicator, field, value })
}

function chooseMatches(found: readonly Match[], timestamp: string): readonly Match[] {
  const chosen: Match[] = []
  for (const match of found) {
    // RFC 3339 in UTC with milliseconds sorts as text.
    const { id, validFrom, validUntil } = match.indicator
    if (validFrom !== undefined && timestamp < validFrom) continue
    if (validUntil !== undefined && timestamp >= validUntil) continue
    if (chosen.some((other) => other.indicator.id === id)) continue
    chosen.push(match)
    if (chosen.length === MATCHES_MAX) break
  }
  return chosen
}

function matchDomain(domains: ExactIndex<string>, name: string): readonly Indicator[] {
  if (name.length > 254) return []
  const found: Indicator[] = []
  for (let rest = normaliseDomain(name); rest !== ''; ) {
    found.push(...(domains.get(rest) ?? []))
    const dot = rest.indexOf('.')
    rest = dot < 0 ? '' : rest.slice(dot + 1)
  }
  return found.slice(0, MATCHES_MAX)
}
