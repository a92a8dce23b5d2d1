/** The palette: hosts, incidents and pages by name, from anywhere with Ctrl+K. */
import { Command } from 'cmdk'
import { Search, Server } from 'lucide-react'
import { Dialog } from 'radix-ui'
import { useEffect, useState } from 'react'
import { useHosts, useIncidents } from '../api/queries.ts'
import { SeverityMark } from '../ui/severity.tsx'
import { hostStateWord } from '../ui/words.tsx'
import { useGo } from './address.ts'
import { PAGES } from './pages.ts'

const HOSTS_SHOWN = 20
const INCIDENTS_SHOWN = 20

export function Palette({
  open,
  setOpen,
}: {
  readonly open: boolean
  readonly setOpen: (open: boolean) => void
}) {
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if ((event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === 'k') {
        event.preventDefault()
        setOpen(true)
      }
    }
    document.addEventListener('keydown', onKey)
    return () => document.removeEventListener('keydown', onKey)
  }, [setOpen])
  return (
    <Dialog.Root open={open} onOpenChange={setOpen}>
      <Dialog.Portal>
        <div className="ovl" />
        <Dialog.Content className="pal" aria-describedby={undefined}>
          <Dialog.Title className="vh">Search</Dialog.Title>
          <Entries close={() => setOpen(false)} />
        </Dialog.Content>
      </Dialog.Portal>
    </Dialog.Root>
  )
}

function Entries({ close }: { readonly close: () => void }) {
  const go = useGo()
  const [text, setText] = useState('')
  const search = text.trim()
  // The controller searches the fleet; only what it found comes here.
  const hosts = useHosts({ search, sort: 'hostName', limit: HOSTS_SHOWN })
  const incidents = useIncidents('active')
  const open = (path: string) => {
    close()
    go(path)
  }
  const wanted = search.toLowerCase()
  const fits = (...texts: readonly string[]) => texts.some((one) => one.toLowerCase().includes(wanted))
  const foundIncidents = (incidents.data ?? [])
    .filter(({ id, title, hosts: of }) => fits(id, title, ...of.map(({ hostName }) => hostName)))
    .slice(0, INCIDENTS_SHOWN)
  const foundPages = PAGES.filter(({ name, answers }) => fits(name, answers))
  return (
    <Command label="Search hosts, incidents and pages" shouldFilter={false}>
      <div className="pi">
        <Search size={16} />
        <Command.Input
          value={text}
          onValueChange={setText}
          placeholder="Host, incident or page"
          maxLength={256}
        />
        <kbd>Esc</kbd>
      </div>
      <Command.List>
        <Command.Empty>Nothing is called so. Closed incidents are on the page Incidents.</Command.Empty>
        {foundPages.length > 0 ? (
          <Command.Group heading="Pages">
            {foundPages.map(({ name, path, key, icon: Icon, answers }) => (
              <Command.Item key={path} value={path} onSelect={() => open(path)}>
                <Icon size={15} strokeWidth={1.7} />
                <span className="what">{name}</span>
                <span className="ctx">{answers}</span>
                <kbd>{key}</kbd>
              </Command.Item>
            ))}
          </Command.Group>
        ) : null}
        {foundIncidents.length > 0 ? (
          <Command.Group heading="Incidents that are not closed">
            {foundIncidents.map(({ id, title, severity, hosts: of }) => (
              <Command.Item key={id} value={id} onSelect={() => open(`/incidents/${id}`)}>
                <SeverityMark of={severity} size={11} />
                <span className="id">{id}</span>
                <span className="what">{title}</span>
                <span className="ctx">
                  {of
                    .map(({ hostName }) => hostName)
                    .slice(0, 2)
                    .join(', ')}
                </span>
              </Command.Item>
            ))}
          </Command.Group>
        ) : null}
        {(hosts.data?.hosts.length ?? 0) > 0 ? (
          <Command.Group heading="Hosts">
            {hosts.data?.hosts.map(({ agentId, hostName, state, inventory }) => (
              <Command.Item key={agentId} value={agentId} onSelect={() => open(`/hosts/${agentId}`)}>
                <Server size={15} strokeWidth={1.7} />
                <span className="what">{hostName}</span>
                <span className="ctx">
                  {inventory.operatingSystem} · {hostStateWord(state)}
                </span>
              </Command.Item>
            ))}
          </Command.Group>
        ) : null}
      </Command.List>
      <div className="pf">
        <span>
          <kbd>↑↓</kbd> choose
        </span>
        <span>
          <kbd>↵</kbd> open
        </span>
      </div>
    </Command>
  )
}
