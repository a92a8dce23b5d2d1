/**
 * What is wrong with telemetry lists, in words that name the rule, the field and what it takes: the same for the
 * operator who wrote them, the controller that plans with them and the agent that would put them in force.
 */
import { parseAddress } from '../ioc/address.ts'
import { PATH_CHARACTERS_MAX, TELEMETRY_LISTS_BYTES_MAX, TELEMETRY_RULES_MAX } from './limits.ts'
import { compileSchema, exceedsUtf8Bytes } from './parse.ts'
import {
  canonicalTelemetryLists,
  LISTABLE_ACTIONS,
  TelemetryLists,
  TelemetryRule,
  VERDICTS,
} from './telemetry-lists.ts'

type Field = keyof TelemetryRule

const path = `takes an absolute path of at most ${PATH_CHARACTERS_MAX} characters`

/** What each field takes. */
const TAKES: { readonly [Name in Field]: string } = {
  name: 'takes 1 to 64 letters, digits, spaces, dots, dashes and underscores, of which the first is a letter or digit',
  verdict: `is one of ${VERDICTS.join(', ')}`,
  actions: `takes a list, each once, of ${LISTABLE_ACTIONS.join(', ')}`,
  executable: path,
  parentExecutable: path,
  userId: 'takes a whole number from 0 to 4294967295',
  pathPrefix: path,
  destinationAddress: 'is no IP address: write one such as 192.0.2.1 or 2001:db8::1',
  destinationPort: 'takes a whole number from 0 to 65535',
}

const FIELDS = Object.keys(TAKES) as readonly Field[]
const REQUIRED = ['name', 'verdict'] as const satisfies readonly Field[]
const CONDITIONS = FIELDS.filter((field) => !['name', 'verdict', 'actions'].includes(field))
const PROBLEMS_MAX = 20

const listsCheck = compileSchema(TelemetryLists)
const fieldChecks = new Map(FIELDS.map((field) => [field, compileSchema(TelemetryRule.properties[field])]))

/** Empty when they can be put in force. Takes whatever was parsed; at most twenty problems are told. */
export function telemetryListProblems(lists: unknown): readonly string[] {
  const rules = rulesOf(lists)
  if (rules === null) {
    const form = 'telemetry lists are {"rules": [...]}, with nothing beside `rules`'
    return [form]
  }
  if (rules.length > TELEMETRY_RULES_MAX) {
    return [`${rules.length} telemetry rules are too many: one host takes at most ${TELEMETRY_RULES_MAX}`]
  }
  const misshapen = rules.flatMap((rule, at) => fieldProblems(rule, labelOf(rule, at)))
  if (misshapen.length > 0) return misshapen.slice(0, PROBLEMS_MAX)
  if (!listsCheck.Check(lists)) return ['the telemetry lists do not fit their schema']
  const problems = lists.rules.flatMap((rule, at) => meaningProblems(rule, lists.rules.slice(0, at)))
  if (exceedsUtf8Bytes(canonicalTelemetryLists(lists), TELEMETRY_LISTS_BYTES_MAX)) {
    problems.push(
      `the telemetry lists take more than ${TELEMETRY_LISTS_BYTES_MAX} bytes of JSON without spaces: say less, or in fewer rules`,
    )
  }
  return problems.slice(0, PROBLEMS_MAX)
}

function rulesOf(lists: unknown): readonly unknown[] | null {
  if (typeof lists !== 'object' || lists === null || Object.keys(lists).join() !== 'rules') return null
  const { rules } = lists as { readonly rules: unknown }
  return Array.isArray(rules) ? rules : null
}

/** By its name where it has one that can be shown, else by its place. */
function labelOf(rule: unknown, at: number): string {
  const name = (rule as Partial<TelemetryRule> | null)?.name
  const isNamed = fieldChecks.get('name')?.Check(name) === true
  return `telemetry rule ${isNamed ? `"${name}"` : at + 1}`
}

function fieldProblems(rule: unknown, label: string): string[] {
  if (typeof rule !== 'object' || rule === null || Array.isArray(rule)) return [`${label}: it is no object`]
  const given = Object.entries(rule)
  const missing = REQUIRED.filter((field) => !Object.hasOwn(rule, field))
  return [
    ...missing.map((field) => `${label}: \`${field}\` is missing: it ${TAKES[field]}`),
    ...given.flatMap(([field, value]) => {
      const check = fieldChecks.get(field as Field)
      if (check === undefined) {
        return [`${label}: there is no field ${JSON.stringify(field.slice(0, 64))}: ${FIELDS.join(', ')}`]
      }
      return check.Check(value) ? [] : [`${label}: \`${field}\` ${TAKES[field as Field]}`]
    }),
  ]
}

function meaningProblems(rule: TelemetryRule, earlier: readonly TelemetryRule[]): string[] {
  const problems: string[] = []
  const add = (problem: string) => problems.push(`telemetry rule "${rule.name}": ${problem}`)
  if (earlier.some(({ name }) => name === rule.name)) add('the name is taken: give each rule its own')
  if (rule.verdict === 'drop' && CONDITIONS.every((condition) => rule[condition] === undefined))
    add(`it would drop all of its actions: say at least one of ${CONDITIONS.join(', ')}`)
  if (rule.verdict === 'drop' && rule.pathPrefix === '/') add('`pathPrefix` / is every path: name a folder')
  if (rule.destinationAddress !== undefined && parseAddress(rule.destinationAddress) === null)
    add(`\`destinationAddress\` ${TAKES.destinationAddress}`)
  return problems
}
