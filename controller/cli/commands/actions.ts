/** Actions: pending and past ones, and the signatures they wait for. */

import { pause } from '../../../shared/node/loop.ts'
import { Actions } from '../../api/schemas.ts'
import { ACTION_STATES, Action, FINAL_STATES } from '../../dispatch/action.ts'
import { approvePlan, describeTarget, exitOf, follow, stepText } from '../action-flow.ts'
import { type Command, EXIT, Failure } from '../command.ts'
import { printable } from '../printable.ts'
import { progressLine } from '../progress.ts'
import { ACTION_COLUMNS, findAction, findHost, incidentId, readHosts } from '../records.ts'

const ID = { form: '<id>', summary: 'action id, or its first digits' }

export const ACTION_COMMANDS: readonly Command[] = [
  {
    name: 'action ls',
    summary: 'list actions, pending and past',
    example: 'cordon action ls --state awaitingApproval',
    arguments: [{ form: '[incident]', summary: 'only of this incident, as in INC-1' }],
    options: [
      { flags: '--state <state>', summary: 'only these', choices: ACTION_STATES },
      { flags: '--incident <id>', summary: 'only of this incident' },
      { flags: '--host <host>', summary: 'only on this host' },
      { flags: '--limit <count>', summary: 'at most so many (default 100)' },
    ],
    async run(context) {
      const { options, print } = context
      const host = options.text('host')
      const incident = context.arguments[0] ?? options.text('incident')
      const { actions } = await context.client().show('/actions', Actions, {
        state: options.text('state'),
        incidentId: incident === undefined ? undefined : incidentId(incident),
        agentId: host === undefined ? undefined : findHost(await readHosts(context), host).agentId,
        limit: options.whole('limit', 100, 10_000),
      })
      print.list(actions, ACTION_COLUMNS(print), { name: ({ id }) => id, none: 'No actions.' })
      return EXIT.ok
    },
  },
  {
    name: 'action get',
    summary: 'show one action, each step it took and what was measured',
    example: 'cordon action get 1f2e',
    arguments: [ID],
    async run(context) {
      const { print } = context
      const action = await findAction(context, context.arguments[0] ?? '')
      print.block(action, actionLines(action, print), action.id)
      return EXIT.ok
    },
  },
  {
    name: 'action watch',
    summary: 'follow an action until it is final',
    example: 'cordon action watch 1f2e --json',
    arguments: [ID],
    async run(context) {
      const { print } = context
      const { id } = await findAction(context, context.arguments[0] ?? '')
      if (!print.json) {
        const [action] = await follow(context, [id])
        if (action) print.block(action, actionLines(action, print), action.id)
        return action ? exitOf([action]) : EXIT.failed
      }
      return watchLines(context, id)
    },
  },
  {
    name: 'action cancel',
    summary: 'cancel an action that has not been applied yet',
    example: 'cordon action cancel 1f2e --reason "wrong host"',
    arguments: [ID],
    options: [{ flags: '--reason <text>', summary: 'why' }],
    async run(context) {
      const { id } = await findAction(context, context.arguments[0] ?? '')
      const reason = context.options.text('reason') ?? 'cancelled on the command line'
      const action = await context.client().send('POST', `/actions/${id}/cancel`, Action, { reason })
      context.note(`${id.slice(0, 12)} is ${action.state}.`)
      context.print.block(action, [], action.id)
      return EXIT.ok
    },
  },
  {
    name: 'action approve',
    summary: 'check and sign what another operator planned',
    example: 'cordon action approve 1f2e --wait',
    arguments: [ID],
    options: [
      { flags: '--key <name>', summary: 'key to sign with' },
      { flags: '--passphrase-stdin', summary: 'read the key’s passphrase from standard input' },
      { flags: '--yes', summary: 'do not ask' },
      { flags: '--dry-run', summary: 'show what would be signed, and stop' },
      { flags: '--wait', summary: 'follow it until it is final' },
    ],
    async run(context) {
      const action = await findAction(context, context.arguments[0] ?? '')
      return approvePlan(context, action, await readHosts(context))
    },
  },
]

function actionLines(action: Action, print: Parameters<typeof ACTION_COLUMNS>[0]): string[] {
  return [
    `Action    ${action.id}  ${action.action}, class ${action.class}`,
    `Host      ${printable(action.hostName)} (${action.agentId.slice(0, 8)})`,
    `Target    ${describeTarget(action.target)}`,
    `Arguments ${printable(JSON.stringify(action.args))}`,
    `Reason    ${printable(action.reason)}`,
    `Incident  ${printable(action.incidentId ?? '-')}`,
    `Asked     by ${printable(action.requestedBy)}, ${print.time(action.createdAt)}, expires ${print.time(action.expiresAt)}`,
    `State     ${action.state}`,
    ...(action.progress
      ? [`Received  ${progressLine(action.progress.receivedBytes, action.progress.sizeBytes)}`]
      : []),
    ...action.steps.map((step) => `  ${print.moment(step.at)}  ${stepText(step)}`),
    ...proofLines(action),
  ]
}

/** What was measured last: what the end rests on. */
function proofLines({ steps }: Action): string[] {
  const proof = Object.entries(steps.at(-1)?.proof ?? {}).filter(
    ([, value]) => value !== null && value !== '',
  )
  if (proof.length === 0) return []
  const width = Math.max(...proof.map(([name]) => name.length))
  return [
    'Measured',
    ...proof.map(([name, value]) => `  ${printable(`${name.padEnd(width)}  ${String(value)}`)}`),
  ]
}

/** Each change as a line of JSON. */
async function watchLines(context: Parameters<Command['run']>[0], id: string) {
  const untilMs = context.io.clock() + (context.options.duration('timeout') ?? 24 * 3_600_000)
  let told = 0
  for (;;) {
    const action = await context.client().get(`/actions/${id}`, Action)
    if (action.steps.length !== told) {
      told = action.steps.length
      context.print.line(action, '')
    }
    if (FINAL_STATES.has(action.state) || action.state === 'unknown') return exitOf([action])
    if (context.io.clock() >= untilMs)
      throw new Failure(EXIT.waitTimedOut, 'waitTimedOut', 'not finished in time')
    await pause(300, context.io.signal)
    if (context.io.signal.aborted) throw new Failure(EXIT.interrupted, 'interrupted', 'interrupted')
  }
}
