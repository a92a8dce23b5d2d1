/** Telemetry lists: what hosts leave out and keep, as operators signed it. */
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs'
import { hashTelemetryLists } from '../../../shared/node/telemetry-hash.ts'
import { telemetryListProblems } from '../../../shared/protocol/telemetry-list-problems.ts'
import type { TelemetryLists } from '../../../shared/protocol/telemetry-lists.ts'
import { Actions } from '../../api/schemas.ts'
import type { Host } from '../../api/services.ts'
import { type Action, FINAL_STATES } from '../../dispatch/action.ts'
import { carryOut, requestFrom } from '../action-flow.ts'
import { type Command, type CommandContext, EXIT, type ExitCode, usage } from '../command.ts'
import { printable } from '../printable.ts'
import { findHost, readHosts } from '../records.ts'
import { listsAtLength } from '../telemetry-text.ts'

/** Laid out by hand it is longer than what is signed. */
const FILE_BYTES_MAX = 256 * 1024
/** As the controller bounds a plan. */
const HOSTS_PER_PLAN_MAX = 1_000
const ACTIONS_READ_MAX = 1_000

export const TELEMETRY_COMMANDS: readonly Command[] = [
  {
    name: 'telemetry set',
    summary: 'put lists in force of what hosts leave out and keep; {"rules":[]} removes them',
    example: 'cordon telemetry set --file lists.json --host web-1 web-2 --reason "CHG-7" --wait',
    options: [
      { flags: '--file <file>', summary: 'the lists, as JSON (docs/telemetry-lists.md)' },
      { flags: '--host <host...>', summary: 'names of hosts, agent ids, or their first digits' },
      { flags: '--all', summary: 'every host that is enrolled and not revoked' },
    ],
    changes: true,
    async run(context) {
      const lists = readLists(context.options.required('file'))
      const hosts = chosenHosts(context, await readHosts(context))
      const plans = Math.ceil(hosts.length / HOSTS_PER_PLAN_MAX)
      const exits: ExitCode[] = []
      for (let plan = 0; plan < plans; plan += 1) {
        const part = hosts.slice(plan * HOSTS_PER_PLAN_MAX, (plan + 1) * HOSTS_PER_PLAN_MAX)
        if (plans > 1) context.note(`Plan ${plan + 1} of ${plans}: ${part.length} hosts.`)
        exits.push(await carryOut(context, requestOf(context, lists, part, plan), part))
      }
      const [first = EXIT.ok] = exits
      return exits.every((exit) => exit === first) ? first : EXIT.partly
    },
  },
  {
    name: 'telemetry show',
    summary: 'show the lists in force on a host, as it last said',
    example: 'cordon telemetry show --host web-1',
    options: [{ flags: '--host <host>', summary: 'name of the host, agent id, or its first digits' }],
    async run(context) {
      const host = findHost(await readHosts(context), context.options.required('host'))
      const { actions } = await context.client().show('/actions', Actions, {
        action: 'setTelemetryLists',
        agentId: host.agentId,
        limit: ACTIONS_READ_MAX,
      })
      const standing = standingOf(actions)
      const underWay = actions.filter(({ state }) => state !== 'unknown' && !FINAL_STATES.has(state))
      const lines = [
        ...standingAtLength(context, standing),
        ...underWay.map(({ id, state }) => `Under way     ${id.slice(0, 12)} is ${state}: cordon action get`),
      ]
      const { agentId, hostName } = host
      const shown = { agentId, hostName, ...standing, underWay: underWay.map(({ id }) => id) }
      context.print.block(shown, [`Host          ${printable(hostName)}`, ...lines], standing.sha256 ?? '')
      return EXIT.ok
    },
  },
]

function chosenHosts(context: CommandContext, hosts: readonly Host[]): readonly Host[] {
  const asked = context.options.list('host')
  const all = context.options.has('all')
  if (all === asked.length > 0) {
    throw usage('name hosts with --host, or all of them with --all', 'One of the two: cordon host ls')
  }
  const chosen = all
    ? hosts.filter(({ state }) => state !== 'revoked')
    : [...new Set(asked.map((name) => findHost(hosts, name)))]
  if (chosen.length === 0) throw usage('no hosts are enrolled', 'cordon host enroll-token')
  return chosen
}

