/** Hosts: which there are, how they are, what to scan on them. */
import { Contenders, Done, Renewals, TokenAnswer } from '../../api/schemas.ts'
import type { Host } from '../../api/services.ts'
import { carryOut, requestFrom } from '../action-flow.ts'
import { type Command, type CommandContext, EXIT, Failure, usage } from '../command.ts'
import { type EventRow, queryEvents, textOf } from '../event-rows.ts'
import { printable } from '../printable.ts'
import { findHost, readHosts } from '../records.ts'
import { isolationAtLength, isolationBriefly } from './isolation.ts'

const STATE_COLOURS = {
  connected: 'green',
  silent: 'orange',
  stopped: 'orange',
  held: 'red',
  revoked: 'grey',
} as const
/** Blind times of a host that are listed with it. */
const LOSSES_MAX = 20

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
            value: (host) => [host.state, isolationBriefly(host)].filter(Boolean).join(', '),
            colour: (host) => (isolationBriefly(host) === '' ? STATE_COLOURS[host.state] : 'red'),
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
          { title: 'notice', value: ({ notice }) => notice, gives: true },
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
      const contenders =
        host.state === 'held'
          ? (await context.client().get(`/hosts/${host.agentId}/contenders`, Contenders)).contenders
          : []
      const losses = await queryEvents(context, {
        agentId: host.agentId,
        action: 'gap',
        order: 'descending',
        limit: LOSSES_MAX,
      })
      const fields = [
        ...hostFields(context, host),
        ...contenders.map(({ bootId, hostName, address, seenAt }) => ({
          title: 'Contender',
          value: () => `boot ${bootId}: ${hostName} at ${address}, seen ${context.print.time(seenAt)}`,
        })),
        ...losses.map((row) => ({ title: 'Loss', value: () => lossInWords(row) })),
      ]
      context.print.record(host, fields, host.agentId)
      return EXIT.ok
    },
  },
  {
    name: 'host readmit',
    summary: 'let a held host go on: its identity was used by two',
    example: 'cordon host readmit web-1 --boot 3f9c21d0 --reason "the clone is switched off"',
    arguments: [HOST],
    options: [
      { flags: '--boot <id>', summary: 'boot of the right one, or its first digits (cordon host get)' },
      { flags: '--reason <text>', summary: 'how it is known to be the right one; for the audit log' },
    ],
    async run(context) {
      const { options } = context
      const reason = options.required('reason')
      const host = findHost(await readHosts(context), context.arguments[0] ?? '')
      const { contenders } = await context.client().get(`/hosts/${host.agentId}/contenders`, Contenders)
      const asked = options.text('boot')
      const boots = [...new Set(contenders.map(({ bootId }) => bootId))]
      const named = boots.filter((boot) => asked !== undefined && boot.startsWith(asked))
      if (asked !== undefined && named.length !== 1) {
        const who = named.length === 0 ? 'no contender has' : `${named.length} contenders have`
        throw usage(`${who} a boot ${printable(asked)}`, `Known: ${boots.join(', ') || 'none'}`)
      }
      const bootId = named[0] ?? null
      if (bootId === null && boots.length > 1) {
        throw usage(
          `${boots.length} boots use this identity`,
          `Say which is the right one: --boot ${boots.join(' | ')}`,
        )
      }
      await context.client().send('POST', `/hosts/${host.agentId}/readmit`, Done, { reason, bootId })
      context.note(`${printable(host.hostName)} is readmitted; it renews its certificate when it connects.`)
      return EXIT.ok
    },
  },
  {
    name: 'host renewals',
    summary: 'list hosts whose certificate ran out while they were away',
    example: 'cordon host renewals',
    async run(context) {
      const { print } = context
      const { renewals } = await context.client().get('/renewals', Renewals)
      print.list(
        renewals,
        [
          { title: 'host', value: ({ hostName }) => hostName, gives: true },
          { title: 'agent', value: ({ agentId }) => agentId.slice(0, 8) },
          { title: 'ran out', value: ({ expiredAt }) => print.time(expiredAt) },
          { title: 'asked', value: ({ askedAt }) => print.time(askedAt) },
          { title: 'from', value: ({ address }) => address, gives: true },
          { title: 'new key', value: ({ keyFingerprint }) => keyFingerprint, wide: true },
        ],
        { name: ({ agentId }) => agentId, none: 'No host waits for a renewal.' },
      )
      return EXIT.ok
    },
  },
  {
    name: 'host approve-renewal',
    summary: 'give a host whose certificate ran out another one',
    example: 'cordon host approve-renewal web-1 --reason "was in the cupboard for a month"',
    arguments: [HOST],
    options: [{ flags: '--reason <text>', summary: 'how it is known to be the host; for the audit log' }],
    async run(context) {
      const reason = context.options.required('reason')
      const host = findHost(await readHosts(context), context.arguments[0] ?? '')
      await context.client().send('POST', `/hosts/${host.agentId}/approve-renewal`, Done, { reason })
      context.note(`${printable(host.hostName)} gets its certificate when it asks again, within a minute.`)
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
    ...(host.notice === null ? [] : [{ title: 'Notice', value: () => host.notice }]),
    { title: 'Isolation', value: () => isolationAtLength(host, print) },
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

function lossInWords(row: EventRow): string {
  const field = (name: string) => textOf(row, name)
  const range =
    field('cordon.gap.from') === undefined
      ? 'before they were numbered'
      : `${field('cordon.gap.from')} to ${field('cordon.gap.to')}`
  const what = `class ${field('cordon.gap.class')}, ${field('cordon.gap.count') ?? 'nobody knows how many'} rows, ${range}`
  return `${field('cordon.gap.started')} to ${field('cordon.gap.ended')}: ${what}; ${field('event.reason')}`
}
