/**
 * Says what a change of configuration means. It is fed the records of the file layers, picks those that concern
 * accounts, keys, tasks, units and whatever else makes a program run again, reads the file again and compares it
 * with what it held before. The acting process is the one of the file record.
 */
import { aborted, pause } from '../../../shared/node/loop.ts'
import { type ExactPath, toExact } from '../exact-path.ts'
import type { FileRecord, Sensor } from '../records.ts'
import type { ListFolder, ReadFile } from '../safe-read.ts'
import { type BaselineStore, openBaselineStore } from './baseline-store.ts'
import { type ConfigurationRoot, createConfigurationRoot } from './configuration-root.ts'
import { type Cause, createExamination, type Examination, PASSWD } from './examination.ts'
import { createRoom, type RoomCounts } from './room.ts'

export interface ConfigurationWatchOptions {
  readonly read: ReadFile
  readonly list: ListFolder
  /** Wall clock in milliseconds. */
  readonly clock: () => number
  /** Prefix of the host's own paths: '' unless the host is looked at from within a container. */
  readonly root?: ExactPath
  /** Where to keep what was seen across restarts; null: nowhere. */
  readonly baselinePath?: string | null
  /**
   * Which container's root a path belongs to, and its path inside; null: none. Asked for every path that is not of
   * the host's configuration, so it must be cheap. Files are read below `root`.
   */
  readonly locate?: (path: ExactPath) => { readonly root: ExactPath; readonly inside: ExactPath } | null
  /** Folders that are never looked into, such as network file systems: one that does not answer blocks the agent. */
  readonly excludedFolders?: readonly string[]
  readonly warn?: (message: string) => void
  readonly limits?: Partial<Limits>
}

interface Limits {
  readonly rootsMax: number
  readonly filesMax: number
  readonly charactersMax: number
  readonly pendingMax: number
  /** A file is looked at once in this time. */
  readonly intervalMs: number
  /** How long a file that was there may be gone before that is told. */
  readonly settleMs: number
  /** All is looked at again at most once in this time. */
  readonly rescanIntervalMs: number
}

const DEFAULT_LIMITS: Limits = {
  rootsMax: 64,
  filesMax: 30_000,
  charactersMax: 32 * 1024 * 1024,
  pendingMax: 8_192,
  intervalMs: 100,
  settleMs: 250,
  rescanIntervalMs: 5_000,
}

export interface ConfigurationCounts extends RoomCounts {
  /** Changes that another one followed before the file was looked at. */
  readonly coalesced: number
  /** Changes that were let go because too many files changed at once; all is looked at again after that. */
  readonly overflowed: number
}

export interface ConfigurationWatch extends Sensor {
  /** Cheap for what is no configuration. Never throws. */
  observe(record: FileRecord): void
  /** Looks at all files again: after the file layer lost records. What changed is told without an actor. */
  rescan(): void
  /** Takes the baseline of a container's root before anything happens in it. */
  addRoot(root: ExactPath): void
  removeRoot(root: ExactPath): void
  counts(): ConfigurationCounts
}

/** Files of the baseline that are read before others have their turn. */
const SLICE_FILES = 32
const EARLY_RECORDS_MAX = 1_024

