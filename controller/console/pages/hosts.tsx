/** Hosts: is each one alive, watched, and by what? Sorted and searched by the controller. */
import { Search, TriangleAlert } from 'lucide-react'
import { Link } from 'wouter'
import { useHosts } from '../api/queries.ts'
import type { Host, HostQuery } from '../api/types.ts'
import { useAddress, useGo } from '../frame/address.ts'
import { CertificateEnd } from '../ui/certificate.tsx'
import { Count } from '../ui/count.tsx'
import { type Column, Grid } from '../ui/grid.tsx'
import { Empty, Failed, Loading } from '../ui/states.tsx'
import { Time } from '../ui/time.tsx'
import { HostState, hostStateWord, Isolation } from '../ui/words.tsx'

const HOSTS_MAX = 1_000
const SORT_DEFAULT = 'hostName'

const COLUMNS: readonly Column<Host>[] = [
  {
    name: 'Host',
    width: 'minmax(150px, 1.500fr)',
    sort: 'hostName',
    cell: (host) => (
      <span className="hostname">
        <Link className="nm" href={`/hosts/${host.agentId}`} title={host.agentId}>
          {host.hostName}
        </Link>
        <Isolation host={host} />
      </span>
    ),
  },
  {
    name: 'State',
    width: '124px',
    sort: 'state',
    cell: ({ state, notice }) => (
      <>
        <HostState state={state} />
        {notice === null ? null : (
          <span className="notice" title={notice}>
            <TriangleAlert size={13} role="img" aria-label={notice} />
          </span>
        )}
      </>
    ),
  },
  { name: 'Sensors', width: 'minmax(170px, 1.600fr)', cell: (host) => <Sensors host={host} /> },
  {
    name: 'System',
    width: 'minmax(120px, 1.100fr)',
    cell: ({ inventory }) => (
      <span className="quiet" title={`${inventory.kernel} ${inventory.architecture}`}>
        {inventory.operatingSystem} {inventory.operatingSystemVersion}
      </span>
    ),
  },
  {
    name: 'Address',
    width: 'minmax(100px, 1fr)',
    cell: ({ inventory }) => (
      <span className="mo quiet" title={inventory.addresses.join(', ')}>
        {inventory.addresses[0] ?? ''}
      </span>
    ),
  },
  {
    name: 'Buffered',
    width: '76px',
    sort: 'bufferedRows',
    right: true,
    cell: ({ bufferedRows }) => <Count of={bufferedRows} />,
  },
  { name: 'Dropped', width: '76px', right: true, cell: ({ droppedRows }) => <Count of={droppedRows} warn /> },
  {
    name: 'Last heard',
    width: '142px',
    sort: 'lastSeenAt',
    cell: ({ lastSeenAt }) =>
      lastSeenAt === null ? <span className="mut">never</span> : <Time at={lastSeenAt} />,
  },
  {
    name: 'Certificate ends',
    width: '118px',
    sort: 'certificateExpiresAt',
    cell: ({ certificateExpiresAt }) => <CertificateEnd at={certificateExpiresAt} />,
  },
]

/** In force by name; what is not is told with its reason. */
function Sensors({ host: { sensors } }: { readonly host: Host }) {
  if (sensors.length === 0) return <span className="mut">not told yet</span>
  const idle = sensors.filter(({ inForce }) => !inForce)
  return (
    <span className="chips">
      {sensors
        .filter(({ inForce }) => inForce)
        .map(({ name, reason }) => (
          <span className="chip" key={name} title={`In force: ${reason}`}>
            {name}
          </span>
        ))}
      {idle.length > 0 ? (
        <span className="mut" title={idle.map(({ name, reason }) => `${name}: ${reason}`).join('\n')}>
          {idle.length} idle
        </span>
      ) : null}
    </span>
  )
}

export function HostsPage() {
  const address = useAddress()
  const go = useGo()
  const search = address.get('search')
  const state = address.get('state')
  const isolated = address.get('isolated')
  const sort = address.get('sort') || SORT_DEFAULT
  const order = address.get('order') === 'descending' ? 'descending' : 'ascending'
  // Words of the address that the controller does not know it refuses, and says so.
  const query = {
    search,
    sort,
    order,
    limit: HOSTS_MAX,
    ...(state ? { state } : {}),
    ...(isolated ? { isolated } : {}),
  } as HostQuery
  const hosts = useHosts(query)
  const { data } = hosts
  return (
    <section className="page">
      <header className="ptop">
        <h1>Hosts</h1>
        <span className="mut">
          {data ? (data.matching === data.total ? `${data.total}` : `${data.matching} of ${data.total}`) : ''}
        </span>
        <span className="grow" />
        <fieldset className="filters">
          <legend className="vh">State</legend>
          <FilterChip
            label="All"
            count={data?.total}
            on={state === '' && isolated === ''}
            click={() => address.set({ state: '', isolated: '' })}
          />
          {data?.states.map(({ state: one, count }) => (
            <FilterChip
              key={one}
              label={hostStateWord(one)}
              count={count}
              on={state === one}
              click={() => address.set({ state: one })}
            />
          ))}
          {data && (data.isolated > 0 || isolated !== '') ? (
            <FilterChip
              label="Isolated"
              count={data.isolated}
              on={isolated === 'yes'}
              click={() => address.set({ isolated: isolated === 'yes' ? '' : 'yes' })}
            />
          ) : null}
        </fieldset>
        <div className="find">
          <Search size={13} aria-hidden />
          <input
            data-search
            type="search"
            value={search}
            maxLength={256}
            placeholder="Name, id, address or system"
            aria-label="Search hosts"
            onChange={(event) => address.set({ search: event.target.value })}
          />
          <kbd>/</kbd>
        </div>
      </header>
      {data === undefined ? (
        hosts.isError ? (
          <Failed error={hosts.error} retry={() => hosts.refetch()} />
        ) : (
          <Loading what="hosts" />
        )
      ) : data.hosts.length === 0 ? (
        <NoHosts total={data.total} clear={() => address.set({ search: '', state: '', isolated: '' })} />
      ) : (
        <Grid
          label="Hosts"
          columns={COLUMNS}
          rows={data.hosts}
          keyOf={({ agentId }) => agentId}
          selected={address.get('at')}
          select={(at) => address.set({ at })}
          open={({ agentId }) => go(`/hosts/${agentId}`)}
          sorting={{ by: sort, order, change: (by, next) => address.set({ sort: by, order: next }) }}
        />
      )}
      {data && data.matching > data.hosts.length ? (
        <output className="more">
          The first {data.hosts.length} of {data.matching} are shown: narrow the search to see the others.
        </output>
      ) : null}
    </section>
  )
}

export function FilterChip({
  label,
  count,
  on,
  click,
}: {
  readonly label: string
  readonly count?: number | undefined
  readonly on: boolean
  readonly click: () => void
}) {
  return (
    <button type="button" className={on ? 'chipb on' : 'chipb'} aria-pressed={on} onClick={click}>
      {label}
      {count === undefined ? null : <span>{count}</span>}
    </button>
  )
}

function NoHosts({ total, clear }: { readonly total: number; readonly clear: () => void }) {
  if (total === 0) {
    return (
      <Empty
        title="No host is enrolled yet"
        todo={
          <>
            Make a token with <code>cordon host enroll-token</code>; the command it prints enrols one host.
          </>
        }
      />
    )
  }
  return (
    <Empty
      title="No host fits"
      todo={
        <button type="button" className="lnk" onClick={clear}>
          Show all {total}
        </button>
      }
    />
  )
}
