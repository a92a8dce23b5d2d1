/** The top bar: where one is, the way to everything, whether what is shown is live, and which time it is. */
import { ChevronRight, Search } from 'lucide-react'
import { use } from 'react'
import { Link, useLocation } from 'wouter'
import { LiveContext, type LiveState } from '../api/live.ts'
import { useHost, useSession } from '../api/queries.ts'
import { CopyButton } from '../ui/copy.tsx'
import { useNowMs } from '../ui/now.ts'
import { momentParts, useZone } from '../ui/time.tsx'
import { PAGES } from './pages.ts'

const LIVE_WORDS: Readonly<Record<LiveState, { readonly word: string; readonly told: string }>> = {
  connecting: { word: 'Connecting', told: 'The stream of changes is being opened.' },
  live: { word: 'Live', told: 'Changes show by themselves.' },
  broken: { word: 'Not live', told: 'The controller does not answer. Tried again by itself.' },
}

export function TopBar({ openPalette }: { readonly openPalette: () => void }) {
  const session = useSession()
  const name = session.data?.name ?? ''
  return (
    <header className="top">
      <Crumbs />
      <button type="button" className="omni" onClick={openPalette}>
        <Search size={14} />
        <span>Search hosts, incidents and pages</span>
        <kbd>Ctrl K</kbd>
      </button>
      <div className="tools">
        <Live />
        <span className="sep" />
        <Clock />
        <span className="sep" />
        <span className="who" title={`Signed in as ${name}, ${session.data?.role ?? ''}`}>
          {name} <em>{session.data?.role}</em>
        </span>
      </div>
    </header>
  )
}

function Crumbs() {
  const [location] = useLocation()
  const page = PAGES.find(({ path }) => location.startsWith(path))
  const id = decodeURIComponent(location.split('/')[2] ?? '')
  if (page === undefined) return <div className="crumb" />
  if (id === '') {
    return (
      <div className="crumb">
        <b>{page.name}</b>
      </div>
    )
  }
  return (
    <nav className="crumb" aria-label="Where you are">
      <Link href={page.path}>{page.name}</Link>
      <ChevronRight size={13} aria-hidden />
      <b>{page.path === '/hosts' ? <HostName id={id} /> : id}</b>
      <CopyButton text={window.location.href} label="Copy the link to this page" />
    </nav>
  )
}

function HostName({ id }: { readonly id: string }) {
  const host = useHost(id)
  return <>{host.data?.hostName ?? id.slice(0, 8)}</>
}

function Live() {
  const state = use(LiveContext)
  const { word, told } = LIVE_WORDS[state]
  return (
    <output className={`live ${state}`} title={told}>
      <i />
      {word}
    </output>
  )
}

function Clock() {
  const nowMs = useNowMs()
  const { zone, name, toggle } = useZone()
  const { clock } = momentParts(nowMs, zone)
  return (
    <button
      type="button"
      className="tz"
      onClick={toggle}
      title="Switches every time between UTC and local (Shift+Z)"
    >
      <span className="mo">{clock}</span> <em>{name}</em>
    </button>
  )
}
