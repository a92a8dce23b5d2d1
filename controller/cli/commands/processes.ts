/** Processes and files on hosts: how they hang together, and ending or taking them away. */
import type { ProcessTarget } from '../../../shared/protocol/commands.ts'
import { Processes } from '../../api/schemas.ts'
import type { Host } from '../../api/services.ts'
import type { ProcessNode } from '../../incidents/incident.ts'
import { carryOut, requestFrom } from '../action-flow.ts'
import { type Command, type CommandContext, EXIT, Failure, usage } from '../command.ts'
import { queryEvents, textOf } from '../event-rows.ts'
import { COMMAND_CHARACTERS, readTree, treeLines } from '../process-tree.ts'
import { findHost, incidentId, readHosts } from '../records.ts'

/** Of Linux on 64 bits (proc(5)). */
const PID_MAX = 4_194_304
const ENTITY = /^([0-9a-f]{8})\.([0-9a-f]{8})\.([0-9]{1,10})\.([0-9]{1,15})$/

export const PROCESS_COMMANDS: readonly Command[] = [
  {
    name: 'proc tree',
    summary: 'show the processes of an incident, or those around one process',
    example: 'cordon proc tree INC-1',
    arguments: [{ form: '[what]', summary: 'an incident, as in INC-1, or the entity id of a process' }],
    options: [{ flags: '--incident <id>', summary: 'show the processes of this incident' }],
    async run(context) {
      const [named] = context.arguments
      const isIncident = named !== undefined && /^(INC-)?[0-9]+$/i.test(named)
      const entity = isIncident ? undefined : named
      const incident = context.options.text('incident') ?? (isIncident ? named : undefined)
      if ((entity === undefined) === (incident === undefined)) {
        throw usage('name an incident, as in INC-1, or the entity id of a process', 'cordon incident ls')
      }
      const nodes: readonly ProcessNode[] =
        incident === undefined
          ? await readTree(context, checkedEntity(entity ?? ''))
          : (await context.client().show(`/incidents/${incidentId(incident)}/processes`, Processes)).processes
      if (nodes.length === 0) context.note('No processes are known.')
      context.print.block(
        nodes,
        treeLines(
          nodes,
          context.print,
          context.options.text('output') === 'wide' ? undefined : COMMAND_CHARACTERS,
        ),
        nodes.map(({ entityId }) => entityId).join('\n'),
      )
      return EXIT.ok
    },
  },
  {
    name: 'proc kill',
    summary: 'end processes; final',
    example: 'cordon proc kill a1b2c3d4.0badcafe.4242.987654 --tree --reason "INC-1" --wait',
    arguments: [{ form: '<entity...>', summary: 'entity ids, as `cordon proc tree` prints them' }],
    options: [{ flags: '--tree', summary: 'end the descendants, too' }],
    changes: true,
    async run(context) {
      const hosts = await readHosts(context)
      const asked = await Promise.all(
        [...new Set(context.arguments)].map((entity) => processTarget(context, hosts, entity)),
      )
      const targets = asked.map(({ host, target }) => ({ agentId: host.agentId, target }))
      const args = { tree: context.options.has('tree') }
      return carryOut(context, requestFrom(context, { action: 'killProcess', args, targets }), [
        ...new Set(asked.map(({ host }) => host)),
      ])
    },
  },
  {
    name: 'file quarantine',
    summary: 'move a file out of reach into the encrypted quarantine of its host',
    example: 'cordon file quarantine --host web-1 --path /tmp/x --reason "INC-1" --wait',
    arguments: [
      { form: '[host]', summary: 'the host, instead of --host' },
      { form: '[path]', summary: 'the path, instead of --path' },
    ],
    options: [
      { flags: '--host <host>', summary: 'name of the host, agent id, or its first digits' },
      { flags: '--path <path>', summary: 'absolute path on the host' },
    ],
    changes: true,
    async run(context) {
      const [hostNamed, pathNamed] = context.arguments
      const asked = hostNamed ?? context.options.required('host')
      const path = pathNamed ?? context.options.required('path')
      const host = findHost(await readHosts(context), asked)
      const target = await fileTarget(context, host, path)
      const targets = [{ agentId: host.agentId, target }]
      return carryOut(context, requestFrom(context, { action: 'quarantineFile', args: {}, targets }), [host])
    },
  },
]

function checkedEntity(text: string): string {
  if (ENTITY.test(text)) return text
  throw usage('an entity id is as in a1b2c3d4.0badcafe.4242.987654', 'cordon proc tree INC-1 prints them.')
}

/** A process by what cannot be reused: the id says host, boot, pid and start; the executable comes from its events. */
async function processTarget(
  context: CommandContext,
  hosts: readonly Host[],
  entity: string,
): Promise<{ host: Host; target: ProcessTarget }> {
  const [, agent = '', boot = '', pid = '', ticks = ''] = ENTITY.exec(checkedEntity(entity)) ?? []
  if (Number(pid) < 2) throw usage('the first process of a host is never ended')
  if (Number(pid) > PID_MAX) throw usage(`${entity} names no process: a pid is at most ${PID_MAX}`)
  const host = findHost(hosts, agent)
  if (!host.bootId?.replaceAll('-', '').startsWith(boot)) {
    throw new Failure(
      EXIT.notFound,
      'notFound',
      `${entity} ended with an earlier boot of ${host.hostName}`,
      'The host has started anew since, or was never heard.',
    )
  }
  const events = await queryEvents(context, {
    agentId: host.agentId,
    entityId: entity,
    order: 'descending',
    limit: 200,
  })
  const sha256 = events
    .map((row) => textOf(row, 'process.hash.sha256'))
    .find((value) => /^[0-9a-f]{64}$/.test(value ?? ''))
  return {
    host,
    target: {
      kind: 'process',
      pid: Number(pid),
      startTicks: Number(ticks),
      bootId: host.bootId,
      executableSha256: sha256 ?? null,
    },
  }
}

/** A file by what was last read of it. What nobody has examined cannot be named safely. */
async function fileTarget(context: CommandContext, host: Host, path: string) {
  const known = await Promise.all(
    ['file-examined', 'detection'].map((action) =>
      queryEvents(context, { agentId: host.agentId, path, action, order: 'descending', limit: 20 }),
    ),
  )
  const [latest] = known
    .flat()
    .filter((row) => /^[0-9a-f]{64}$/.test(textOf(row, 'file.hash.sha256') ?? ''))
    .sort((left, right) =>
      (textOf(right, '@timestamp') ?? '').localeCompare(textOf(left, '@timestamp') ?? ''),
    )
  if (!latest) {
    throw new Failure(
      EXIT.notFound,
      'notFound',
      `${host.hostName} has never reported the content of ${path}`,
      `Scan it first: cordon host scan ${host.hostName} ${path} --reason WHY --wait`,
    )
  }
  const number = (name: string) => {
    const text = textOf(latest, name)
    return text !== undefined && /^[0-9]{1,20}$/.test(text) ? text : null
  }
  const bytes = latest.event['cordon.bytes']
  const pathBytes =
    typeof bytes === 'object' && bytes !== null ? (bytes as Record<string, unknown>)['file.path'] : null
  return {
    kind: 'file' as const,
    path,
    pathBytes: typeof pathBytes === 'string' ? pathBytes : null,
    device: number('file.device'),
    inode: number('file.inode'),
    sha256: textOf(latest, 'file.hash.sha256') ?? '',
  }
}
