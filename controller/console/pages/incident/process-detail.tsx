/** What is known of one process: its command in full, its file, what was detected on it, what it did. */
import { useState } from 'react'
import { useProcessEvents } from '../../api/queries.ts'
import type { Detection, Incident, StoredEvent } from '../../api/types.ts'
import { type ProcessRow, processName } from '../../model/tree.ts'
import { CommandLine, CopyButton } from '../../ui/copy.tsx'
import { SeverityMark } from '../../ui/severity.tsx'
import { Failed, Loading } from '../../ui/states.tsx'
import { Time } from '../../ui/time.tsx'
import { RawEventDialog, type RawReference } from './raw-event.tsx'

export function ProcessDetail({
  row,
  detections,
  incident,
}: {
  readonly row: ProcessRow
  readonly detections: readonly Detection[]
  readonly incident: Incident
}) {
  const { node } = row
  const [tab, setTab] = useState<'detections' | 'events' | 'commands'>('detections')
  const [raw, setRaw] = useState<RawReference | null>(null)
  const own = detections.filter(({ entityId }) => entityId === node.entityId)
  return (
    <section className="det" aria-label="Selected process">
      <header className="dh">
        {row.severity ? <SeverityMark of={row.severity} /> : null}
        <b className="mo">{processName(node)}</b>
        <span className="mut mo">{node.pid}</span>
        {row.killed ? <em className="kill">killed</em> : null}
        {node.endedAt === null ? (
          <span className="mut">{row.killed ? '' : 'not known to have ended'}</span>
        ) : (
          <em className="ended">
            ended <Time at={node.endedAt} form="clock" />
          </em>
        )}
        <span className="grow" />
        <span className="mut mo cut" title="Entity id: agent, boot, pid and start; never reused">
          {node.entityId}
        </span>
        <CopyButton text={node.entityId} label="Copy the entity id" />
      </header>
      <dl className="dg">
        <div className="kv">
          <dt>Command</dt>
          <dd>
            <span className="mo long">{node.commandLine ?? 'not told'}</span>
            {node.commandLine === null ? null : (
              <CopyButton text={node.commandLine} label="Copy the command" />
            )}
          </dd>
        </div>
        <div className="kv">
          <dt>File</dt>
          <dd>
            <span className="mo long">{node.executable ?? 'not told'}</span>
            {node.sha256 === null ? (
              <span className="mut">content not examined</span>
            ) : (
              <>
                <span className="mut">SHA-256</span>
                <span className="mo mut cut" title={node.sha256}>
                  {node.sha256}
                </span>
                <CopyButton text={node.sha256} label="Copy the SHA-256" />
              </>
            )}
          </dd>
        </div>
      </dl>
      <div className="tabs">
        <div role="tablist" aria-label="Process details">
          <Tab name="detections" label="Detections" count={own.length} tab={tab} choose={setTab} />
          <Tab name="events" label="Events" tab={tab} choose={setTab} />
          <Tab name="commands" label="Respond" tab={tab} choose={setTab} />
        </div>
      </div>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard. */}
      <div className="tabbody" role="tabpanel" id="process-panel" aria-labelledby={`tab-${tab}`} tabIndex={0}>
        {tab === 'detections' ? <OwnDetections detections={own} show={setRaw} /> : null}
        {tab === 'events' ? <OwnEvents row={row} show={setRaw} /> : null}
        {tab === 'commands' ? <Commands row={row} incident={incident} /> : null}
      </div>
      <RawEventDialog of={raw} close={() => setRaw(null)} />
    </section>
  )
}

function Tab<Name extends string>({
  name,
  label,
  count,
  tab,
  choose,
}: {
  readonly name: Name
  readonly label: string
  readonly count?: number
  readonly tab: Name
  readonly choose: (name: Name) => void
}) {
  const isOn = tab === name
  return (
    <button
      type="button"
      role="tab"
      id={`tab-${name}`}
      aria-selected={isOn}
      aria-controls={isOn ? 'process-panel' : undefined}
      className={isOn ? 'on' : ''}
      onClick={() => choose(name)}
    >
      {label}
      {count === undefined ? null : <span>{count}</span>}
    </button>
  )
}

function OwnDetections({
  detections,
  show,
}: {
  readonly detections: readonly Detection[]
  readonly show: (raw: RawReference) => void
}) {
  if (detections.length === 0) return <p className="mut pad">Nothing was detected on this very process.</p>
  return (
    <ul className="pe">
      {detections.map((detection) => (
        <li key={detection.id}>
          <Time at={detection.detectedAt} form="clock" />
          <span className="kd">{detection.engine}</span>
          <SeverityMark of={detection.severity} size={8} />
          <button
            type="button"
            className="em"
            title={detection.groupedBecause}
            onClick={() => show({ kind: 'detection', id: detection.id, title: detection.ruleName })}
          >
            {detection.ruleName}
          </button>
          <span className="mut cut" title={detection.filePath ?? detection.indicator ?? undefined}>
            {detection.filePath ?? detection.indicator ?? ''}
          </span>
        </li>
      ))}
    </ul>
  )
}

function OwnEvents({ row, show }: { readonly row: ProcessRow; readonly show: (raw: RawReference) => void }) {
  const events = useProcessEvents(row.agentId, row.node.entityId)
  if (events.data === undefined) {
    return events.isError ? (
      <Failed error={events.error} retry={() => events.refetch()} />
    ) : (
      <Loading what="events" />
    )
  }
  if (events.data.length === 0) return <p className="mut pad">No event of this process is stored.</p>
  return (
    <ul className="pe">
      {events.data.map((stored) => {
        const { action, at, subject } = eventInWords(stored)
        return (
          <li key={stored.cursor}>
            <Time at={at} form="clock" />
            <span className="kd wide">{action}</span>
            <button
              type="button"
              className="em mo"
              onClick={() => show({ kind: 'event', cursor: stored.cursor, title: action })}
            >
              {subject}
            </button>
          </li>
        )
      })}
    </ul>
  )
}

/** What an event is about, in the order in which it tells most. */
const SUBJECTS = [
  'rule.name',
  'file.path',
  'destination.ip',
  'process.command_line',
  'process.executable',
  'event.reason',
] as const

function eventInWords({ event }: StoredEvent) {
  const fields: Readonly<Record<string, unknown>> = event
  const subject = SUBJECTS.map((name) => fields[name]).find((value) => typeof value === 'string')
  const port = fields['destination.port']
  return {
    action: String(fields['event.action']),
    at: String(fields['@timestamp']),
    subject: `${subject ?? 'no further facts'}${typeof port === 'number' ? ` port ${port}` : ''}`,
  }
}

/** Commands that an operator signs with a key of their own. */
function Commands({ row, incident }: { readonly row: ProcessRow; readonly incident: Incident }) {
  const { entityId } = row.node
  const commands = [
    `cordon proc kill ${entityId} --tree --incident ${incident.id} --reason WHY --wait`,
    `cordon proc tree ${entityId}`,
    `cordon event query --entity ${entityId}`,
  ]
  return (
    <div className="cmds">
      {commands.map((command) => (
        <CommandLine key={command} command={command} />
      ))}
    </div>
  )
}
