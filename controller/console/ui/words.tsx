/** States of hosts, incidents and actions as people read them. */
import {
  Ban,
  Check,
  CircleDashed,
  Hourglass,
  type LucideIcon,
  Pause,
  Power,
  Undo2,
  Unplug,
  X,
} from 'lucide-react'
import type { Action, Host, Incident } from '../api/types.ts'

/** Words for a state that this console does not know yet are the state itself. */
const HOST_STATES: Readonly<
  Record<string, { readonly word: string; readonly tone: string; readonly icon?: LucideIcon }>
> = {
  connected: { word: 'Connected', tone: 'ok' },
  silent: { word: 'Silent', tone: 'warn' },
  stopped: { word: 'Stopped', tone: 'med', icon: Power },
  held: { word: 'Held', tone: 'med', icon: Pause },
  revoked: { word: 'Revoked', tone: 'quiet', icon: Ban },
}

export function HostState({ state }: { readonly state: Host['state'] | 'unknown' }) {
  const { word, tone, icon: Icon } = HOST_STATES[state] ?? { word: state, tone: 'quiet' }
  return (
    <span className={`st ${tone}`}>
      {Icon ? <Icon size={11} /> : <i />}
      {word}
    </span>
  )
}

export function isIsolated({ isolation }: Pick<Host, 'isolation'>): boolean {
  return isolation !== null && isolation.state !== 'off'
}

/** As the agent told it; nothing for a host that is not cut off. */
export function Isolation({ host: { isolation } }: { readonly host: Pick<Host, 'isolation'> }) {
  if (isolation === null || isolation.state === 'off') return null
  return (
    <span className="st auto" title={isolation.reason}>
      <Unplug size={11} aria-hidden />
      {isolation.state === 'unconfirmed' ? 'Isolated, unconfirmed' : 'Isolated'}
    </span>
  )
}

export function hostStateWord(state: string): string {
  return HOST_STATES[state]?.word ?? state
}

const INCIDENT_TONES: Readonly<Record<Incident['status'], string>> = {
  open: 'warn',
  contained: 'ok',
  closed: 'quiet',
}

export function IncidentStatus({ status }: { readonly status: Incident['status'] }) {
  return (
    <span className={`st ${INCIDENT_TONES[status] ?? 'quiet'}`}>
      <i />
      {status.charAt(0).toUpperCase() + status.slice(1)}
    </span>
  )
}

const ACTION_WORDS: Readonly<Record<Action['state'], string>> = {
  requested: 'requested',
  awaitingApproval: 'awaits approval',
  queued: 'queued',
  sent: 'sent to the host',
  received: 'received by the agent',
  applied: 'applied',
  probed: 'probed',
  done: 'done',
  expired: 'expired',
  cancelled: 'cancelled',
  failed: 'failed',
  refused: 'refused',
  reverted: 'reverted',
  unknown: 'unknown',
}

export function actionStateWord(state: Action['state']): string {
  return ACTION_WORDS[state] ?? state
}

export type ActionPhase = 'waiting' | 'underWay' | 'done' | 'wrong' | 'ended'

export function phaseOf(state: Action['state']): ActionPhase {
  switch (state) {
    case 'awaitingApproval':
      return 'waiting'
    case 'done':
      return 'done'
    case 'failed':
    case 'refused':
    case 'expired':
    case 'unknown':
      return 'wrong'
    case 'cancelled':
    case 'reverted':
      return 'ended'
    default:
      return 'underWay'
  }
}

const ACTION_ICONS: Readonly<Record<Exclude<ActionPhase, 'underWay'>, LucideIcon>> = {
  waiting: Hourglass,
  done: Check,
  wrong: X,
  ended: CircleDashed,
}

export function ActionMark({ state }: { readonly state: Action['state'] }) {
  const phase = phaseOf(state)
  if (phase === 'underWay') return <span className="ring" aria-hidden />
  const Icon = state === 'reverted' ? Undo2 : ACTION_ICONS[phase]
  return <Icon size={13} className={`am ${phase}`} aria-hidden />
}
