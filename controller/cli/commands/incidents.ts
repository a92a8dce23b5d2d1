/** Incidents and detections. */
import { Detections, Done, Incidents, Timeline } from '../../api/schemas.ts'
import { type DetectionRecord, INCIDENT_STATUSES, Incident } from '../../incidents/incident.ts'
import { type Command, EXIT } from '../command.ts'
import { printable } from '../printable.ts'
import { severityColumn } from '../printer.ts'
import { DETECTION_COLUMNS, incidentId } from '../records.ts'

const ID = { form: '<id>', summary: 'as in INC-1' }
const LIMIT = { flags: '--limit <count>', summary: 'at most so many (default 100)' }
/** Without --incident, detections are read incident by incident. */
const INCIDENTS_READ_MAX = 50

export const INCIDENT_COMMANDS: readonly Command[] = [
  {
    name: 'incident ls',
    summary: 'list incidents; closed ones only when asked',
    example: 'cordon incident ls --status open',
    options: [
      { flags: '--status <status>', summary: 'only these', choices: INCIDENT_STATUSES },
      { flags: '--all', summary: 'closed ones, too' },
      LIMIT,
    ],
    async run({ client, print, options }) {
      const status = options.text('status')
      const limit = options.whole('limit', 100, 10_000)
      const { incidents } = await client().show('/incidents', Incidents, { status, limit })
      const hidesClosed = status === undefined && !options.has('all')
      const shown = incidents.filter((each) => !hidesClosed || each.status !== 'closed')
      print.list(
        shown,
        [
          { title: 'id', value: ({ id }) => id },
          severityColumn<Incident>(),
          { title: 'status', value: ({ status: of }) => of },
          { title: 'title', value: ({ title }) => title, gives: true },
          {
            title: 'hosts',
            value: ({ hosts }) => hosts.map(({ hostName }) => hostName).join(', '),
            gives: true,
          },
          { title: 'detected', value: ({ detectedAt }) => print.time(detectedAt) },
          { title: 'detections', value: ({ detectionCount }) => detectionCount, wide: true },
          { title: 'actions', value: ({ actionCount }) => actionCount, wide: true },
          { title: 'contained', value: ({ containedAt }) => print.time(containedAt), wide: true },
          { title: 'assignee', value: ({ assignee }) => assignee, wide: true },
        ],
        { name: ({ id }) => id, none: 'No incidents are open.' },
      )
      return EXIT.ok
    },
  },
  {
    name: 'incident get',
    summary: 'show one incident',
    example: 'cordon incident get INC-1',
    arguments: [ID],
    async run({ client, print, arguments: [asked] }) {
      const incident = await client().show(`/incidents/${incidentId(asked)}`, Incident)
      print.record(
        incident,
        [
          { title: 'Incident', value: ({ id, title }) => `${id}  ${title}` },
          { title: 'Status', value: ({ status }) => status },
          { title: 'Severity', value: severityColumn<Incident>().value },
          { title: 'Began', value: ({ startedAt }) => print.time(startedAt) },
          { title: 'Detected', value: ({ detectedAt }) => print.time(detectedAt) },
          { title: 'Opened', value: ({ openedAt }) => print.time(openedAt) },
          { title: 'Contained', value: ({ containedAt }) => print.time(containedAt) },
          { title: 'Hosts', value: ({ hosts }) => hosts.map(({ hostName }) => hostName).join(', ') },
          { title: 'Detections', value: ({ detectionCount }) => detectionCount },
          { title: 'Actions', value: ({ actionCount }) => actionCount },
          { title: 'Assignee', value: ({ assignee }) => assignee },
        ],
        incident.id,
      )
      return EXIT.ok
    },
  },
  {
    name: 'incident timeline',
    summary: 'show what happened, in order',
    example: 'cordon incident timeline INC-1',
    arguments: [ID],
    async run({ client, print, arguments: [asked] }) {
      const { entries } = await client().show(`/incidents/${incidentId(asked)}/timeline`, Timeline)
      print.list(
        entries,
        [
          { title: 'time', value: ({ at }) => print.time(at) },
          { title: 'kind', value: ({ kind }) => kind },
          { title: 'host', value: ({ hostName }) => hostName, gives: true },
          { title: 'what', value: ({ summary }) => summary, gives: true },
          { title: 'reference', value: ({ reference }) => reference, wide: true },
        ],
        { name: ({ reference }) => reference ?? '-', none: 'Nothing is on the timeline.' },
      )
      return EXIT.ok
    },
  },
  {
    name: 'incident note',
    summary: 'add a note to an incident',
    example: 'cordon incident note INC-1 "asked the owner"',
    arguments: [ID, { form: '<text>', summary: 'the note' }],
    async run({ client, note, arguments: [asked, text] }) {
      await client().send('POST', `/incidents/${incidentId(asked)}/notes`, Done, { text })
      note('Noted.')
      return EXIT.ok
    },
  },
  {
    name: 'incident close',
    summary: 'close an incident, with the reason',
    example: 'cordon incident close INC-1 --reason "cleaned up"',
    arguments: [ID],
    options: [{ flags: '--reason <text>', summary: 'why' }],
    async run({ client, note, options, arguments: [asked] }) {
      const reason = options.required('reason')
      await client().send('POST', `/incidents/${incidentId(asked)}/close`, Done, { reason })
      note(`${incidentId(asked)} is closed.`)
      return EXIT.ok
    },
  },
  {
    name: 'detection ls',
    summary: 'list detections, of one incident or of the newest ones',
    example: 'cordon detection ls --incident INC-1',
    options: [{ flags: '--incident <id>', summary: 'only of this one' }, LIMIT],
    async run({ client, print, options, note }) {
      const asked = options.text('incident')
      const limit = options.whole('limit', 100, 10_000)
      const ids =
        asked === undefined
          ? (await client().show('/incidents', Incidents, { limit: INCIDENTS_READ_MAX })).incidents.map(
              ({ id }) => id,
            )
          : [incidentId(asked)]
      const found: DetectionRecord[] = []
      for (const id of ids) {
        if (found.length >= limit) break
        found.push(...(await client().show(`/incidents/${id}/detections`, Detections)).detections)
      }
      if (ids.length === INCIDENTS_READ_MAX)
        note(`Of the newest ${printable(String(INCIDENTS_READ_MAX))} incidents.`)
      const shown = found.sort((a, b) => b.detectedAt.localeCompare(a.detectedAt)).slice(0, limit)
      print.list(shown, DETECTION_COLUMNS(print), { name: ({ id }) => id, none: 'No detections.' })
      return EXIT.ok
    },
  },
]
