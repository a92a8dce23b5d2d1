/** The timeline, newest first: what happened, what was done, and the times in which nobody could see. */
import { useVirtualizer } from '@tanstack/react-virtual'
import {
  EyeOff,
  FileText,
  Flag,
  type LucideIcon,
  MessageSquare,
  Network,
  Radar,
  SquareTerminal,
  TriangleAlert,
  Zap,
} from 'lucide-react'
import { useMemo, useRef, useState } from 'react'
import { useTimeline } from '../../api/queries.ts'
import type { TimelineEntry } from '../../api/types.ts'
import { useAddress } from '../../frame/address.ts'
import { type Histogram, histogramOf } from '../../model/histogram.ts'
import { Empty, Failed, Loading } from '../../ui/states.tsx'
import { durationInWords, momentParts, Time, useZone } from '../../ui/time.tsx'
import { RawEventDialog, type RawReference } from './raw-event.tsx'
import { ViewSwitch } from './view-switch.tsx'

const ENTRY_PIXELS = 44
const OVERSCAN = 6
const TICKS = 4
const WIDTH = 480
const HEIGHT = 30

type Kind = TimelineEntry['kind']

const MARKS: Readonly<
  Record<Kind, { readonly icon: LucideIcon; readonly tone: string; readonly word: string }>
> = {
  detection: { icon: TriangleAlert, tone: 'c-critical', word: 'Detection' },
  process: { icon: SquareTerminal, tone: 'c-info', word: 'Process' },
  file: { icon: FileText, tone: 'c-info', word: 'File' },
  network: { icon: Network, tone: 'c-info', word: 'Network' },
  action: { icon: Zap, tone: 'c-ok', word: 'Action' },
  blind: { icon: EyeOff, tone: 'c-high', word: 'Blind' },
  agent: { icon: Radar, tone: 'c-low', word: 'Agent' },
  note: { icon: MessageSquare, tone: 'c-auto', word: 'Note' },
  status: { icon: Flag, tone: 'c-auto', word: 'Status' },
}
/** What a reader must not miss; the rest is what the suspects did around it. */
const KEY_KINDS: ReadonlySet<Kind> = new Set<Kind>([
  'detection',
  'action',
  'blind',
  'agent',
  'note',
  'status',
])

export function Timeline({ id }: { readonly id: string }) {
  const timeline = useTimeline(id)
  const address = useAddress()
  const [raw, setRaw] = useState<RawReference | null>(null)
  const isAll = address.get('entries') === 'all'
  const entries = timeline.data
  const histogram = useMemo(() => (entries ? histogramOf(entries) : null), [entries])
  const shown = useMemo(
    () => (entries ?? []).filter(({ kind }) => isAll || KEY_KINDS.has(kind)).toReversed(),
    [entries, isAll],
  )
  return (
    <section className="pane tl" aria-label="Timeline">
      <header className="ph">
        <h2>Timeline</h2>
        <span className="mut">
          {entries
            ? `${shown.length} of ${entries.length} ${entries.length === 1 ? 'entry' : 'entries'}`
            : ''}
        </span>
        <span className="grow" />
        <ViewSwitch />
        <button
          type="button"
          className={isAll ? 'chipb' : 'chipb on'}
          aria-pressed={!isAll}
          onClick={() => address.set({ entries: '' })}
        >
          Key
        </button>
        <button
          type="button"
          className={isAll ? 'chipb on' : 'chipb'}
          aria-pressed={isAll}
          onClick={() => address.set({ entries: 'all' })}
        >
          All
        </button>
      </header>
      {entries === undefined ? (
        timeline.isError ? (
          <Failed error={timeline.error} retry={() => timeline.refetch()} />
        ) : (
          <Loading what="the timeline" />
        )
      ) : shown.length === 0 ? (
        <Empty title="Nothing to tell yet" todo="What happens shows here by itself." />
      ) : (
        <>
          {histogram ? <HistogramView of={histogram} /> : null}
          <Entries entries={shown} show={setRaw} />
        </>
      )}
      <RawEventDialog of={raw} close={() => setRaw(null)} />
    </section>
  )
}

