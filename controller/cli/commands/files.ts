/** Files of hosts: copying them here, saving the copies, and putting back what is in quarantine. */
import { COLLECT_BYTES_MAX } from '../../../shared/protocol/limits.ts'
import { Actions, EvidenceList } from '../../api/schemas.ts'
import type { Action } from '../../dispatch/action.ts'
import { Evidence } from '../../evidence/record.ts'
import { carryOut, requestFrom } from '../action-flow.ts'
import { type Command, type CommandContext, EXIT, Failure, usage } from '../command.ts'
import type { Column, Printer } from '../printer.ts'
import { bytesText } from '../progress.ts'
import { findAction, findHost, readHosts } from '../records.ts'
import { saveEvidence } from '../save-evidence.ts'

const BYTES_MAX_DEFAULT = 1024 ** 3
const UNITS: Readonly<Record<string, number>> = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 }

const EVIDENCE_COLUMNS = (print: Printer): readonly Column<Evidence>[] => [
  { title: 'id', value: ({ id }) => id.slice(0, 12), plain: ({ id }) => id },
  { title: 'state', value: stateText },
  { title: 'host', value: ({ hostName }) => hostName, gives: true },
  { title: 'size', value: ({ sizeBytes }) => bytesText(sizeBytes), plain: ({ sizeBytes }) => sizeBytes },
  { title: 'path', value: ({ path }) => path, gives: true },
  { title: 'sha-256', value: ({ sha256 }) => sha256.slice(0, 16), plain: ({ sha256 }) => sha256 },
  { title: 'collected', value: ({ collectedAt }) => print.time(collectedAt) },
  { title: 'changed', value: ({ changedWhileRead }) => (changedWhileRead ? 'while read' : '-'), wide: true },
  { title: 'reason', value: ({ reason }) => reason, wide: true },
]

const QUARANTINE_COLUMNS = (print: Printer): readonly Column<Action>[] => [
  { title: 'id', value: ({ id }) => id.slice(0, 12), plain: ({ id }) => id },
  { title: 'host', value: ({ hostName }) => hostName, gives: true },
  { title: 'path', value: ({ target }) => ('path' in target ? target.path : '-'), gives: true },
  { title: 'sha-256', value: (action) => sha256Of(action)?.slice(0, 16), plain: sha256Of },
  { title: 'taken', value: ({ steps }) => print.time(steps.at(-1)?.at) },
  { title: 'reason', value: ({ reason }) => reason, gives: true },
]

