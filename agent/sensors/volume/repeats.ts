/**
 * Tells what a process does to one path over and over once, and then once more when the window is over: with the
 * last record of each action, and how many came between. The order of the actions on a path is kept.
 */
import type { FileRecord } from '../records.ts'

/** What one process did to one path within the window. */
interface PathEntry {
  readonly owner: PathOwner
  readonly key: string
  endsMs: number
  /** Actions that were told, as bits. */
  told: number
  /** Actions that came again, the one that came last at the end. */
  held: Held[]
  isGone: boolean
}

interface Held {
  record: FileRecord
  count: number
  contentComplete: boolean
}

/** The paths of one process. */
export interface PathOwner {
  readonly paths: Map<string, PathEntry>
}

export interface Repeats {
  /** True when the record is kept until the window ends. */
  hold(owner: PathOwner, key: string, record: FileRecord): boolean
  /**
   * The record is told: from now on its like is held. What is held of the path is released first, for an action
   * that follows.
   */
  told(owner: PathOwner, key: string, record: FileRecord, nowMs: number): void
  /** Releases what is held of a path because another action is about to be told. */
  releasePath(owner: PathOwner, key: string): void
  /** Releases what is held of a process, and forgets its paths. */
  releaseAll(owner: PathOwner): void
  /** Releases what is due. */
  expire(nowMs: number): void
  readonly isEmpty: () => boolean
}

const bits = { creation: 1, modification: 2, deletion: 4, rename: 8 } as const

/** `release` gets each record that was held, with `repeated`, and its owner. */
export function createRepeats(
  windowMs: number,
  entriesMax: number,
  release: (record: FileRecord, owner: PathOwner) => void,
): Repeats {
  /** In the order in which their windows end, because all windows are of one length. */
  let queue: PathEntry[] = []
  let head = 0
  let living = 0

  function releaseEntry(entry: PathEntry): boolean {
    if (entry.held.length === 0) return false
    const { held } = entry
    entry.held = []
    for (const { record, count, contentComplete } of held) {
      const repeated = count > 1 ? { repeated: count - 1 } : {}
      release({ ...record, contentComplete, ...repeated }, entry.owner)
    }
    return true
  }

  function forget(entry: PathEntry): void {
    entry.isGone = true
    entry.owner.paths.delete(entry.key)
    living -= 1
  }

  function takeFirst(): PathEntry | undefined {
    const entry = queue[head]
    if (entry === undefined) return undefined
    head += 1
    if (head > 4_096 && head * 2 > queue.length) {
      queue = queue.slice(head)
      head = 0
    }
    return entry
  }

  /** Makes room by giving up the entry whose window ends first. */
  function evict(): void {
    while (living >= entriesMax) {
      const entry = takeFirst()
      if (entry === undefined) return
      if (entry.isGone) continue
      releaseEntry(entry)
      forget(entry)
    }
  }

  return {
    hold(owner, key, record) {
      const entry = owner.paths.get(key)
      if (entry === undefined || (entry.told & bits[record.action]) === 0) return false
      const at = entry.held.findIndex((held) => held.record.action === record.action)
      if (at === -1) {
        entry.held.push({ record, count: 1, contentComplete: record.contentComplete })
        return true
      }
      const [held] = entry.held.splice(at, 1)
      if (held === undefined) return false
      held.record = record
      held.count += 1
      held.contentComplete ||= record.contentComplete
      entry.held.push(held)
      return true
    },
    told(owner, key, record, nowMs) {
      const known = owner.paths.get(key)
      if (known !== undefined) {
        known.told |= bits[record.action]
        return
      }
      if (living >= entriesMax) evict()
      const entry: PathEntry = {
        owner,
        key,
        endsMs: nowMs + windowMs,
        told: bits[record.action],
        held: [],
        isGone: false,
      }
      owner.paths.set(key, entry)
      // Entries of processes that ended stay behind in the queue: they must not outgrow it.
      if (queue.length - head > 2 * entriesMax) {
        queue = queue.slice(head).filter(({ isGone }) => !isGone)
        head = 0
      }
      queue.push(entry)
      living += 1
    },
    releasePath(owner, key) {
      const entry = owner.paths.get(key)
      if (entry !== undefined) releaseEntry(entry)
    },
    releaseAll(owner) {
      for (const entry of [...owner.paths.values()]) {
        releaseEntry(entry)
        forget(entry)
      }
    },
    expire(nowMs) {
      for (;;) {
        const entry = queue[head]
        if (entry === undefined || (!entry.isGone && entry.endsMs > nowMs)) return
        takeFirst()
        if (entry.isGone) continue
        if (releaseEntry(entry)) {
          // It goes on: what was released counts as told, and a new window begins.
          entry.endsMs = nowMs + windowMs
          queue.push(entry)
        } else {
          forget(entry)
        }
      }
    },
    isEmpty: () => living === 0,
  }
}
