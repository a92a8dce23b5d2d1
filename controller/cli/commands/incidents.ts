/** Incidents and detections. */
import { Detections, Done, INCIDENT_LIMIT_MAX, Incidents, Timeline } from '../../api/schemas.ts'
import { INCIDENT_STATUSES, type Incident } from '../../incidents/incident.ts'
import { type Command, EXIT } from '../command.ts'
import { readStory, storyLines } from '../incident-view.ts'
import { nextSteps } from '../next-steps.ts'
import { severityColumn } from '../printer.ts'
import { DETECTION_COLUMNS, incidentId } from '../records.ts'

const ID = { form: '<id>', summary: 'as in INC-1' }
const LIMIT = { flags: '--limit <count>', summary: 'at most so many (default 100)' }

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
      const { incidents } = await client().show('/incidents', Incidents, {
        status: status ?? (options.has('all') ? undefined : 'active'),
        limit: options.whole('limit', 100, INCIDENT_LIMIT_MAX),
      })
      print.list(
        incidents,
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
        {
          name: ({ id }) => id,
          none:
            status === undefined && !options.has('all')
              ? 'No incidents: nothing is open or contained. Closed ones: --all'
              : 'No incidents.',
        },
      )
      return EXIT.ok
    },
  },
  {
    name: 'incident get',
    summary: 'show one incident: what happened, when, why it hangs together, what to do next',
    example: 'cordon incident get INC-1',
    arguments: [ID],
    async run(context) {
      const story = await readStory(context, incidentId(context.arguments[0]))
      const { incident, detections, processes, actions } = story
      context.print.block(
        { ...incident, detections, processes, actions, next: nextSteps(story) },
        storyLines(story, context.print),
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
          { title: 'time', value: ({ at }) => print.moment(at) },
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
    summary: 'list detections, of one incident or of all, the newest first',
    example: 'cordon detection ls INC-1',
    arguments: [{ form: '[incident]', summary: 'only of this one, as in INC-1' }],
    options: [{ flags: '--incident <id>', summary: 'only of this one' }, LIMIT],
    async run({ client, print, options, arguments: [named] }) {
      const asked = named ?? options.text('incident')
      const limit = options.whole('limit', 100, 10_000)
      const { detections } =
        asked === undefined
          ? await client().show('/detections', Detections, { limit })
          : await client().show(`/incidents/${incidentId(asked)}/detections`, Detections)
      const shown = [...detections].sort((a, b) => b.detectedAt.localeCompare(a.detectedAt)).slice(0, limit)
      print.list(shown, DETECTION_COLUMNS(print), { name: ({ id }) => id, none: 'No detections.' })
      return EXIT.ok
    },
  },
]
