/** YARA-X behind the few calls that Cordon makes, with bounds on what a match may say. */
import { createRequire } from 'node:module'
import { carriesAddons, loadPackedAddon } from '../../shared/node/addons.ts'
import type { YaraSource } from '../../shared/node/content.ts'

/** The part of the YARA-X addon that is used. It ships without types. */
export interface YaraAddon {
  compile(source: string, options: YaraCompilerOptions): YaraScanner
  validate(source: string, options: YaraCompilerOptions): { errors: readonly { message: string }[] }
}

interface YaraCompilerOptions {
  readonly ignoreInvalidRules?: boolean
  readonly enableIncludes: boolean
  readonly enableAllWarnings: boolean
}

interface YaraScanner {
  addRuleSources(sources: readonly { namespace: string; source: string }[]): void
  getIgnoredRules(): readonly { name: string }[]
  getCompilationErrors(): readonly { message: string }[]
  setTimeout(timeoutMs: number): void
  setMaxMatchesPerPattern(count: number): void
  scan(data: Buffer): readonly YaraMatch[]
}

interface YaraMatch {
  readonly ruleIdentifier: string
  readonly namespace: string
  readonly meta: Readonly<Record<string, unknown>>
  readonly tags: readonly string[]
  readonly matches: readonly { readonly identifier: string; readonly offset: number }[]
}

export interface RuleHit {
  /** `meta.id`, or `<namespace>:<rule>`. */
  readonly ruleId: string
  /** `meta.name`, or the rule's own name. */
  readonly ruleName: string
  readonly description: string | null
  /** `meta.severity` as it stands; null when there is none. */
  readonly severity: string | null
  readonly techniques: readonly string[]
  readonly strings: readonly { readonly name: string; readonly offset: number }[]
}

export interface YaraEngine {
  /** What was left out of the rules and why, naming the file. */
  readonly problems: readonly string[]
  /** Throws when the scan took longer than the timeout. */
  scan(data: Buffer): readonly RuleHit[]
}

const HITS_MAX = 32
const STRINGS_MAX = 8
const MATCHES_PER_PATTERN_MAX = 16
const PROBLEMS_MAX = 50

/** Null where there is no YARA-X for this machine: files are then hashed and not scanned. */
export function loadYaraAddon(): YaraAddon | null {
  try {
    if (carriesAddons()) return loadPackedAddon('yara-x') as YaraAddon
    return createRequire(import.meta.url)('@litko/yara-x-linux-x64-gnu') as YaraAddon
  } catch {
    return null
  }
}

/** Compiles all sources into one set; a rule or file with an error is left out and named. */
export function createYaraEngine(
  addon: YaraAddon,
  sources: readonly YaraSource[],
  timeoutMs: number,
): YaraEngine {
  // Includes would let a rule text read files.
  const options = { enableIncludes: false, enableAllWarnings: false }
  const scanner = addon.compile('', { ...options, ignoreInvalidRules: true })
  scanner.addRuleSources(sources.map(({ name, text }) => ({ namespace: name, source: text })))
  const isWhole = scanner.getCompilationErrors().length === 0 && scanner.getIgnoredRules().length === 0
  // The engine does not tell which file an error is in, so only then is each looked at alone.
  const problems = isWhole ? [] : sources.flatMap((source) => problemsOf(addon, source, options))
  scanner.setMaxMatchesPerPattern(MATCHES_PER_PATTERN_MAX)
  scanner.setTimeout(timeoutMs)
  return {
    problems: problems.slice(0, PROBLEMS_MAX),
    scan: (data) => scanner.scan(data).slice(0, HITS_MAX).map(hitOf),
  }
}

function problemsOf(addon: YaraAddon, source: YaraSource, options: YaraCompilerOptions): string[] {
  return addon
    .validate(source.text, options)
    .errors.map(({ message }) => `${source.name}: ${message.slice(0, 512)}`)
}

function hitOf(match: YaraMatch): RuleHit {
  const { meta } = match
  return {
    ruleId: textOf(meta['id'], 128) ?? `${match.namespace}:${match.ruleIdentifier}`.slice(0, 128),
    ruleName: textOf(meta['name'], 256) ?? match.ruleIdentifier.slice(0, 256),
    description: textOf(meta['description'], 1_024),
    severity: textOf(meta['severity'], 16),
    techniques: techniquesOf(meta['technique']),
    strings: match.matches
      .slice(0, STRINGS_MAX)
      .map(({ identifier, offset }) => ({ name: identifier.slice(0, 64), offset })),
  }
}

function textOf(value: unknown, charactersMax: number): string | null {
  return typeof value === 'string' && value !== '' ? value.slice(0, charactersMax) : null
}

function techniquesOf(value: unknown): string[] {
  if (typeof value !== 'string') return []
  return value
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name.length > 0 && name.length <= 16)
    .slice(0, 16)
}
