/**
 * Telemetry lists made fast: what a rule says of the process is decided once for each process, so that a record
 * is held against the few rules that are left for its action, and mostly against none.
 */
import type { EventAction } from '../../../shared/events/event.ts'
import { type AddressKey, parseAddress } from '../../../shared/ioc/address.ts'
import { telemetryListProblems } from '../../../shared/protocol/telemetry-list-problems.ts'
import {
  LISTABLE_ACTIONS,
  type TelemetryLists,
  type TelemetryRule,
} from '../../../shared/protocol/telemetry-lists.ts'
import type { KernelText } from '../records.ts'
import type { MeasuredRecord } from './record-actions.ts'

/** What is known of an acting process. */
export interface ProcessFacts {
  readonly executable: KernelText | null
  readonly parentExecutable: KernelText | null
  readonly userId: number
}

export interface CompiledRule {
  readonly name: string
  readonly verdict: TelemetryRule['verdict']
  readonly matches: (record: MeasuredRecord) => boolean
}

/** The rules that may hold for one process, by action, in their order. */
export type ProcessRules = ReadonlyMap<EventAction, readonly CompiledRule[]>

export interface TelemetryMatcher {
  /** Null: the process is not known, so that no rule holds which says something of it. */
  rulesFor(facts: ProcessFacts | null): ProcessRules
  /** Some rule says something of the process. */
  readonly asksForProcess: boolean
}

export type CompiledLists =
  | { readonly ok: true; readonly matcher: TelemetryMatcher }
  | { readonly ok: false; readonly problems: readonly string[] }

interface Rule extends CompiledRule {
  readonly source: TelemetryRule
}

/** Says all that is wrong with them; nothing is compiled then. */
export function compileTelemetryLists(lists: TelemetryLists): CompiledLists {
  const problems = telemetryListProblems(lists)
  if (problems.length > 0) return { ok: false, problems }
  const rules = lists.rules.map(
    (source): Rule => ({
      source,
      name: source.name,
      verdict: source.verdict,
      matches: matcherOf(source),
    }),
  )
  return {
    ok: true,
    matcher: {
      asksForProcess: rules.some(({ source }) => asksForProcess(source)),
      rulesFor(facts) {
        const byAction = new Map<EventAction, CompiledRule[]>()
        for (const rule of rules) {
          if (!holdsForProcess(rule.source, facts)) continue
          for (const action of rule.source.actions ?? LISTABLE_ACTIONS) {
            const listed = byAction.get(action)
            if (listed) listed.push(rule)
            else byAction.set(action, [rule])
          }
        }
        return byAction
      },
    },
  }
}

/** The first rule that holds for a record of this action. */
export function findRule(
  rules: ProcessRules,
  action: EventAction,
  record: MeasuredRecord,
): CompiledRule | undefined {
  const listed = rules.get(action)
  if (listed === undefined) return undefined
  for (const rule of listed) if (rule.matches(record)) return rule
  return undefined
}

const slash = 47

function asksForProcess(rule: TelemetryRule): boolean {
  return rule.executable !== undefined || rule.parentExecutable !== undefined || rule.userId !== undefined
}

function holdsForProcess(rule: TelemetryRule, facts: ProcessFacts | null): boolean {
  if (!asksForProcess(rule)) return true
  if (facts === null) return false
  const { executable, parentExecutable, userId } = rule
  return (
    (executable === undefined || facts.executable === executable) &&
    (parentExecutable === undefined || facts.parentExecutable === parentExecutable) &&
    (userId === undefined || facts.userId === userId)
  )
}

function matcherOf(rule: TelemetryRule): CompiledRule['matches'] {
  const tests: CompiledRule['matches'][] = []
  if (rule.pathPrefix !== undefined) tests.push(pathTest(rule.pathPrefix))
  if (rule.destinationPort !== undefined) {
    const port = rule.destinationPort
    tests.push((record) => 'destinationPort' in record && record.destinationPort === port)
  }
  const address = rule.destinationAddress === undefined ? null : parseAddress(rule.destinationAddress)
  if (address !== null) tests.push(addressTest(address))
  const [first] = tests
  if (first === undefined) return () => true
  return tests.length === 1 ? first : (record) => tests.every((test) => test(record))
}

function addressTest(address: AddressKey): CompiledRule['matches'] {
  return (record) => 'destinationAddress' in record && parseAddress(record.destinationAddress) === address
}

function pathTest(prefix: string): CompiledRule['matches'] {
  const folder = prefix.endsWith('/') ? prefix : `${prefix}/`
  const file = folder.slice(0, -1)
  const folderBytes = Buffer.from(folder)
  return (record) => {
    const path = 'path' in record ? record.path : null
    if (path === null) return false
    if (typeof path === 'string') {
      // The slash first: it tells most paths apart at the price of one character.
      const isLonger = path.length > file.length
      return isLonger ? path.charCodeAt(file.length) === slash && path.startsWith(folder) : path === file
    }
    return folderBytes.equals(path.subarray(0, folderBytes.length))
  }
}
