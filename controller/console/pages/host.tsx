/** One host: is it alive and healthy, what watches it, and what was done on it? */
import type { ReactNode } from 'react'
import { useActions, useHost } from '../api/queries.ts'
import type { Host } from '../api/types.ts'
import { CertificateEnd } from '../ui/certificate.tsx'
import { CommandLine, CopyButton } from '../ui/copy.tsx'
import { Count } from '../ui/count.tsx'
import { shellWord } from '../ui/shell-word.ts'
import { Failed, Loading } from '../ui/states.tsx'
import { Time } from '../ui/time.tsx'
import { HostState, Isolation, isIsolated } from '../ui/words.tsx'
import { ActionList } from './incident/action-list.tsx'

const GIBIBYTE = 1024 ** 3

export function HostPage({ id }: { readonly id: string }) {
  const host = useHost(id)
  const { data } = host
  if (data === undefined) {
    return host.isError ? (
      <Failed error={host.error} retry={() => host.refetch()} />
    ) : (
      <Loading what="the host" />
    )
  }
  return (
    <section className="page hostpage">
      <header className="ptop">
        <h1>{data.hostName}</h1>
        <HostState state={data.state} />
        <Isolation host={data} />
        <span className="mo mut">{data.agentId}</span>
        <CopyButton text={data.agentId} label="Copy the agent id" />
      </header>
      {data.notice === null ? null : <output className="more">{data.notice}</output>}
      <div className="hostgrid">
        <div className="pane scroll">
          <Facts host={data} />
          <Sensors host={data} />
        </div>
        <aside className="side" aria-label="Actions and commands">
          <HostActions id={id} />
          <Commands host={data} />
        </aside>
      </div>
    </section>
  )
}

function Facts({ host }: { readonly host: Host }) {
  const { inventory } = host
  return (
    <section className="blk">
      <h2>Facts</h2>
      <dl className="facts2">
        <Fact name="System">
          {inventory.operatingSystem} {inventory.operatingSystemVersion}
        </Fact>
        <Fact name="Last heard">
          {host.lastSeenAt === null ? <span className="mut">never</span> : <Time at={host.lastSeenAt} />}
        </Fact>
        <Fact name="Kernel">
          <span className="mo">
            {inventory.kernel} {inventory.architecture}
          </span>
        </Fact>
        <Fact name="Enrolled">
          <Time at={host.enrolledAt} />
        </Fact>
        <Fact name="Processor">
          {inventory.cpuCount} × {inventory.cpuModel || 'unknown'}
        </Fact>
        <Fact name="Certificate ends">
          <CertificateEnd at={host.certificateExpiresAt} />
        </Fact>
        <Fact name="Memory">{(inventory.memoryBytes / GIBIBYTE).toFixed(1)} GiB</Fact>
        <Fact name="Key">
          <span className="mo cut" title={host.keyFingerprint}>
            {host.keyFingerprint}
          </span>
        </Fact>
        <Fact name="Addresses">
          <span className="mo">{inventory.addresses.join(', ') || 'none told'}</span>
        </Fact>
        <Fact name="Boot">
          <span className="mo">{host.bootId ?? 'not told yet'}</span>
        </Fact>
        <Fact name="Agent">
          <span className="mo">{host.agentVersion || 'not told yet'}</span>
        </Fact>
        <Fact name="Buffer">
          <span>
            <Count of={host.bufferedRows} /> buffered, <Count of={host.droppedRows} warn /> dropped
          </span>
        </Fact>
      </dl>
    </section>
  )
}

function Fact({ name, children }: { readonly name: string; readonly children: ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  )
}

function Sensors({ host: { sensors } }: { readonly host: Host }) {
  return (
    <section className="blk">
      <h2>
        Sensors
        <span className="mut">
          {sensors.filter(({ inForce }) => inForce).length} of {sensors.length} in force
        </span>
      </h2>
      {sensors.length === 0 ? (
        <p className="mut">
          The agent has not told of its sensors yet: it does so within a minute of connecting.
        </p>
      ) : (
        <table className="plain">
          <thead>
            <tr>
              <th scope="col">Sensor</th>
              <th scope="col">State</th>
              <th scope="col">Why</th>
              <th scope="col" className="r">
                Seen
              </th>
              <th scope="col" className="r">
                Lost
              </th>
            </tr>
          </thead>
          <tbody>
            {sensors.map(({ name, inForce, reason, seen, lost }) => (
              <tr key={name}>
                <th scope="row" className="mo">
                  {name}
                </th>
                <td>
                  <span className={inForce ? 'st ok' : 'st quiet'}>
                    <i />
                    {inForce ? 'In force' : 'Not in force'}
                  </span>
                </td>
                <td className="quiet">{reason}</td>
                <td className="r">
                  <Count of={seen} />
                </td>
                <td className="r">
                  <Count of={lost} warn />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  )
}

function HostActions({ id }: { readonly id: string }) {
  const actions = useActions({ agentId: id })
  const { data } = actions
  return (
    <section className="blk">
      <h3>
        Actions<span className="mut">{data?.length ?? ''}</span>
      </h3>
      {data === undefined ? (
        actions.isError ? (
          <Failed error={actions.error} retry={() => actions.refetch()} />
        ) : (
          <Loading what="actions" />
        )
      ) : data.length === 0 ? (
        <p className="mut">Nothing was done on this host.</p>
      ) : (
        <ActionList actions={data} withIncident />
      )}
    </section>
  )
}

/** What operators do here is signed with their own key, in their own program. */
function Commands({ host }: { readonly host: Host }) {
  const name = /^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(host.hostName) ? host.hostName : host.agentId
  const commands: readonly (readonly [string, string])[] = [
    ['Facts of this host', `cordon host get ${shellWord(name)}`],
    [
      'Look into a folder, without an approval',
      `cordon host scan ${shellWord(name)} /tmp --reason WHY --wait`,
    ],
    ['What it reports, as it comes in', `cordon event tail --host ${shellWord(name)}`],
    isIsolated(host)
      ? ['Let it back into the network', `cordon host release ${shellWord(name)} --reason WHY --wait`]
      : ['Cut it off from the network', `cordon host isolate ${shellWord(name)} --reason WHY --wait`],
  ]
  return (
    <section className="blk">
      <h3>On the command line</h3>
      {commands.map(([what, command]) => (
        <div className="cmd" key={command}>
          <small>{what}</small>
          <CommandLine command={command} />
        </div>
      ))}
    </section>
  )
}
