/** Severity is colour, shape and word together, never colour alone. */
import type { Severity } from '../api/types.ts'

const SHAPES: Readonly<Record<Severity, string>> = {
  critical: 'M6 .6 11.4 6 6 11.4 .6 6z',
  high: 'M6 1.2 11.3 10.6H.7z',
  medium: 'M1.6 1.6h8.8v8.8H1.6z',
  low: 'M6 1a5 5 0 1 1 0 10A5 5 0 0 1 6 1z',
  info: 'M6 2.2a3.8 3.8 0 1 1 0 7.6 3.8 3.8 0 0 1 0-7.6z',
}
const WORDS: Readonly<Record<Severity, string>> = {
  critical: 'Critical',
  high: 'High',
  medium: 'Medium',
  low: 'Low',
  info: 'Info',
}

export function SeverityMark({ of, size = 10 }: { readonly of: Severity; readonly size?: number }) {
  return (
    <svg className={`sev ${of}`} width={size} height={size} viewBox="0 0 12 12" role="img" aria-label={of}>
      <path
        d={SHAPES[of]}
        fill={of === 'info' ? 'none' : 'currentColor'}
        stroke="currentColor"
        strokeWidth={of === 'info' ? 1.6 : 0}
      />
    </svg>
  )
}

export function SeverityTag({ of, large = false }: { readonly of: Severity; readonly large?: boolean }) {
  return (
    <span className={`sevtag ${of}${large ? ' large' : ''}`}>
      <SeverityMark of={of} size={large ? 11 : 9} />
      {WORDS[of]}
    </span>
  )
}
