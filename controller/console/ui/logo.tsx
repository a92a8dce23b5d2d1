/** The mark. */

export function Logo({ size = 20 }: { readonly size?: number }) {
  return (
    <svg width={size} height={size} viewBox="0 0 32 32" fill="none" role="img" aria-label="Cordon">
      <path
        d="M16 3l11 4.6v8.2c0 6.3-4.400 11-11 13.200C9.400 26.800 5 22.100 5 15.800V7.600z"
        stroke="currentColor"
        strokeWidth="2.4"
        strokeLinejoin="round"
      />
      <circle cx="16" cy="15.500" r="4" fill="var(--ok)" />
    </svg>
  )
}
