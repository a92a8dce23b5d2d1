/**
 * Which files are to be looked at, and when: a file that changes a thousand times in a second is looked at a few
 * times, the last time after its last change. Pure: the time is handed in.
 */

export interface PendingLook<File, Cause> {
  readonly file: File
  readonly cause: Cause
  /** Changes that this look stands for. */
  readonly count: number
  /** Since when the file has been gone, though it was there before; null: not so. */
  readonly goneSinceMs: number | null
}

interface Entry<File, Cause> {
  look: PendingLook<File, Cause> | null
  dueMs: number
}

export interface PendingLooks<File, Cause> {
  /** False when there is no room for one more file. */
  add(key: string, file: File, cause: Cause, nowMs: number, delayMs: number): boolean
  /** A file that was gone is looked at again, for many programs remove and write anew. */
  lookAgain(key: string, look: PendingLook<File, Cause>, nowMs: number, delayMs: number): void
  /** What is due, of so many files; each then rests for the interval. */
  take(nowMs: number, filesMax: number): { readonly key: string; readonly look: PendingLook<File, Cause> }[]
  takeOne(key: string, nowMs: number): PendingLook<File, Cause> | null
  /** When something is due next; null: never. */
  nextMs(): number | null
}

export function createPendingLooks<File, Cause>(options: {
  /** How long a file rests after a look. */
  readonly restMs: (file: File) => number
  /** The cause of a look that stands for two changes, the earlier one first. */
  readonly joined: (earlier: Cause, later: Cause) => Cause
  readonly filesMax: number
}): PendingLooks<File, Cause> {
  const entries = new Map<string, Entry<File, Cause>>()

  function takeEntry(key: string, entry: Entry<File, Cause>, nowMs: number): PendingLook<File, Cause> | null {
    const { look } = entry
    if (look === null) {
      entries.delete(key)
      return null
    }
    entry.look = null
    entry.dueMs = nowMs + options.restMs(look.file)
    return look
  }

  return {
    add(key, file, cause, nowMs, delayMs) {
      const entry = entries.get(key)
      if (entry === undefined) {
        if (entries.size >= options.filesMax) return false
        const look = { file, cause, count: 1, goneSinceMs: null }
        entries.set(key, { look, dueMs: nowMs + delayMs })
        return true
      }
      const { look } = entry
      const goneSinceMs = look?.goneSinceMs ?? null
      const joined = look === null ? cause : options.joined(look.cause, cause)
      entry.look = { file, cause: joined, count: (look?.count ?? 0) + 1, goneSinceMs }
      if (look === null) entry.dueMs = Math.max(entry.dueMs, nowMs + delayMs)
      return true
    },
    lookAgain(key, look, nowMs, delayMs) {
      const entry = entries.get(key)
      if (entry === undefined) return
      entry.look = { ...look, goneSinceMs: look.goneSinceMs ?? nowMs }
      entry.dueMs = nowMs + delayMs
    },
    take(nowMs, filesMax) {
      const due: { key: string; look: PendingLook<File, Cause> }[] = []
      for (const [key, entry] of entries) {
        if (due.length >= filesMax) break
        if (entry.dueMs > nowMs) continue
        const look = takeEntry(key, entry, nowMs)
        if (look !== null) due.push({ key, look })
      }
      return due
    },
    takeOne(key, nowMs) {
      const entry = entries.get(key)
      return entry === undefined || entry.dueMs > nowMs ? null : takeEntry(key, entry, nowMs)
    },
    nextMs() {
      let next: number | null = null
      for (const { dueMs } of entries.values()) if (next === null || dueMs < next) next = dueMs
      return next
    },
  }
}
