/** Moments and durations. One switch decides for every moment on the page whether it is told in UTC or local time. */
import { createContext, type ReactNode, use, useMemo, useState } from 'react'

export type Zone = 'utc' | 'local'

const STORED_AS = 'cordon.zone'

interface ZoneChoice {
  readonly zone: Zone
  /** As it stands beside times. */
  readonly name: string
  toggle(): void
}

const ZoneContext = createContext<ZoneChoice>({ zone: 'utc', name: 'UTC', toggle: () => undefined })

export function ZoneProvider({ children }: { readonly children: ReactNode }) {
  const [zone, setZone] = useState<Zone>(localStorage.getItem(STORED_AS) === 'local' ? 'local' : 'utc')
  const choice = useMemo(
    () => ({
      zone,
      name: zoneName(zone),
      toggle() {
        const next = zone === 'utc' ? 'local' : 'utc'
        localStorage.setItem(STORED_AS, next)
        setZone(next)
      },
    }),
    [zone],
  )
  return <ZoneContext value={choice}>{children}</ZoneContext>
}

export function useZone(): ZoneChoice {
  return use(ZoneContext)
}

function zoneName(zone: Zone): string {
  if (zone === 'utc') return 'UTC'
  const parts = new Intl.DateTimeFormat('en-GB', { timeZoneName: 'short' }).formatToParts(new Date())
  return `local, ${parts.find(({ type }) => type === 'timeZoneName')?.value ?? 'unknown'}`
}

export interface MomentParts {
  readonly date: string
  readonly clock: string
  readonly milliseconds: string
}

export function momentParts(ms: number, zone: Zone): MomentParts {
  const shifted = zone === 'utc' ? ms : ms - new Date(ms).getTimezoneOffset() * 60_000
  const iso = new Date(shifted).toISOString()
  return { date: iso.slice(0, 10), clock: iso.slice(11, 19), milliseconds: iso.slice(20, 23) }
}

/** `clock` alone where the day is plain from what stands around it; `moment` with the day; `day` alone. */
export function Time({
  at,
  form = 'moment',
}: {
  readonly at: string
  readonly form?: 'moment' | 'clock' | 'day'
}) {
  const { zone, name } = useZone()
  const ms = Date.parse(at)
  if (!Number.isFinite(ms)) return <span className="mut">unknown</span>
  const { date, clock, milliseconds } = momentParts(ms, zone)
  const text = form === 'clock' ? clock : form === 'day' ? date : `${date} ${clock}`
  return (
    <time dateTime={at} title={`${date} ${clock}.${milliseconds} ${name}`}>
      {text}
    </time>
  )
}

/** Such as `312 ms`, `4 min 28 s` or `2 h 5 min`. */
export function durationInWords(durationMs: number): string {
  const ms = Math.abs(Math.round(durationMs))
  if (ms < 1_000) return `${ms} ms`
  if (ms < 10_000) return `${(ms / 1_000).toFixed(1)} s`
  const seconds = Math.round(ms / 1_000)
  if (seconds < 60) return `${seconds} s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return both(minutes, 'min', seconds % 60, 's')
  const hours = Math.floor(minutes / 60)
  if (hours < 48) return both(hours, 'h', minutes % 60, 'min')
  return both(Math.floor(hours / 24), 'd', hours % 24, 'h')
}

function both(large: number, largeUnit: string, small: number, smallUnit: string): string {
  return small === 0 ? `${large} ${largeUnit}` : `${large} ${largeUnit} ${small} ${smallUnit}`
}
