/** One row of the process tree: a host, a process, or quiet siblings together. */
import { ChevronDown, ChevronRight, Server } from 'lucide-react'
import type { ReactNode } from 'react'
import { Link } from 'wouter'
import { useHost } from '../../api/queries.ts'
import {
  type GroupRow,
  type Guide,
  type HostRow,
  type ProcessRow,
  processArguments,
  processName,
  type TreeRow,
} from '../../model/tree.ts'
import { SeverityMark } from '../../ui/severity.tsx'
import { Time } from '../../ui/time.tsx'
import { HostState, Isolation } from '../../ui/words.tsx'

interface Place {
  readonly index: number
  readonly top: number
  readonly isSelected: boolean
  readonly select: () => void
  readonly open: (isOpen: boolean) => void
}

export function TreeRowView({ row, ...place }: Place & { readonly row: TreeRow }) {
  const style = { transform: `translateY(${place.top}px)` }
  switch (row.kind) {
    case 'host':
      return <HostRowView row={row} index={place.index} style={style} />
    case 'group':
      return <GroupRowView row={row} place={place} style={style} />
    case 'process':
      return <ProcessRowView row={row} place={place} style={style} />
  }
}

interface Style {
  readonly transform: string
}

function HostRowView({
  row,
  index,
  style,
}: {
  readonly row: HostRow
  readonly index: number
  readonly style: Style
}) {
  const host = useHost(row.agentId)
  return (
    <div className="hostrow" role="row" aria-level={1} aria-rowindex={index + 2} style={style}>
      <div role="gridcell" className="hc" aria-colspan={5}>
        <Server size={13} aria-hidden />
        <Link href={`/hosts/${row.agentId}`}>{row.hostName}</Link>
        {host.data ? (
          <>
            <span>
              {host.data.inventory.operatingSystem} {host.data.inventory.operatingSystemVersion}
            </span>
            <span className="grow" />
            <Isolation host={host.data} />
            <HostState state={host.data.state} />
          </>
        ) : null}
      </div>
    </div>
  )
}

function Lines({
  row,
}: {
  readonly row: {
    readonly depth: number
    readonly guides: readonly Guide[]
    readonly last: boolean
    readonly hot?: boolean
    readonly hotAfter: boolean
  }
}) {
  if (row.depth === 0) return null
  return (
    <>
      {row.guides.map((guide, index) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: lines have no identity but their place.
        <i key={index} className={`g${guide.line ? ' v' : ''}${guide.hot ? ' hot' : ''}`} />
      ))}
      <i
        className={`g ${row.last ? 'e' : 't'}${row.hot ? ' hot' : ''}${!row.last && row.hotAfter ? ' hv' : ''}`}
      />
    </>
  )
}

function Cell({ className, children }: { readonly className: string; readonly children: ReactNode }) {
  return (
    <div role="gridcell" className={className}>
      {children}
    </div>
  )
}

function GroupRowView({
  row,
  place,
  style,
}: {
  readonly row: GroupRow
  readonly place: Place
  readonly style: Style
}) {
  return (
    <div
      className="vr trow group"
      role="row"
      aria-level={row.depth + 2}
      aria-expanded={row.isOpen}
      aria-rowindex={place.index + 2}
      style={style}
    >
      <Cell className="pn">
        <Lines row={row} />
        <button type="button" className="more" onClick={() => place.open(!row.isOpen)}>
          {row.isOpen ? <ChevronDown size={11} aria-hidden /> : <ChevronRight size={11} aria-hidden />}
          <span className="mo">{row.name}</span> × {row.count}
        </button>
      </Cell>
    </div>
  )
}

function ProcessRowView({
  row,
  place,
  style,
}: {
  readonly row: ProcessRow
  readonly place: Place
  readonly style: Style
}) {
  const { node } = row
  const { isSelected, select } = place
  const text = processArguments(node)
  return (
    <div
      id={`process-${row.key}`}
      className={`vr trow${isSelected ? ' sel' : ''}`}
      role="row"
      aria-level={row.depth + 2}
      aria-selected={isSelected}
      aria-expanded={row.childCount > 0 ? row.isOpen : undefined}
      aria-rowindex={place.index + 2}
      style={style}
      onClick={select}
    >
      <Cell className="pn">
        <Lines row={row} />
        <span
          className={node.endedAt === null && !row.killed ? 'nm' : 'nm dead'}
          title={node.executable ?? undefined}
        >
          {processName(node)}
        </span>
        {row.killed ? <em className="kill">killed</em> : null}
        {!row.killed && node.endedAt !== null ? <em className="ended">ended</em> : null}
        <Children row={row} open={place.open} />
        <span className="ar" title={node.commandLine ?? undefined}>
          {text}
        </span>
      </Cell>
      <Cell className="sg">
        {row.signal === null ? null : (
          <>
            <SeverityMark of={row.severity ?? 'info'} size={9} />
            <span className={`c-${row.severity ?? 'info'}`} title={row.node.detections.join('\n')}>
              {row.signal}
            </span>
            {row.moreSignals > 0 ? <em>+{row.moreSignals}</em> : null}
          </>
        )}
      </Cell>
      <Cell className="us">{node.user ?? ''}</Cell>
      <Cell className="r mo">{node.pid}</Cell>
      <Cell className="r mo ti">
        {node.startedAt === null ? '' : <Time at={node.startedAt} form="clock" />}
      </Cell>
    </div>
  )
}

/** What it started: hidden, or not asked for yet. */
function Children({ row, open }: { readonly row: ProcessRow; readonly open: (isOpen: boolean) => void }) {
  if (row.childCount > 0 && !row.isOpen) {
    return (
      <button type="button" className="more" onClick={() => open(true)}>
        +{row.childCount} {row.childCount === 1 ? 'child' : 'children'}
      </button>
    )
  }
  if (!row.mayHaveMore) return row.childCount === 0 ? <em className="none">no children</em> : null
  return (
    <button type="button" className="more lazy" onClick={() => open(true)} tabIndex={-1}>
      children
    </button>
  )
}
