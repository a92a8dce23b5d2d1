/** The head of an incident: how bad it is, where it stands, and how long each step took. */
import { Check } from 'lucide-react'
import type { ReactNode } from 'react'
import { Link } from 'wouter'
import { useSession } from '../../api/queries.ts'
import type { Detection, Incident } from '../../api/types.ts'
import { SeverityTag } from '../../ui/severity.tsx'
import { durationInWords, Time } from '../../ui/time.tsx'

const STEPS = ['open', 'contained', 'closed'] as const
const HOSTS_SHOWN = 6
const TECHNIQUES_SHOWN = 8

export function IncidentHead({
  incident,
  detections,
  note,
  close,
}: {
  readonly incident: Incident
  readonly detections: readonly Detection[]
  readonly note: () => void
  readonly close: () => void
}) {
  const session = useSession()
  const mayChange = session.data?.role !== 'viewer'
  const why = mayChange ? undefined : 'This needs the role responder; you are viewer'
  return (
    <header className="head">
      <div className="h1r">
        <SeverityTag of={incident.severity} large />
        <h1 title={incident.title}>{incident.title}</h1>
        <div className="grow" />
        <button type="button" className="btn gh" onClick={note} disabled={!mayChange} title={why}>
          Add note <kbd>N</kbd>
        </button>
        {incident.status === 'closed' ? null : (
          <button type="button" className="btn" onClick={close} disabled={!mayChange} title={why}>
            Close incident <kbd>E</kbd>
          </button>
        )}
      </div>
      <Story incident={incident} detections={detections} />
      <div className="facts">
        <Steps incident={incident} />
        <div className="grow" />
        <Times incident={incident} />
      </div>
    </header>
  )
}

function Story({
  incident,
  detections,
}: {
  readonly incident: Incident
  readonly detections: readonly Detection[]
}) {
  const techniques = [...new Set(detections.flatMap((detection) => detection.techniques))].sort()
  const engines = [...new Set(detections.map(({ engine }) => engine))].sort()
  const more = incident.hosts.length - HOSTS_SHOWN
  return (
    <p className="story">
      <span>
        On{' '}
        {incident.hosts.slice(0, HOSTS_SHOWN).map(({ agentId, hostName }, index) => (
          <span key={agentId}>
            {index > 0 ? ', ' : ''}
            <Link href={`/hosts/${agentId}`}>{hostName}</Link>
          </span>
        ))}
        {more > 0 ? ` and ${more} more` : ''}
        {engines.length > 0 ? <>, found by {engines.join(' and ')}</> : null}
      </span>
      {techniques.length > 0 ? (
        <span className="techniques">
          {techniques.slice(0, TECHNIQUES_SHOWN).map((technique) => (
            <span className="chip mo" key={technique} title="ATT&amp;CK technique, as the rules name it">
              {technique}
            </span>
          ))}
          {techniques.length > TECHNIQUES_SHOWN ? `+${techniques.length - TECHNIQUES_SHOWN}` : ''}
        </span>
      ) : null}
    </p>
  )
}

function Steps({ incident: { status } }: { readonly incident: Incident }) {
  const at = STEPS.indexOf(status)
  return (
    <ol className="steps" aria-label="Status">
      {STEPS.map((step, index) => (
        <li
          key={step}
          className={index < at ? 'done' : index === at ? `cur ${step}` : ''}
          aria-current={index === at ? 'step' : undefined}
        >
          {index < at ? <Check size={11} strokeWidth={2.6} aria-hidden /> : null}
          {step.charAt(0).toUpperCase() + step.slice(1)}
        </li>
      ))}
    </ol>
  )
}

/** Each moment, and how long after the one before it came. */
function Times({ incident }: { readonly incident: Incident }) {
  const { startedAt, detectedAt, openedAt, containedAt, hosts, detectionCount, assignee } = incident
  const after = (from: string, to: string) => durationInWords(Date.parse(to) - Date.parse(from))
  return (
    <dl className="fx">
      <Fact name="Began" when={startedAt} />
      <Fact name="Detected" when={detectedAt} after={after(startedAt, detectedAt)} />
      <Fact name="Opened" when={openedAt} after={after(detectedAt, openedAt)} />
      {containedAt === null ? (
        <Fact name="Contained">
          <span className="mut">not yet</span>
        </Fact>
      ) : (
        <Fact name="Contained" when={containedAt} after={after(openedAt, containedAt)} good />
      )}
      <Fact name="Hosts">{hosts.length}</Fact>
      <Fact name="Detections">{detectionCount}</Fact>
      <Fact name="Assignee">{assignee ?? <span className="mut">nobody</span>}</Fact>
    </dl>
  )
}

function Fact({
  name,
  when,
  after,
  good = false,
  children,
}: {
  readonly name: string
  readonly when?: string
  readonly after?: string
  readonly good?: boolean
  readonly children?: ReactNode
}) {
  return (
    <div className={good ? 'good' : ''}>
      <dt>{name}</dt>
      <dd>
        {when === undefined ? children : <Time at={when} form="clock" />}
        {after === undefined ? null : <s>+{after}</s>}
      </dd>
    </div>
  )
}
