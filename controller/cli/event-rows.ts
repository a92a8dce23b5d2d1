/** Stored events as the CLI reads them: by field name, for a newer agent may report what is not known here. */
import Type, { type Static } from 'typebox'
import type { EventQuery } from '../store/event-store.ts'
import type { CommandContext } from './command.ts'
import { printable } from './printable.ts'
import type { Column, Printer } from './printer.ts'

export const EventRow = Type.Object({
  cursor: Type.String(),
  agentId: Type.String(),
  event: Type.Record(Type.String(), Type.Unknown()),
})
export type EventRow = Static<typeof EventRow>
const EventRows = Type.Object({ events: Type.Array(EventRow) })

export type EventQueryTexts = Partial<Record<keyof EventQuery, string | number>> & { readonly limit: number }

export async function queryEvents(context: CommandContext, query: EventQueryTexts): Promise<EventRow[]> {
  return (await context.client().show('/events', EventRows, query)).events
}

export function textOf({ event }: EventRow, name: string): string | undefined {
  const value = Object.hasOwn(event, name) ? event[name] : undefined
  return typeof value === 'string' ? value : typeof value === 'number' ? String(value) : undefined
}

const SCRIPT_CHARACTERS_SHOWN = 80

/** What an event is about, in a few words. */
function subjectOf(row: EventRow): string {
  const destination = textOf(row, 'destination.ip')
  const parts = [
    textOf(row, 'rule.name'),
    textOf(row, 'cordon.operation'),
    textOf(row, 'user.target.name') ?? textOf(row, 'group.name') ?? textOf(row, 'service.name'),
    textOf(row, 'dns.question.name') ??
      textOf(row, 'cordon.module.name') ??
      textOf(row, 'cordon.bpf.program_name'),
    textOf(row, 'cordon.target.pid') && `pid ${textOf(row, 'cordon.target.pid')}`,
    textOf(row, 'cordon.script.content')?.slice(0, SCRIPT_CHARACTERS_SHOWN),
    textOf(row, 'file.path') ?? textOf(row, 'file.name'),
    textOf(row, 'server.ip') && `${textOf(row, 'server.ip')}:${textOf(row, 'server.port') ?? '?'}`,
    destination && `${destination}:${textOf(row, 'destination.port') ?? '?'}`,
    textOf(row, 'process.command_line') ?? textOf(row, 'process.executable'),
    textOf(row, 'cordon.command.state'),
    textOf(row, 'event.reason'),
    textOf(row, 'process.exit_code') && `exit code ${textOf(row, 'process.exit_code')}`,
  ]
  return parts.filter((part) => part !== undefined && part !== '').join('  ')
}

export function eventColumns(
  print: Printer,
  hostNames: ReadonlyMap<string, string>,
): readonly Column<EventRow>[] {
  return [
    { title: 'time', value: (row) => print.moment(textOf(row, '@timestamp')) },
    { title: 'host', value: (row) => hostNames.get(row.agentId) ?? row.agentId.slice(0, 8), gives: true },
    { title: 'action', value: (row) => textOf(row, 'event.action') },
    {
      title: 'process',
      value: (row) => {
        const pid = textOf(row, 'process.pid')
        return textOf(row, 'process.name') ?? textOf(row, 'process.executable') ?? (pid && `pid ${pid}`)
      },
      gives: true,
    },
    { title: 'subject', value: subjectOf, gives: true },
    { title: 'entity', value: (row) => textOf(row, 'process.entity_id'), wide: true },
    { title: 'cursor', value: (row) => row.cursor, wide: true },
  ]
}

export function eventLine(row: EventRow, print: Printer, hostNames: ReadonlyMap<string, string>): string {
  const host = hostNames.get(row.agentId) ?? row.agentId.slice(0, 8)
  const action = (textOf(row, 'event.action') ?? '?').padEnd(14)
  const pid = textOf(row, 'process.pid') ?? '-'
  return `${print.moment(textOf(row, '@timestamp'))}  ${printable(`${host}  ${action}  ${pid}  ${subjectOf(row)}`)}`
}