function HistogramView({ of }: { readonly of: Histogram }) {
  const { zone } = useZone()
  const binWidth = WIDTH / of.bins.length
  const spanMs = of.toMs - of.fromMs
  const ticks = Array.from({ length: TICKS + 1 }, (_, index) => of.fromMs + (spanMs * index) / TICKS)
  const label = (ms: number) => {
    const { date, clock } = momentParts(ms, zone)
    if (spanMs > 2 * 86_400_000) return date.slice(5)
    return spanMs > 3_600_000 ? clock.slice(0, 5) : clock
  }
  return (
    <div className="hw">
      <svg
        className="hist"
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        preserveAspectRatio="none"
        role="img"
        aria-label={`Entries over ${durationInWords(spanMs)}${of.blind.length > 0 ? `, with ${of.blind.length} blind times` : ''}`}
      >
        {of.blind.map(({ from, to }) => (
          <rect
            key={`${from} ${to}`}
            className="hblind"
            x={from * WIDTH}
            y={0}
            width={Math.max(2, (to - from) * WIDTH)}
            height={HEIGHT}
          />
        ))}
        {of.bins.map(({ count, detections }, index) => {
          if (count === 0) return null
          const height = Math.max(2, (count / of.countMax) * (HEIGHT - 2))
          return (
            <rect
              // biome-ignore lint/suspicious/noArrayIndexKey: bins have no identity but their place.
              key={index}
              className={detections > 0 ? 'hdet' : 'hbar'}
              x={index * binWidth + 1}
              y={HEIGHT - height}
              width={binWidth - 2}
              height={height}
            />
          )
        })}
      </svg>
      <div className="hx" aria-hidden>
        {ticks.map((ms) => (
          <span key={ms}>{label(ms)}</span>
        ))}
      </div>
    </div>
  )
}

function Entries({
  entries,
  show,
}: {
  readonly entries: readonly TimelineEntry[]
  readonly show: (raw: RawReference) => void
}) {
  const scroller = useRef<HTMLDivElement>(null)
  const virtual = useVirtualizer({
    count: entries.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => ENTRY_PIXELS,
    overscan: OVERSCAN,
  })
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard.
    <div className="ev" ref={scroller} tabIndex={0} role="region" aria-label="Entries, newest first">
      <ol style={{ height: virtual.getTotalSize() }}>
        {virtual.getVirtualItems().map(({ index, start, key }) => {
          const entry = entries[index]
          if (entry === undefined) return null
          const before = entries[index - 1]
          return (
            <li
              key={key}
              data-index={index}
              ref={virtual.measureElement}
              className={`y-${entry.kind}`}
              style={{ transform: `translateY(${start}px)` }}
              aria-setsize={entries.length}
              aria-posinset={index + 1}
            >
              <Entry entry={entry} sameDay={before?.at.slice(0, 10) === entry.at.slice(0, 10)} show={show} />
            </li>
          )
        })}
      </ol>
    </div>
  )
}

function Entry({
  entry,
  sameDay,
  show,
}: {
  readonly entry: TimelineEntry
  readonly sameDay: boolean
  readonly show: (raw: RawReference) => void
}) {
  const { kind, at, until, summary, hostName } = entry
  const { icon: Icon, tone, word } = MARKS[kind] ?? MARKS.status
  const raw = rawOf(entry)
  return (
    <>
      <span className="when">
        <Time at={at} form="clock" />
        {sameDay ? null : <Time at={at} form="day" />}
      </span>
      <span className={`mk ${tone}`}>
        <Icon size={12} strokeWidth={2} role="img" aria-label={word} />
      </span>
      <div className="what">
        <p title={summary}>{summary}</p>
        <small>
          <span>{word}</span>
          {hostName === null ? null : <span className="cut">{hostName}</span>}
          {until === null ? null : (
            <span>blind for {durationInWords(Date.parse(until) - Date.parse(at))}</span>
          )}
          {raw === null ? null : (
            <button type="button" className="lnk" onClick={() => show(raw)}>
              raw event
            </button>
          )}
        </small>
      </div>
    </>
  )
}

/** What stands behind an entry: a stored event; actions and notes have their own places. */
function rawOf({ kind, reference, summary }: TimelineEntry): RawReference | null {
  if (reference === null || kind === 'action') return null
  const title = summary.slice(0, 120)
  return kind === 'detection' ? { kind, id: reference, title } : { kind: 'event', cursor: reference, title }
}
