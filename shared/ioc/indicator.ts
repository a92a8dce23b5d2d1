/**
 * Indicators of compromise: what they are, and the strict reading of a list of them. The agent and the
 * controller read and match them with this same code, so that both find the same.
 */
import Type, { type Static } from 'typebox'
import { Compile } from 'typebox/compile'
import { SeveritySchema } from '../events/alert-events.ts'
import { Timestamp } from '../events/fields.ts'
import { parseAddress, parseNetwork } from './address.ts'
import { GLOB_CHARACTERS_MAX, isGlob } from './glob.ts'

const INDICATOR_TYPES = [
  'sha256',
  'sha1',
  'md5',
  'ipv4',
  'ipv6',
  'cidr',
  'domain',
  'fileName',
  'filePath',
] as const
type IndicatorType = (typeof INDICATOR_TYPES)[number]

const IndicatorSchema = Type.Object(
  {
    /** Names the indicator for good: it is the rule id of what it finds. */
    id: Type.String({ minLength: 1, maxLength: 128, pattern: '^[\\x21-\\x7e]+$' }),
    // A union of a mapped list alone has the type `never`.
    type: Type.Unsafe<IndicatorType>(Type.Union(INDICATOR_TYPES.map((name) => Type.Literal(name)))),
    /**
     * Hashes in hex; addresses as text; a domain with all its subdomains; file names and paths as they are, or
     * as a glob: `?` and `*` stay within one path component, `**` crosses them, `\` takes the next one literally.
     */
    value: Type.String({ minLength: 1, maxLength: 4_096 }),
    name: Type.String({ minLength: 1, maxLength: 256 }),
    description: Type.Optional(Type.String({ maxLength: 1_024 })),
    severity: SeveritySchema,
    /** 0 (a guess) to 100 (certain). */
    confidence: Type.Integer({ minimum: 0, maximum: 100 }),
    /** Who says so. */
    source: Type.String({ minLength: 1, maxLength: 128 }),
    validFrom: Type.Optional(Timestamp),
    validUntil: Type.Optional(Timestamp),
    /** ATT&CK techniques such as `T1105`. */
    techniques: Type.Optional(Type.Array(Type.String({ minLength: 1, maxLength: 16 }), { maxItems: 16 })),
    /** File names and paths only; they are told apart by case unless this is set. */
    ignoreCase: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false },
)
export type Indicator = Readonly<Static<typeof IndicatorSchema>>

const validator = Compile(IndicatorSchema)

/** Entries of one list; a larger list is refused as a whole. */
const INDICATORS_MAX = 2_000_000
const PROBLEMS_MAX = 100

export interface LoadedIndicators {
  readonly indicators: readonly Indicator[]
  /** One sentence for each entry that was left out, in order; the last one counts those beyond 100. */
  readonly problems: readonly string[]
}

/** Reads a JSON list of indicators. A bad entry is named and left out; the others stand. */
export function loadIndicators(text: string, listName: string): LoadedIndicators {
  let list: unknown
  try {
    list = JSON.parse(text)
  } catch (error) {
    return {
      indicators: [],
      problems: [`${listName}: not JSON: ${error instanceof Error ? error.message : ''}`],
    }
  }
  if (!Array.isArray(list)) return { indicators: [], problems: [`${listName}: not a list of indicators`] }
  if (list.length > INDICATORS_MAX) {
    return { indicators: [], problems: [`${listName}: ${list.length} entries, at most ${INDICATORS_MAX}`] }
  }
  const indicators: Indicator[] = []
  const problems: string[] = []
  let problemCount = 0
  const seen = new Set<string>()
  list.forEach((entry: unknown, index) => {
    const problem = problemOf(entry, seen)
    if (problem === null) {
      const indicator = normaliseIndicator(entry as Indicator)
      seen.add(indicator.id)
      indicators.push(indicator)
      return
    }
    problemCount += 1
    if (problems.length < PROBLEMS_MAX) problems.push(`${listName}: entry ${index}: ${problem}`)
  })
  if (problemCount > PROBLEMS_MAX) {
    problems.push(`${listName}: ${problemCount - PROBLEMS_MAX} more entries were left out`)
  }
  return { indicators, problems }
}

function problemOf(entry: unknown, seen: ReadonlySet<string>): string | null {
  if (!validator.Check(entry)) {
    const [first] = validator.Errors(entry)
    const where = first?.instancePath === '' ? 'the entry' : first?.instancePath.slice(1)
    const extra =
      first?.keyword === 'additionalProperties'
        ? `: ${first.params.additionalProperties.join(', ').slice(0, 128)}`
        : ''
    return `${where} ${first?.message ?? 'is not an indicator'}${extra}`
  }
  if (seen.has(entry.id)) return `${entry.id}: the id stands already`
  if (
    entry.validFrom !== undefined &&
    entry.validUntil !== undefined &&
    entry.validFrom >= entry.validUntil
  ) {
    return `${entry.id}: validFrom is not before validUntil`
  }
  const problem = valueProblem(entry)
  return problem === null ? null : `${entry.id}: ${problem}`
}

const HASH_DIGITS = { sha256: 64, sha1: 40, md5: 32 } as const
const HEX = /^[0-9a-fA-F]+$/
const DOMAIN = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*$/

function valueProblem(indicator: Indicator): string | null {
  const { type, value } = indicator
  switch (type) {
    case 'sha256':
    case 'sha1':
    case 'md5':
      return value.length === HASH_DIGITS[type] && HEX.test(value)
        ? null
        : `the value is not ${HASH_DIGITS[type]} hex digits`
    case 'ipv4':
    case 'ipv6': {
      const address = parseAddress(value)
      if (address === null) return 'the value is not an IP address'
      // A mapped address is IPv4 whatever it is called.
      return (typeof address === 'number') === (type === 'ipv4') || value.includes(':') === (type === 'ipv6')
        ? null
        : `the value is not an ${type === 'ipv4' ? 'IPv4' : 'IPv6'} address`
    }
    case 'cidr':
      return parseNetwork(value) === null ? 'the value is not an address with a prefix length' : null
    case 'domain':
      return value.length <= 254 && DOMAIN.test(normaliseDomain(value))
        ? null
        : 'the value is not a domain name'
    case 'fileName':
      if (value.includes('/')) return 'a file name has no slash'
      return globProblem(value)
    case 'filePath':
      if (!value.startsWith('/') && !value.startsWith('**')) return 'a path starts with / or **'
      return globProblem(value)
  }
}

function globProblem(value: string): string | null {
  if (value.includes('\0')) return 'the value has a NUL'
  if (isGlob(value) && value.length > GLOB_CHARACTERS_MAX) {
    return `a glob has at most ${GLOB_CHARACTERS_MAX} characters`
  }
  return null
}

/** Lower case without the final dot of the root (RFC 4343 section 3). */
export function normaliseDomain(name: string): string {
  const lower = name.toLowerCase()
  return lower.endsWith('.') ? lower.slice(0, -1) : lower
}

function normaliseIndicator(indicator: Indicator): Indicator {
  switch (indicator.type) {
    case 'sha256':
    case 'sha1':
    case 'md5':
      return { ...indicator, value: indicator.value.toLowerCase() }
    case 'domain':
      return { ...indicator, value: normaliseDomain(indicator.value) }
    default:
      return indicator
  }
}
