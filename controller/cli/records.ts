/** Columns of the records that several commands show, and how an operator's words find one. */
import { Actions, Hosts } from '../api/schemas.ts'
import type { Host } from '../api/services.ts'
import { Action } from '../dispatch/action.ts'
import { targetInWords } from '../dispatch/action-words.ts'
import type { DetectionRecord } from '../incidents/incident.ts'
import { type CommandContext, EXIT, Failure, usage } from './command.ts'
import type { Column, Printer } from './printer.ts'
import { severityColumn } from './printer.ts'

export const ACTION_COLUMNS = (print: Printer): readonly Column<Action>[] => [
  { title: 'id', value: ({ id }) => id.slice(0, 12), plain: ({ id }) => id },
  { title: 'state', value: ({ state }) => state },
  { title: 'action', value: ({ action }) => action },
  { title: 'target', value: (action) => targetInWords(action), gives: true },
  { title: 'host', value: ({ hostName }) => hostName, gives: true },
  { title: 'incident', value: ({ incidentId }) => incidentId },
  { title: 'by', value: ({ requestedBy }) => requestedBy },
  { title: 'created', value: ({ createdAt }) => print.time(createdAt) },
  { title: 'expires', value: ({ expiresAt }) => print.time(expiresAt), wide: true },
  { title: 'reason', value: ({ reason }) => reason, gives: true },
]

export const DETECTION_COLUMNS = (print: Printer): readonly Column<DetectionRecord>[] => [
  severityColumn<DetectionRecord>(),
  { title: 'time', value: ({ detectedAt }) => print.time(detectedAt) },
  { title: 'rule', value: ({ ruleName }) => ruleName, gives: true },
  { title: 'engine', value: ({ engine }) => engine },
  { title: 'host', value: ({ hostName }) => hostName, gives: true },
  { title: 'incident', value: ({ incidentId }) => incidentId },
  { title: 'entity', value: ({ entityId }) => entityId },
  { title: 'file', value: ({ filePath }) => filePath, gives: true },
  { title: 'command', value: ({ commandLine }) => commandLine, gives: true },
  { title: 'indicator', value: ({ indicator }) => indicator, wide: true },
  { title: 'because', value: ({ groupedBecause }) => groupedBecause, wide: true },
]

export async function readHosts(context: CommandContext): Promise<readonly Host[]> {
  return (await context.client().show('/hosts', Hosts)).hosts
}

/** By name, by id, or by the beginning of the id. */
export function findHost(hosts: readonly Host[], asked: string): Host {
  const exact = hosts.filter(({ agentId, hostName }) => agentId === asked || hostName === asked)
  const begins = /^[0-9a-f]{4,}$/.test(asked) ? hosts.filter(({ agentId }) => agentId.startsWith(asked)) : []
  const found = exact.length > 0 ? exact : begins
  const [host, another] = found
  if (host && !another) return host
  if (another) throw usage(`${found.length} hosts are called ${asked}`, 'Use the agent id: cordon host ls')
  throw new Failure(EXIT.notFound, 'notFound', `there is no host ${asked}`, 'cordon host ls')
}

/** By id, or by its beginning when that is one action's alone. */
export async function findAction(context: CommandContext, asked: string): Promise<Action> {
  if (!/^[0-9a-f]{4,32}$/.test(asked)) throw usage('an action id is hexadecimal, at least 4 digits of it')
  if (asked.length === 32) return context.client().get(`/actions/${asked}`, Action)
  const { actions } = await context.client().show('/actions', Actions, { limit: 10_000 })
  const found = actions.filter(({ id }) => id.startsWith(asked))
  const [action, another] = found
  if (action && !another) return action
  if (another) throw usage(`${found.length} actions begin with ${asked}`, 'Give more digits.')
  throw new Failure(EXIT.notFound, 'notFound', `there is no action ${asked}`, 'cordon action ls')
}

export function incidentId(asked: string | undefined): string {
  const id = /^[0-9]+$/.test(asked ?? '') ? `INC-${asked}` : (asked ?? '').toUpperCase()
  if (!/^INC-[0-9]{1,12}$/.test(id)) throw usage('an incident is named as in INC-1')
  return id
}
