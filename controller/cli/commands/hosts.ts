/** Hosts: which there are, how they are, what to scan on them. */
import { Done, TokenAnswer } from '../../api/schemas.ts'
import type { Host } from '../../api/services.ts'
import { carryOut, requestFrom } from '../action-flow.ts'
import { type Command, type CommandContext, EXIT, Failure, usage } from '../command.ts'
import { printable } from '../printable.ts'
import { findHost, readHosts } from '../records.ts'

const HOST = { form: '<host>', summary: 'name of the host, agent id, or its first digits' }

/** An agent that renews as it should never gets this near. */
const CERTIFICATE_DAYS_LOW = 7

export const HOST_COMMANDS: readonly Command[] = [
  {
    name: 'host ls',
    summary: 'list the enrolled hosts',
    example: 'cordon host ls -o wide',
    async run(context) {
      const { print, io } = context
      print.list(
        await readHosts(context),
        [
          { title: 'host', value: ({ hostName }) => hostName, gives: true },
          { title: 'agent', value: ({ agentId }) => agentId.slice(0, 8) },
          {
            title: 'state',
            value: ({ state }) => state,
            colour: ({ state }) => (state === 'connected' ? 'green' : state === 'silent' ? 'orange' : 'grey'),
          },
          { title: 'last seen', value: ({ lastSeenAt }) => print.time(lastSeenAt) },
          {
            title: 'sensors',
            value: ({ sensors }) =>
              sensors
                .filter(({ inForce }) => inForce)
                .map(({ name }) => name)
                .join(', ') || 'NONE',
            gives: true,
          },
          {
            title: 'lost',
            value: ({ droppedRows, sensors }) => sensors.reduce((sum, { lost }) => sum + lost, droppedRows),
          },
          { title: 'system', value: ({ inventory }) => inventory.operatingSystem, gives: true },
          { title: 'version', value: ({ agentVersion }) => agentVersion, wide: true },
          { title: 'buffered', value: ({ bufferedRows }) => bufferedRows, wide: true },
          {
            title: 'certificate',
            value: (host) => `${daysLeft(host, io.clock()) ?? '?'} days`,
            plain: ({ certificateExpiresAt }) => certificateExpiresAt,
            colour: (host) =>
              (daysLeft(host, io.clock()) ?? 0) < CERTIFICATE_DAYS_LOW ? 'orange' : undefined,
          },
        ],
        { name: ({ agentId }) => agentId, none: 'No hosts are enrolled: cordon host enroll-token' },
      )
      return EXIT.ok
    },
  },
  {
    name: 'host get',
    summary: 'show one host with its sensors and its buffer',
    example: 'cordon host get web-1',
    arguments: [HOST],
    async run(context) {
      const host = findHost(await readHosts(context), context.arguments[0] ?? '')
      context.print.record(host, hostFields(context, host), host.agentId)
      return EXIT.ok
    },
  },
  {
    name: 'host revoke',
    summary: 'end an agent’s right to connect; for good',
    example: 'cordon host revoke web-1 --reason "sold"',
    arguments: [HOST],
    options: [
      { flags: '--reason <text>', summary: 'why; for the audit log' },
      { flags: '--yes', summary: 'do not ask' },
    ],
    async run(context) {
      const { io, options } = context
      const reason = options.required('reason')
      const host = findHost(await readHosts(context), context.arguments[0] ?? '')
      if (!options.has('yes')) {
        if (!io.stdin.isTerminal) throw usage('nobody is there to confirm', 'Add --yes.')
        const typed = await io.stdin.ask(
          `This cannot be undone. Type ${printable(host.hostName)} to revoke it: `,
          false,
        )
        if (typed?.trim() !== host.hostName) throw new Failure(EXIT.cancelled, 'cancelled', 'cancelled')
      }
      await context.client().send('POST', `/hosts/${host.agentId}/revoke`, Done, { reason })
      context.note(`${printable(host.hostName)} is revoked.`)
      return EXIT.ok
    },
  },
  {
    name: 'host enroll-token',
    summary: 'make a token with which one host enrols; it is shown once',
    example: 'cordon host enroll-token --ttl 15m',
    options: [{ flags: '--ttl <duration>', summary: 'how long it is valid, at most 1h' }],
    async run(context) {
      const ttlMs = context.options.duration('ttl')
      const body = ttlMs === undefined ? {} : { ttlMs }
      const token = await context.client().send('POST', '/enrolment/tokens', TokenAnswer, body)
      context.note(`Valid until ${context.print.time(token.expiresAt)}, for one host. On that host:`)
      // Piped: a command line can be read by every user of that host.
      const command = printable(`echo ${token.token} | cordon-agent enroll ${token.url} -`)
      context.print.block(token, [command], token.token)
      return EXIT.ok
    },
  },
  {
    name: 'host scan',
    summary: 'scan a file or folder on a host with the rules in force',
    example: 'cordon host scan web-1 /tmp --reason "triage" --wait',
    arguments: [HOST, { form: '<path>', summary: 'absolute path on the host' }],
    options: [{ flags: '--files-max <count>', summary: 'stop after so many files (default 10000)' }],
    changes: true,
    async run(context) {
      const [asked = '', path = ''] = context.arguments
      if (!path.startsWith('/')) throw usage('the path is absolute')
      const filesMax = context.options.whole('filesMax', 10_000, 1_000_000)
      const host = findHost(await readHosts(context), asked)
      const targets = [{ agentId: host.agentId, target: { kind: 'path' as const, path } }]
      return carryOut(context, requestFrom(context, { action: 'scanPath', args: { filesMax }, targets }), [
        host,
      ])
    },
  },
]

/** Whole days until the certificate of the host's agent ends; it is renewed at half of its 30 days. */
function daysLeft({ certificateExpiresAt }: Host, nowMs: number): number | null {
  const untilMs = Date.parse(certificateExpiresAt)
  return Number.isNaN(untilMs) ? null : Math.floor((untilMs - nowMs) / 86_400_000)
}

function hostFields({ print, io }: CommandContext, host: Host) {
  const { inventory } = host
  return [
    { title: 'Host', value: () => host.hostName },
    { title: 'Agent', value: () => `${host.agentId}, version ${host.agentVersion}` },
    { title: 'State', value: () => host.state },
    { title: 'Last seen', value: () => print.time(host.lastSeenAt) },
    { title: 'Enrolled', value: () => print.time(host.enrolledAt) },
    {
      title: 'Certificate',
      value: () =>
        `until ${print.time(host.certificateExpiresAt)} (${daysLeft(host, io.clock()) ?? '?'} days)`,
    },
    {
      title: 'System',
      value: () =>
        `${inventory.operatingSystem} ${inventory.operatingSystemVersion}, kernel ${inventory.kernel}, ${inventory.architecture}`,
    },
    { title: 'Addresses', value: () => inventory.addresses.join(', ') },
    { title: 'Boot', value: () => host.bootId },
    ...host.sensors.map((each) => ({
      title: `Sensor ${printable(each.name)}`,
      value: () =>
        `${each.inForce ? 'in force' : 'not in force'}: ${each.reason}; seen ${each.seen}, lost ${each.lost}`,
    })),
    { title: 'Buffer', value: () => `${host.bufferedRows} rows wait, ${host.droppedRows} dropped` },
  ]
}
