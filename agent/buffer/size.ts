/** How much disk the buffer may take. */
const BUFFER_BYTES_CAP = 1024 ** 3
const BUFFER_BYTES_FLOOR = 8 * 1024 ** 2
const FREE_SHARE = 0.05

/**
 * Cap in bytes for database and write-ahead log: 5% of the free space, at most 1 GiB. Never under 8 MiB: on a
 * nearly full disk the buffer then meets the full disk itself, which it survives.
 */
export function bufferBytesMax(freeBytes: number): number {
  return Math.max(BUFFER_BYTES_FLOOR, Math.min(BUFFER_BYTES_CAP, Math.floor(freeBytes * FREE_SHARE)))
}

/** Part of the cap that only class 0 may use. */
export function reservedBytesFor(bytesMax: number): number {
  return Math.min(8 * 1024 ** 2, Math.floor(bytesMax / 8))
}

export interface SpacePlan {
  /** Bytes of database pages that events of classes 1 to 3 may fill. */
  readonly ordinaryBytes: number
  /** The same for class 0. */
  readonly criticalBytes: number
  /** Acknowledged rows leave while more pages than this are in use: a quarter of the cap. */
  readonly retainedBytes: number
  /** Pages after which the write-ahead log is moved into the database. */
  readonly checkpointPages: number
  /** Bytes that are freed at once when room is needed. */
  readonly dropBytes: number
  /** Bytes and rows of one group commit. */
  readonly groupBytes: number
}

export const PAGE_BYTES = 4_096

/** Divides the cap between pages, the write-ahead log and the reserve. */
export function planSpace(bytesMax: number, reservedBytes: number): SpacePlan {
  const checkpointPages = Math.max(16, Math.min(1_000, Math.floor(bytesMax / 16 / PAGE_BYTES)))
  // The log passes its checkpoint mark by the one group that crosses it.
  const logBytes = 2 * checkpointPages * PAGE_BYTES
  return {
    ordinaryBytes: Math.max(0, bytesMax - logBytes - reservedBytes),
    criticalBytes: Math.max(0, bytesMax - logBytes),
    retainedBytes: Math.floor(bytesMax / 4),
    checkpointPages,
    dropBytes: Math.max(32 * 1024, Math.min(2 * 1024 ** 2, Math.floor(bytesMax / 256))),
    groupBytes: Math.max(32 * 1024, Math.min(1024 ** 2, Math.floor(bytesMax / 32))),
  }
}
