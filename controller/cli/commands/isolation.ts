/** Cutting hosts off, letting them go, and the code for when nothing reaches them any more. */
import { LEASE_MS_MAX, LEASE_MS_MIN } from '../../../shared/protocol/commands.ts'
import { BreakGlassAnswer } from '../../api/schemas.ts'
import type { Host } from '../../api/services.ts'
import { carryOut, requestFrom } from '../action-flow.ts'
import { type Command, type CommandContext, EXIT, Failure, usage } from '../command.ts'
import { printable } from '../printable.ts'
import type { Printer } from '../printer.ts'
import { findHost, readHosts } from '../records.ts'

const HOST = { form: '<host>', summary: 'name of the host, agent id, or its first digits' }

export const ISOLATION_COMMANDS: readonly Command[] = [
  {
    name: 'host isolate',
    summary: 'cut a host off from every network but this controller',
    example: 'cordon host isolate web-1 --lease 4h --reason "INC-1" --incident INC-1 --wait',
    arguments: [HOST],
    options: [
      { flags: '--lease <duration>', summary: 'running time of the host after which it ends by itself' },
    ],
    changes: true,
    async run(context) {
      const leaseMs = context.options.duration('lease') ?? null
      if (leaseMs !== null && (leaseMs < LEASE_MS_MIN || leaseMs > LEASE_MS_MAX)) {
        throw usage('--lease is from 1m to 30d', 'Without it, isolation lasts until cordon host release.')
      }
      const host = findHost(await readHosts(context), context.arguments[0] ?? '')
      if (host.isolation?.possible === false && host.isolation.state === 'off') {
        throw new Failure(
          EXIT.failed,
          'notPossible',
          `${printable(host.hostName)} cannot be isolated: ${printable(host.isolation.reason)}`,
          'Mend that on the host first; its agent tells within ten minutes, or when it is started anew.',
        )
      }
      const exit = await carryOut(context, requestOf(context, host, 'isolateHost', { leaseMs }), [host])
      if (exit === EXIT.ok && !context.options.has('dryRun')) {
        context.note(`If nothing reaches it any more: cordon host break-glass ${host.agentId.slice(0, 8)}`)
      }
      return exit
    },
  },
  {
    name: 'host release',
    summary: 'end the isolation of a host',
    example: 'cordon host release web-1 --reason "INC-1 is contained" --wait',
    arguments: [HOST],
    changes: true,
    async run(context) {
      const host = findHost(await readHosts(context), context.arguments[0] ?? '')
      return carryOut(context, requestOf(context, host, 'releaseHost', {}), [host])
    },
  },
  {
    name: 'host break-glass',
    summary: 'show the code that ends the isolation of a host on the host itself; audited',
    example: 'cordon host break-glass web-1 --reason "its network card was replaced"',
    arguments: [HOST],
    options: [{ flags: '--reason <text>', summary: 'why; for the audit log' }],
    async run(context) {
      const reason = context.options.required('reason')
      const host = findHost(await readHosts(context), context.arguments[0] ?? '')
      const path = `/hosts/${host.agentId}/break-glass`
      const shown = await context.client().send('POST', path, BreakGlassAnswer, { reason })
      context.note(
        `For the isolation of command ${shown.commandId}. On ${printable(host.hostName)}, as root:`,
      )
      // Typed there: a command line can be read by every user of that host.
      const command = printable(`echo ${shown.code} | cordon-agent release --code -`)
      context.print.block(shown, [command], shown.code)
      return EXIT.ok
    },
  },
]

function requestOf(
  context: CommandContext,
  host: Host,
  action: 'isolateHost' | 'releaseHost',
  args: Readonly<Record<string, unknown>>,
) {
  const target = { kind: 'host' as const, breakGlassHash: null }
  return requestFrom(context, { action, args, targets: [{ agentId: host.agentId, target }] })
}

/** Empty while the host is not isolated. */
export function isolationBriefly({ isolation }: Host): string {
  if (!isolation || isolation.state === 'off') return ''
  return isolation.state === 'confirmed' ? 'ISOLATED' : 'being isolated'
}

export function isolationAtLength({ isolation }: Host, print: Printer): string {
  if (!isolation) return 'never told'
  if (isolation.state === 'off')
    return isolation.possible ? 'none; possible' : `NOT POSSIBLE: ${isolation.reason}`
  const since = isolation.since === null ? '' : ` since ${print.time(isolation.since)}`
  const until = isolation.leaseEnds === null ? 'until released' : `until ${print.time(isolation.leaseEnds)}`
  return `${isolation.state}${since}, ${until}${isolation.commandId === null ? '' : `, command ${isolation.commandId}`}`
}
