/** Telemetry lists in words, for who signs them and for who asks what is in force. */
import { hashTelemetryLists } from '../../shared/node/telemetry-hash.ts'
import type { Intent } from '../../shared/protocol/commands.ts'
import type { TelemetryLists, TelemetryRule } from '../../shared/protocol/telemetry-lists.ts'
import { printable } from './printable.ts'

/** What is to be signed of an intent: what nobody could read in one line is shown in several. */
export function argumentLines({ action, args }: Pick<Intent, 'action' | 'args'>): readonly string[] {
  if (action !== 'setTelemetryLists') return [`Arguments     ${printable(JSON.stringify(args))}`]
  const [first = '', ...rules] = listsAtLength(args['lists'] as TelemetryLists)
  return [`Arguments     lists of ${first}`, ...rules]
}

/** One line of how many and which, and one for each rule, in their order: of several the first that holds decides. */
export function listsAtLength(lists: TelemetryLists): readonly string[] {
  const { rules } = lists
  const count = rules.length === 0 ? 'no rules' : `${rules.length} ${rules.length === 1 ? 'rule' : 'rules'}`
  return [
    `${count}, SHA-256 ${hashTelemetryLists(lists)}`,
    ...rules.map((rule, at) => `  ${String(at + 1).padStart(2)}  ${ruleInWords(rule)}`),
  ]
}

/** Such as `drop    build: file-created, file-modified; pathPrefix /var/build`. */
function ruleInWords({ name, verdict, actions, ...conditions }: TelemetryRule): string {
  const what = actions?.join(', ') ?? 'all that can be listed'
  const where = Object.entries(conditions).map(([field, value]) => `${field} ${value}`)
  return printable([`${verdict.padEnd(6)}  ${name}: ${what}`, ...where].join('; '))
}