export function createConfigurationWatch(options: ConfigurationWatchOptions): ConfigurationWatch {
  const { clock, read, list, locate, root: hostPrefix = '' } = options
  const limits = { ...DEFAULT_LIMITS, ...options.limits }
  const room = createRoom(limits)
  const makeRoot = (root: ExactPath, excludedFolders: readonly ExactPath[]) =>
    createConfigurationRoot({ root, read, list, clock, room, excludedFolders })
  const host = makeRoot(hostPrefix, (options.excludedFolders ?? []).map(toExact))
  const roots = new Map<ExactPath, ConfigurationRoot>()
  let examination: Examination | null = null
  /** What happens while the baseline is taken is looked at after it; null: it is taken, or will not be. */
  let early: FileRecord[] | null = []
  let overflowed = 0
  let coalesced = () => 0
  let rescanWanted = Promise.withResolvers<void>()

  function addRoot(prefix: ExactPath): ConfigurationRoot | null {
    const known = roots.get(prefix)
    if (known !== undefined) return known
    if (roots.size >= limits.rootsMax) return null
    const root = makeRoot(prefix, [])
    roots.set(prefix, root)
    root.keep(PASSWD.path, root.look(PASSWD).after)
    root.refreshPlaces()
    for (const file of root.files()) if (file !== null) root.keep(file.path, root.look(file).after)
    for (const file of root.takeDiscovered()) root.keep(file.path, root.look(file).after)
    return root
  }

  function observePath(path: ExactPath, record: FileRecord): void {
    if (path.startsWith(hostPrefix) && observeInside(host, path.slice(hostPrefix.length), record)) return
    const located = locate?.(path) ?? null
    if (located === null) return
    // A root that is first heard of by a change has nothing earlier to compare it with.
    const known = roots.get(located.root)
    if (known === undefined) addRoot(located.root)
    else observeInside(known, located.inside, record)
  }

  function observeInside(root: ConfigurationRoot, inside: ExactPath, record: FileRecord): boolean {
    if (!root.mayMatter(inside)) return false
    const topic = root.topicOf(inside)
    const isIncomplete = record.action === 'creation' && !record.contentComplete
    if (topic !== null) {
      // What was only just created is about to be written.
      examination?.enqueue(
        { root, file: { path: inside, topic } },
        record,
        isIncomplete ? limits.intervalMs : 0,
      )
      return true
    }
    // A folder that moves takes its files along, and a link in its place brings others.
    if ((record.action !== 'rename' && !isIncomplete) || !root.concerns(inside)) return false
    for (const file of root.filesBelow(inside)) examination?.enqueue({ root, file }, record, 0)
    return true
  }

  function observe(record: FileRecord): void {
    if (early === null) {
      observePath(toExact(record.path), record)
      if (record.previousPath !== null) observePath(toExact(record.previousPath), record)
    } else if (host.mayMatter(toExact(record.path).slice(hostPrefix.length))) {
      if (early.length < EARLY_RECORDS_MAX) early.push(record)
      else rescanWanted.resolve()
    }
  }

  /** Looks at all files of a root against what is kept of them. */
  async function sweep(root: ConfigurationRoot, into: Examination, signal: AbortSignal): Promise<void> {
    const cause: Cause = { timestampMs: clock(), pid: null }
    root.refreshPlaces()
    let files = 0
    for (const file of root.files()) {
      if (file !== null) into.lookNow({ root, file }, cause)
      files += 1
      if (files % SLICE_FILES === 0) await new Promise(setImmediate)
      if (signal.aborted) return
    }
  }

  /** The host's files, against what is known of an earlier life where there is such knowledge. */
  async function takeBaseline(
    into: Examination,
    store: BaselineStore | null,
    signal: AbortSignal,
  ): Promise<void> {
    const earlier = store?.load() ?? null
    for (const [path, state] of earlier ?? []) host.keep(path, state)
    if (earlier === null) {
      into.learn({ root: host, file: PASSWD })
      host.refreshPlaces()
      let files = 0
      for (const file of host.files()) {
        if (file !== null) into.learn({ root: host, file })
        files += 1
        if (files % SLICE_FILES === 0) await new Promise(setImmediate)
        if (signal.aborted) return
      }
      for (const file of host.takeDiscovered()) into.learn({ root: host, file })
    } else {
      into.lookNow({ root: host, file: PASSWD }, { timestampMs: clock(), pid: null })
      await sweep(host, into, signal)
    }
    store?.complete()
  }

  return {
    name: 'configuration',
    observe,
    rescan: () => rescanWanted.resolve(),
    addRoot: (prefix) => void addRoot(prefix),
    removeRoot(prefix) {
      roots.get(prefix)?.release()
      roots.delete(prefix)
    },
    counts: () => ({ ...room.counts(), coalesced: coalesced(), overflowed }),
    async run(sink, signal, attached) {
      const store = options.baselinePath
        ? openBaselineStore(options.baselinePath, options.warn ?? (() => undefined))
        : null
      const into = createExamination({
        clock,
        sink,
        store,
        host,
        limits,
        isWatched: (root) => root === host || roots.get(root.prefix) === root,
        overflowed() {
          overflowed += 1
          rescanWanted.resolve()
        },
      })
      coalesced = into.coalesced
      try {
        await takeBaseline(into, store, signal)
        examination = into
        const held = early ?? []
        early = null
        for (const record of held) observe(record)
        if (!signal.aborted) attached()
        const ended = aborted(signal)
        while (!signal.aborted) {
          await Promise.race([ended, rescanWanted.promise])
          if (signal.aborted) break
          rescanWanted = Promise.withResolvers()
          for (const root of [host, ...roots.values()]) await sweep(root, into, signal)
          await pause(limits.rescanIntervalMs, signal)
        }
      } finally {
        into.finish()
        examination = null
        early = null
        store?.close()
      }
    },
  }
}