function requestOf(context: CommandContext, lists: TelemetryLists, hosts: readonly Host[], plan: number) {
  const target = { kind: 'host' as const, breakGlassHash: null }
  const targets = hosts.map(({ agentId }) => ({ agentId, target }))
  const request = requestFrom(context, { action: 'setTelemetryLists', args: { lists }, targets })
  // Each plan is an action of its own.
  if (plan === 0 || request.idempotencyKey === undefined) return request
  return { ...request, idempotencyKey: `${request.idempotencyKey}-${plan + 1}` }
}

/** Lists that can be put in force; every problem of them is told at once. */
function readLists(path: string): TelemetryLists {
  const shown = printable(path)
  let lists: unknown
  try {
    lists = JSON.parse(readText(path))
  } catch (error) {
    const reason = printable(error instanceof Error ? error.message : String(error))
    throw usage(`--file ${shown} cannot be read: ${reason}`, EXAMPLE)
  }
  const problems = telemetryListProblems(lists)
  if (problems.length === 0) return lists as TelemetryLists
  throw usage(`--file ${shown} cannot be put in force:\n${problems.map(printable).join('\n')}`, EXAMPLE)
}

const EXAMPLE =
  'As in {"rules":[{"name":"build","verdict":"drop","actions":["file-created"],"pathPrefix":"/var/build"}]}'

function readText(path: string): string {
  const fd = openSync(path, 'r')
  try {
    if (fstatSync(fd).size > FILE_BYTES_MAX) throw new Error(`it is larger than ${FILE_BYTES_MAX} bytes`)
    return readFileSync(fd, 'utf8')
  } finally {
    closeSync(fd)
  }
}

interface Standing {
  readonly state: 'inForce' | 'none' | 'uncertain'
  readonly rules: TelemetryLists['rules']
  /** As the host measured it. */
  readonly sha256: string | null
  readonly since: string | null
  readonly commandId: string | null
  readonly requestedBy: string | null
  /** Why they were set, or why they are not in force any more. */
  readonly reason: string
}

/** What the last action says that the host applied: actions are applied in another order than they were asked for. */
function standingOf(actions: readonly Action[]): Standing {
  const last = actions
    .map((action) => ({ action, step: appliedStep(action) }))
    .filter(({ step }) => step !== undefined)
    .reduce<{ action: Action; at: string } | null>((latest, { action, step }) => {
      const at = step?.at ?? ''
      return latest === null || Date.parse(at) > Date.parse(latest.at) ? { action, at } : latest
    }, null)
  if (last === null) {
    const nothing = { sha256: null, since: null, commandId: null, requestedBy: null }
    return { state: 'none', rules: [], ...nothing, reason: 'no lists were ever applied on this host' }
  }
  const { action, at } = last
  const { rules } = action.args['lists'] as TelemetryLists
  const end = action.steps.at(-1)
  const sha256 = action.steps.findLast(({ proof }) => typeof proof['sha256'] === 'string')?.proof['sha256']
  const common = {
    sha256: typeof sha256 === 'string' ? sha256 : null,
    since: at,
    commandId: action.id,
    requestedBy: action.requestedBy,
  }
  if (action.state === 'reverted') return { state: 'none', rules: [], ...common, reason: end?.reason ?? '' }
  if (action.state !== 'done') return { state: 'uncertain', rules, ...common, reason: end?.reason ?? '' }
  return { state: rules.length === 0 ? 'none' : 'inForce', rules, ...common, reason: action.reason }
}

function appliedStep({ steps }: Action): Action['steps'][number] | undefined {
  return steps.find(({ state, by }) => by === 'agent' && (state === 'applied' || state === 'done'))
}

const WORDS: { readonly [State in Standing['state']]: string } = {
  inForce: 'in force',
  none: 'none in force: all is told',
  uncertain: 'NOT CERTAIN: they were applied, and not proved',
}

function standingAtLength({ print }: CommandContext, standing: Standing): readonly string[] {
  const { state, rules, sha256, since, commandId, requestedBy, reason } = standing
  const signed = rules.length === 0 ? [] : listsAtLength({ rules })
  const differs = state === 'inForce' && sha256 !== hashTelemetryLists({ rules })
  return [
    `Lists         ${WORDS[state]}`,
    ...(since === null ? [] : [`Applied       ${print.time(since)}, command ${commandId}`]),
    ...(requestedBy === null ? [] : [`Asked for by  ${printable(requestedBy)}`]),
    `Reason        ${printable(reason)}`,
    ...(differs ? [`DIFFERS       the host says SHA-256 ${printable(sha256 ?? '-')}`] : []),
    ...signed.map((line, at) => (at === 0 ? `Rules         ${line}` : line)),
  ]
}
