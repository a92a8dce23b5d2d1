/** One incident on a page: what it is, when it became what, why it hangs together, and what to do next. */
import { Actions, Detections, Processes } from '../api/schemas.ts'
import { actionInWords, proofInWords } from '../dispatch/action-words.ts'
import { type DetectionRecord, Incident } from '../incidents/incident.ts'
import type { CommandContext } from './command.ts'
import { type IncidentStory, nextSteps } from './next-steps.ts'
import { printable } from './printable.ts'
import { type Printer, severityColumn } from './printer.ts'
import { COMMAND_CHARACTERS, treeLines } from './process-tree.ts'
import { readHosts } from './records.ts'

const DETECTIONS_SHOWN = 20
const PROCESS_LINES_SHOWN = 40
const ACTIONS_SHOWN = 20
const ACTIONS_READ_MAX = 1_000

export async function readStory(context: CommandContext, id: string): Promise<IncidentStory> {
  const client = context.client()
  const incident = await client.show(`/incidents/${id}`, Incident)
  const [{ detections }, { processes }, { actions }, hosts] = await Promise.all([
    client.show(`/incidents/${id}/detections`, Detections),
    client.show(`/incidents/${id}/processes`, Processes),
    client.show('/actions', Actions, { incidentId: id, limit: ACTIONS_READ_MAX }),
    readHosts(context),
  ])
  return { incident, detections, processes, actions, hosts }
}

export function storyLines(story: IncidentStory, print: Printer): string[] {
  const next = nextSteps(story).flatMap(({ why, command }) => [
    `  ${printable(why)}`,
    ...(command === null ? [] : [`    ${printable(command)}`]),
  ])
  return [
    ...headLines(story, print),
    ...section('DETECTIONS', detectionLines(story)),
    ...section(
      'PROCESSES',
      shortened(
        treeLines(story.processes, print, COMMAND_CHARACTERS),
        PROCESS_LINES_SHOWN,
        `cordon proc tree ${story.incident.id}`,
      ),
    ),
    ...section('ACTIONS', actionLines(story)),
    ...section('NEXT', next),
  ]
}

function section(title: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : ['', title, ...lines]
}

function shortened(lines: readonly string[], max: number, command: string): string[] {
  const indented = lines.slice(0, max).map((line) => `  ${line}`)
  return lines.length > max ? [...indented, `  (${lines.length - max} more: ${command})`] : indented
}

function headLines({ incident, hosts }: IncidentStory, print: Printer): string[] {
  const began = Date.parse(incident.startedAt)
  const when = (moment: string | null) =>
    moment === null ? '-' : `${print.moment(moment)}  ${after(Date.parse(moment) - began)}`
  const states = new Map(hosts.map(({ agentId, state }) => [agentId, state]))
  const names = incident.hosts.map(
    ({ agentId, hostName }) => `${hostName} (${states.get(agentId) ?? 'unknown'})`,
  )
  const fields: readonly (readonly [string, string])[] = [
    ['Status', incident.status],
    ['Severity', String(severityColumn<Incident>().value(incident))],
    ['Hosts', `${names.slice(0, 10).join(', ')}${names.length > 10 ? ` and ${names.length - 10} more` : ''}`],
    ['Assignee', incident.assignee ?? '-'],
    ['Began', print.moment(incident.startedAt)],
    ['Detected', when(incident.detectedAt)],
    ['Opened', when(incident.openedAt)],
    ['Contained', when(incident.containedAt)],
  ]
  return [
    `${incident.id}  ${printable(incident.title)}`,
    '',
    ...fields.map(([title, text]) => `${title.padEnd(11)}${printable(text)}`),
  ]
}

function detectionLines({ incident, detections }: IncidentStory): string[] {
  const began = Date.parse(incident.startedAt)
  let before: string | null = null
  const lines = detections.slice(0, DETECTIONS_SHOWN).flatMap((one) => {
    const indent = ' '.repeat(12)
    // One process often is detected several times: its command line is told once.
    const command = one.commandLine === before ? null : one.commandLine
    before = one.commandLine
    const subject = [one.filePath ?? one.indicator, command].filter((text) => text !== null)
    return [
      `  ${String(severityColumn<DetectionRecord>().value(one)).padEnd(10)}${printable(one.ruleName)} (${printable(one.engine)}) by ${processOf(one)} on ${printable(one.hostName)}, ${after(Date.parse(one.detectedAt) - began)}`,
      ...subject.map((text) => `${indent}${printable(text)}`),
      `${indent}why here: ${printable(one.groupedBecause)}`,
    ]
  })
  const more = detections.length - DETECTIONS_SHOWN
  return more > 0 ? [...lines, `  (${more} more: cordon detection ls ${incident.id})`] : lines
}

function processOf({ entityId, processName }: DetectionRecord): string {
  if (entityId === null) return 'a process that is not known'
  return `${printable(processName ?? 'a process')} (pid ${entityId.split('.')[2]})`
}

function actionLines({ incident, actions }: IncidentStory): string[] {
  const lines = actions
    .slice(0, ACTIONS_SHOWN)
    .reverse()
    .flatMap((action) => {
      const last = action.steps.at(-1)
      const proof = last === undefined ? '' : proofInWords(last.proof)
      const told = [last?.reason ?? '', proof].filter((text) => text !== '')
      return [
        `  ${action.state.padEnd(10)}${printable(actionInWords(action))} on ${printable(action.hostName)}, by ${printable(action.requestedBy)}  [${action.id.slice(0, 12)}]`,
        ...told.map((text) => `${' '.repeat(12)}${printable(text)}`),
      ]
    })
  const more = actions.length - ACTIONS_SHOWN
  return more > 0 ? [...lines, `  (${more} more: cordon action ls ${incident.id})`] : lines
}

/** Such as `+312 ms` or `+2 h 5 min`. */
function after(durationMs: number): string {
  const sign = durationMs < 0 ? '-' : '+'
  const ms = Math.abs(durationMs)
  if (ms < 10_000) return `${sign}${ms} ms`
  const seconds = Math.round(ms / 1_000)
  if (seconds < 120) return `${sign}${seconds} s`
  const minutes = Math.round(seconds / 60)
  if (minutes < 120) return `${sign}${minutes} min`
  const hours = Math.round(minutes / 60)
  return hours < 48 ? `${sign}${hours} h` : `${sign}${Math.round(hours / 24)} days`
}
