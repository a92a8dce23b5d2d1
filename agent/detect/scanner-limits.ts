/** The bounds of the scanner. */

export interface ScannerLimits {
  readonly queueMax: number
  readonly identitiesMax: number
  readonly scanBytesMax: number
  readonly hashBytesMax: number
  readonly fileTimeoutMs: number
  readonly startTimeoutMs: number
  /** A child without work for so long is ended; the next file starts another. */
  readonly idleMs: number
  readonly residentBytesMax: number
  readonly restartMinMs: number
  readonly restartMaxMs: number
  /** What the child may take of one core on average. */
  readonly cpuShare: number
}

export const SCANNER_LIMITS: ScannerLimits = {
  queueMax: 2_048,
  identitiesMax: 16_384,
  scanBytesMax: 64 * 1024 ** 2,
  hashBytesMax: 1024 ** 3,
  fileTimeoutMs: 10_000,
  startTimeoutMs: 30_000,
  idleMs: 20_000,
  residentBytesMax: 512 * 1024 ** 2,
  restartMinMs: 200,
  restartMaxMs: 30_000,
  cpuShare: 0.25,
}
