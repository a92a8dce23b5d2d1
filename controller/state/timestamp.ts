/** Milliseconds since 1970 as RFC 3339 in UTC, the way every answer tells times. */
export function timestamp(ms: number): string {
  return new Date(ms).toISOString()
}
