/** When a certificate ends; agents renew at half life, so one that is nearly over asks for a look. */
import { Time } from './time.tsx'

const SOON_MS = 3 * 24 * 3_600_000

export function CertificateEnd({ at }: { readonly at: string }) {
  const leftMs = Date.parse(at) - Date.now()
  if (!Number.isFinite(leftMs)) return <span className="mut">not known</span>
  const tone = leftMs < 0 ? 'c-critical' : leftMs < SOON_MS ? 'c-high' : 'quiet'
  return (
    <span className={tone} title={leftMs < 0 ? 'It has ended: the agent cannot connect' : undefined}>
      <Time at={at} form="day" />
      {leftMs < 0 ? ' ended' : ''}
    </span>
  )
}
