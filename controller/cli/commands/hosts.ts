/** Hosts: which there are, how they are, what to scan on them. */
import { Done, TokenAnswer } from '../../api/schemas.ts'
import type { Host } from '../../api/services.ts'
import { carryOut, requestFrom } from '../action-flow.ts'
import { type Command, type CommandContext, EXIT, Failure, usage } from '../command.ts'
import { printable } from '../printable.ts'
import { findHost, readHosts } from '../records.ts'

const HOST = { form: '<host>', summary: 'name of the host, agent id, or its first digits' }

export const HOST_COMMANDS: readonly Command[] = [
  {
    name: 'host ls',
    summary: 'list the enrolled hosts',
    example: 'cordon host ls -o wide',
    async run(context) {
      const { print } = context
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
          { title: 'sensors', value: (host) => host.sensors.filter((sensor) => sensor.inForce).length },
          { title: 'lost', value: ({ droppedRows }) => droppedRows },
          { title: 'system', value: ({ inventory }) => inventory.operatingSystem, gives: true },
          { title: 'version', value: ({ agentVersion }) => agentVersion, wide: true },
          { title: 'buffered', value: ({ bufferedRows }) => bufferedRows, wide: true },
          { title: 'certificate until', value: (host) => print.time(host.certificateExpiresAt), wide: true },
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
      context.print.record(host, hostFields(context), host.agentId)
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
      const command = printable(`cordon-agent enroll ${token.url} ${token.token}`)
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

function hostFields({ print }: CommandContext) {
  return [
    { title: 'Host', value: (host: Host) => host.hostName },
    { title: 'Agent', value: (host: Host) => `${host.agentId}, version ${host.agentVersion}` },
    { title: 'State', value: (host: Host) => host.state },
    { title: 'Last seen', value: (host: Host) => print.time(host.lastSeenAt) },
    { title: 'Enrolled', value: (host: Host) => print.time(host.enrolledAt) },
    { title: 'Certificate', value: (host: Host) => `until ${print.time(host.certificateExpiresAt)}` },
    {
      title: 'System',
      value: ({ inventory }: Host) =>
        `${inventory.operatingSystem} ${inventory.operatingSystemVersion}, kernel ${inventory.kernel}, ${inventory.architecture}`,
    },
    { title: 'Addresses', value: (host: Host) => host.inventory.addresses.join(', ') },
    { title: 'Boot', value: (host: Host) => host.bootId },
    {
      title: 'Sensors',
      value: (host: Host) =>
        host.sensors
          .map(
            (each) =>
              `${each.name} ${each.inForce ? 'in force' : 'NOT in force'} (${each.reason}), seen ${each.seen}, lost ${each.lost}`,
          )
          .join('; '),
    },
    { title: 'Buffer', value: (host: Host) => `${host.bufferedRows} rows wait, ${host.droppedRows} dropped` },
  ]
}
