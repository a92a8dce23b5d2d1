/**
 * The wire protocol's version and its history. A change to any message raises the version and adds an entry;
 * a test holds the schemas' fingerprint and the newest entry together.
 */
export const PROTOCOL_VERSION = 1

export interface ProtocolChange {
  readonly version: number
  /** ISO date. */
  readonly date: string
  readonly change: string
}

export const PROTOCOL_HISTORY: readonly ProtocolChange[] = [
  {
    version: 1,
    date: '2026-11-24',
    change:
      'Hello with watermarks, event batches in zstd, acknowledgements with credits, signed commands, collected files, renewal.',
  },
]