export const FILE_COMMANDS: readonly Command[] = [
  {
    name: 'file collect',
    summary: 'copy a file from a host to the controller, as evidence',
    example: 'cordon file collect web-1 /var/log/auth.log --reason "INC-1" --wait',
    arguments: [
      { form: '<host>', summary: 'name of the host, agent id, or its first digits' },
      { form: '<path>', summary: 'absolute path on the host' },
    ],
    options: [
      { flags: '--max-bytes <size>', summary: 'refuse a larger file, as in 500M (default 1G, at most 16G)' },
    ],
    changes: true,
    async run(context) {
      const [asked = '', path = ''] = context.arguments
      if (!path.startsWith('/')) throw usage('the path on the host begins with /')
      const host = findHost(await readHosts(context), asked)
      const args = { bytesMax: parseBytes(context.options.text('maxBytes')) }
      const target = { kind: 'evidenceFile' as const, path, pathBytes: null }
      const targets = [{ agentId: host.agentId, target }]
      return carryOut(context, requestFrom(context, { action: 'collectFile', args, targets }), [host])
    },
  },
  {
    name: 'file ls',
    summary: 'list collected files, and those on their way',
    example: 'cordon file ls --host web-1',
    options: [
      { flags: '--host <host>', summary: 'only from this host' },
      { flags: '--limit <count>', summary: 'at most so many (default 100)' },
    ],
    async run(context) {
      const { evidence } = await context.client().show('/evidence', EvidenceList, {
        agentId: await hostNamed(context),
        limit: context.options.whole('limit', 100, 10_000),
      })
      context.print.list(evidence, EVIDENCE_COLUMNS(context.print), {
        name: ({ id }) => id,
        none: 'No files were collected.',
      })
      return EXIT.ok
    },
  },
  {
    name: 'file get',
    summary: 'save a collected file; goes on where it broke off',
    example: 'cordon file get 1f2e auth.log',
    arguments: [
      { form: '<action>', summary: 'id of the action that collected it, or its first digits' },
      { form: '[file]', summary: 'where to (default evidence-ACTION, here)' },
    ],
    async run(context) {
      const [asked = '', named] = context.arguments
      const id = asked.length === 32 ? asked : (await findAction(context, asked)).id
      const evidence = await context.client().get(`/evidence/${id}`, Evidence)
      if (evidence.state !== 'complete') {
        throw new Failure(
          EXIT.failed,
          'notWhole',
          `the file is not whole: ${stateText(evidence)}`,
          'cordon file ls',
        )
      }
      // No name that a host chose: it may be one that means something here.
      const path = named ?? `evidence-${id.slice(0, 12)}`
      await saveEvidence(context, evidence, path)
      context.note(`${bytesText(evidence.sizeBytes)} are in ${path}, with the hash of the record.`)
      context.print.block({ ...evidence, savedAs: path }, [], path)
      return EXIT.ok
    },
  },
  {
    name: 'file quarantined',
    summary: 'list files in the quarantines of hosts',
    example: 'cordon file quarantined --host web-1',
    options: [
      { flags: '--host <host>', summary: 'only on this host' },
      { flags: '--limit <count>', summary: 'at most so many (default 100)' },
    ],
    async run(context) {
      const { actions } = await context.client().show('/actions', Actions, {
        action: 'quarantineFile',
        state: 'done',
        agentId: await hostNamed(context),
        limit: context.options.whole('limit', 100, 10_000),
      })
      context.print.list(actions, QUARANTINE_COLUMNS(context.print), {
        name: ({ id }) => id,
        none: 'Nothing is in quarantine.',
      })
      return EXIT.ok
    },
  },
  {
    name: 'file restore',
    summary: 'put a quarantined file back into its place, as it was',
    example: 'cordon file restore 1f2e --reason "false alarm" --wait',
    arguments: [{ form: '<action>', summary: 'id of the action that quarantined it, or its first digits' }],
    changes: true,
    async run(context) {
      const taken = await findAction(context, context.arguments[0] ?? '')
      const { target } = taken
      if (taken.action !== 'quarantineFile' || target.kind !== 'file') {
        throw usage(`${taken.id.slice(0, 12)} quarantined nothing`, 'cordon file quarantined')
      }
      if (taken.state !== 'done') {
        throw usage(
          `${taken.id.slice(0, 12)} is ${taken.state}: nothing of it is in quarantine`,
          'cordon file quarantined',
        )
      }
      const { path, pathBytes, sha256 } = target
      const restored = {
        kind: 'quarantinedFile' as const,
        quarantineId: quarantineIdOf(taken),
        path,
        pathBytes,
        sha256,
      }
      const targets = [{ agentId: taken.agentId, target: restored }]
      const host = findHost(await readHosts(context), taken.agentId)
      return carryOut(context, requestFrom(context, { action: 'restoreFile', args: {}, targets }), [host])
    },
  },
]

async function hostNamed(context: CommandContext): Promise<string | undefined> {
  const asked = context.options.text('host')
  return asked === undefined ? undefined : findHost(await readHosts(context), asked).agentId
}

/** A file that was in quarantine already stays there under the command that took it. */
function quarantineIdOf({ id, steps }: Action): string {
  const told = steps.at(-1)?.proof['quarantineId']
  return typeof told === 'string' && /^[0-9a-f]{32}$/.test(told) ? told : id
}

function sha256Of({ target }: Action): string | undefined {
  return 'sha256' in target ? target.sha256 : undefined
}

function stateText({ state, receivedBytes, sizeBytes, reason }: Evidence): string {
  if (state === 'failed') return `failed${reason === null ? '' : `: ${reason}`}`
  if (state === 'complete') return 'whole'
  return `${Math.floor((100 * receivedBytes) / Math.max(1, sizeBytes))}% here`
}

function parseBytes(text: string | undefined): number {
  if (text === undefined) return BYTES_MAX_DEFAULT
  const [, count = '', unit = ''] = /^([0-9]{1,11})([kmg]?)$/i.exec(text) ?? []
  const bytes = Number(count) * (UNITS[unit.toLowerCase()] ?? 0)
  if (bytes >= 1 && bytes <= COLLECT_BYTES_MAX) return bytes
  throw usage('--max-bytes takes a size such as 4096, 500K, 20M or 2G, at most 16G')
}
