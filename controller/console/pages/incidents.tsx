/** Incidents: which one next? Those that are not closed, unless something else is asked for. */
import { Search } from 'lucide-react'
import { Link } from 'wouter'
import { useIncidents } from '../api/queries.ts'
import type { Incident, IncidentFilter } from '../api/types.ts'
import { useAddress, useGo } from '../frame/address.ts'
import { Count } from '../ui/count.tsx'
import { type Column, Grid } from '../ui/grid.tsx'
import { SeverityTag } from '../ui/severity.tsx'
import { Empty, Failed, Loading } from '../ui/states.tsx'
import { durationInWords, Time } from '../ui/time.tsx'
import { IncidentStatus } from '../ui/words.tsx'
import { FilterChip } from './hosts.tsx'

const HOSTS_SHOWN = 2

const FILTERS: readonly (readonly [string, IncidentFilter | 'all'])[] = [
  ['Active', 'active'],
  ['Open', 'open'],
  ['Contained', 'contained'],
  ['Closed', 'closed'],
  ['All', 'all'],
]

const COLUMNS: readonly Column<Incident>[] = [
  { name: 'Severity', width: '88px', cell: ({ severity }) => <SeverityTag of={severity} /> },
  { name: 'Id', width: '72px', cell: ({ id }) => <span className="mo quiet">{id}</span> },
  {
    name: 'Incident',
    width: 'minmax(180px, 3fr)',
    cell: ({ id, title }) => (
      <Link className="nm" href={`/incidents/${id}`} title={title}>
        {title}
      </Link>
    ),
  },
  { name: 'Status', width: '98px', cell: ({ status }) => <IncidentStatus status={status} /> },
  {
    name: 'Hosts',
    width: 'minmax(100px, 1fr)',
    cell: ({ hosts }) => {
      const names = hosts.map(({ hostName }) => hostName)
      const more = names.length - HOSTS_SHOWN
      return (
        <span className="quiet" title={names.slice(0, 50).join(', ')}>
          {names.slice(0, HOSTS_SHOWN).join(', ')}
          {more > 0 ? ` and ${more} more` : ''}
        </span>
      )
    },
  },
  {
    name: 'Detections',
    width: '76px',
    right: true,
    cell: ({ detectionCount }) => <Count of={detectionCount} />,
  },
  { name: 'Actions', width: '62px', right: true, cell: ({ actionCount }) => <Count of={actionCount} /> },
  { name: 'Opened', width: '142px', cell: ({ openedAt }) => <Time at={openedAt} /> },
  {
    name: 'Contained after',
    width: '102px',
    cell: ({ openedAt, containedAt }) =>
      containedAt === null ? (
        <span className="mut">–</span>
      ) : (
        <span className="c-ok" title={containedAt}>
          {durationInWords(Date.parse(containedAt) - Date.parse(openedAt))}
        </span>
      ),
  },
  { name: 'Last change', width: '142px', cell: ({ updatedAt }) => <Time at={updatedAt} /> },
]

export function IncidentsPage() {
  const address = useAddress()
  const go = useGo()
  const status = address.get('status') || 'active'
  const search = address.get('search')
  const incidents = useIncidents(status === 'all' ? undefined : (status as IncidentFilter))
  const wanted = search.trim().toLowerCase()
  const found = incidents.data?.filter(
    ({ id, title, hosts }) =>
      wanted === '' ||
      [id, title, ...hosts.map(({ hostName }) => hostName)].some((text) =>
        text.toLowerCase().includes(wanted),
      ),
  )
  return (
    <section className="page">
      <header className="ptop">
        <h1>Incidents</h1>
        <span className="mut">{found?.length ?? ''}</span>
        <span className="grow" />
        <fieldset className="filters">
          <legend className="vh">Status</legend>
          {FILTERS.map(([label, value]) => (
            <FilterChip
              key={value}
              label={label}
              on={status === value}
              click={() => address.set({ status: value === 'active' ? '' : value })}
            />
          ))}
        </fieldset>
        <div className="find">
          <Search size={13} aria-hidden />
          <input
            data-search
            type="search"
            value={search}
            maxLength={256}
            placeholder="Title, id or host"
            aria-label="Search incidents"
            onChange={(event) => address.set({ search: event.target.value })}
          />
          <kbd>/</kbd>
        </div>
      </header>
      {found === undefined ? (
        incidents.isError ? (
          <Failed error={incidents.error} retry={() => incidents.refetch()} />
        ) : (
          <Loading what="incidents" />
        )
      ) : found.length === 0 ? (
        <NoIncidents
          status={status}
          searched={wanted !== ''}
          clear={() => address.set({ search: '', status: 'all' })}
        />
      ) : (
        <Grid
          label="Incidents"
          columns={COLUMNS}
          rows={found}
          keyOf={({ id }) => id}
          selected={address.get('at')}
          select={(at) => address.set({ at })}
          open={({ id }) => go(`/incidents/${id}`)}
        />
      )}
    </section>
  )
}

function NoIncidents({
  status,
  searched,
  clear,
}: {
  readonly status: string
  readonly searched: boolean
  readonly clear: () => void
}) {
  const all = (
    <button type="button" className="lnk" onClick={clear}>
      Show all incidents
    </button>
  )
  if (searched) return <Empty title="No incident fits" todo={all} />
  if (status === 'all') {
    return (
      <Empty
        title="Nothing was detected yet"
        todo="An incident shows here by itself as soon as a host reports a detection."
      />
    )
  }
  const word = status === 'active' ? 'active' : status
  return <Empty title={`No incident is ${word}`} todo={<>New ones show here by themselves. {all}</>} />
}
