/**
 * Says what a change of configuration means. It is fed the records of the file layers, picks those that concern
 * accounts, keys, tasks, units and whatever else makes a program run again, reads the file again and compares it
 * with what it held before. The acting process is the one of the file record.
 */

import { type ExactPath, toExact } from '../exact-path.ts'
import type {
  Attribution,
  ConfigurationChange,
  ConfigurationRecord,
  FileRecord,
  RecordSink,
  Sensor,
} from '../records.ts'
import type { ListFolder, ReadFile } from '../safe-read.ts'
import { type BaselineStore, openBaselineStore } from './baseline-store.ts'
import {
  type ConfigurationRoot,
  createConfigurationRoot,
  type Room,
  type WatchedFile,
} from './configuration-root.ts'
import { createPendingLooks, type PendingLook } from './pending-looks.ts'
import type { FileState } from './state.ts'

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
}

const DEFAULT_LIMITS: Limits = {
  rootsMax: 64,
  filesMax: 30_000,
  charactersMax: 32 * 1024 * 1024,
  pendingMax: 8_192,
  intervalMs: 100,
  settleMs: 250,
}

export interface ConfigurationCounts {
  /** Files that are kept, and the characters they take. */
  readonly files: number
  readonly characters: number
  /** Files that there was no room for. */
  readonly unwatched: number
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

interface Cause {
  readonly timestampMs: number
  readonly pid: number | null
  readonly attribution?: Attribution
}
interface LookedAt {
  readonly root: ConfigurationRoot
  readonly file: WatchedFile
}

const SAVE_INTERVAL_MS = 2_000
/** Files of the baseline that are read before others have their turn. */
const SLICE_FILES = 32

export function createConfigurationWatch(options: ConfigurationWatchOptions): ConfigurationWatch {
  const { clock, read, list, locate, root: hostPrefix = '' } = options
  const warn = options.warn ?? (() => undefined)
  const limits = { ...DEFAULT_LIMITS, ...options.limits }
  const room = createRoom(limits)
  const excludedFolders = (options.excludedFolders ?? []).map(toExact)
  const makeRoot = (root: ExactPath, excluded: readonly ExactPath[]) =>
    createConfigurationRoot({ root, read, list, clock, room, excludedFolders: excluded })
  const host = makeRoot(hostPrefix, excludedFolders)
  const roots = new Map<ExactPath, ConfigurationRoot>()
  const pending = createPendingLooks<LookedAt, Cause>({
    intervalMs: limits.intervalMs,
    filesMax: limits.pendingMax,
  })
  const unsaved = new Map<ExactPath, FileState | null>()
  let store: BaselineStore | null = null
  let sink: RecordSink | null = null
  let timer: NodeJS.Timeout | undefined
  let coalesced = 0
  let overflowed = 0
  let isRescanDue = false
  let isKnown = false
  let nextSaveMs = 0

  function tell(changes: readonly ConfigurationChange[], cause: Cause): void {
    if (changes.length === 0 || sink === null) return
    sink(
      changes.map(
        (change): ConfigurationRecord => ({
          kind: 'configuration',
          timestampMs: cause.timestampMs,
          process: cause.pid === null ? null : { pid: cause.pid, startTicks: null },
          ...(cause.attribution === undefined ? {} : { attribution: cause.attribution }),
          change,
        }),
      ),
    )
  }

  function noteChanged({ root, file }: LookedAt): void {
    if (root !== host || store === null) return
    unsaved.set(file.path, host.kept(file.path) ?? null)
  }

  function lookAt(key: string, look: PendingLook<LookedAt, Cause>, isLast: boolean): void {
    const { root, file } = look.file
    const seen = root.look(file)
    const isGone = seen.before !== null && (seen.after === null || isEmpty(seen.after))
    if (isGone && !isLast && (look.goneSinceMs === null || clock() - look.goneSinceMs < limits.settleMs)) {
      pending.lookAgain(key, look, clock(), limits.settleMs)
      return
    }
    // passwd says whether the account of an entry came or went with it.
    if (file.topic.kind === 'accounts' && file.topic.file !== 'passwd') {
      const passwd: WatchedFile = { path: '/etc/passwd', topic: { kind: 'accounts', file: 'passwd' } }
      if (root.kept(passwd.path) !== undefined) settle({ root, file: passwd }, look.cause)
    }
    coalesced += look.count - 1
    tell(root.apply(file, seen), look.cause)
    noteChanged(look.file)
    followUp(look.file, look.cause)
  }

  /** Looks at once, whatever is pending. */
  function settle(at: LookedAt, cause: Cause): void {
    const seen = at.root.look(at.file)
    if (seen.after === null || isEmpty(seen.after)) return
    tell(at.root.apply(at.file, seen), cause)
    noteChanged(at)
    followUp(at, cause)
  }

  /** What a file says can make others count. */
  function followUp({ root, file }: LookedAt, cause: Cause): void {
    if (decidesPlaces(file)) {
      for (const home of root.refreshPlaces()) {
        for (const found of root.filesOfHome(home)) enqueue(root, found, cause, limits.intervalMs)
      }
    }
    for (const found of root.takeDiscovered()) enqueue(root, found, cause, 0)
  }

  function enqueue(root: ConfigurationRoot, file: WatchedFile, cause: Cause, delayMs: number): void {
    const key = `${root === host ? '' : root.prefix}\0${file.path}`
    if (pending.add(key, { root, file }, cause, clock(), delayMs)) {
      // Others of the same batch can be judged only by what these say.
      if (decidesPlaces(file) && isKnown && sink !== null) {
        const look = pending.takeOne(key, clock())
        if (look !== null) lookAt(key, look, false)
      }
    } else {
      overflowed += 1
      isRescanDue = true
    }
    schedule()
  }

  function schedule(): void {
    if (sink === null || !isKnown || timer !== undefined) return
    const nextMs = pending.nextMs()
    const dueMs = isRescanDue
      ? clock()
      : unsaved.size > 0
        ? Math.min(nextMs ?? nextSaveMs, nextSaveMs)
        : nextMs
    if (dueMs === null) return
    timer = setTimeout(tick, Math.max(0, Math.min(dueMs - clock(), limits.settleMs)))
  }

  function tick(): void {
    timer = undefined
    for (const { key, look } of pending.take(clock())) lookAt(key, look, false)
    if (isRescanDue && pending.nextMs() === null) {
      isRescanDue = false
      const cause: Cause = { timestampMs: clock(), pid: null }
      for (const root of [host, ...roots.values()]) {
        root.refreshPlaces()
        for (const file of root.files()) settleOrGone({ root, file }, cause)
      }
    }
    if (clock() >= nextSaveMs) save()
    schedule()
  }

  function settleOrGone(at: LookedAt, cause: Cause): void {
    const seen = at.root.look(at.file)
    tell(at.root.apply(at.file, seen), cause)
    noteChanged(at)
  }

  function save(): void {
    nextSaveMs = clock() + SAVE_INTERVAL_MS
    if (store === null || unsaved.size === 0) return
    store.save(unsaved)
    unsaved.clear()
  }

  function baselineOf(root: ConfigurationRoot): void {
    const passwd: WatchedFile = { path: '/etc/passwd', topic: { kind: 'accounts', file: 'passwd' } }
    root.keep(passwd.path, root.look(passwd).after)
    root.refreshPlaces()
    for (const file of root.files()) root.keep(file.path, root.look(file).after)
    for (const file of root.takeDiscovered()) root.keep(file.path, root.look(file).after)
  }

  function addRoot(prefix: ExactPath): ConfigurationRoot | null {
    const known = roots.get(prefix)
    if (known !== undefined) return known
    if (roots.size >= limits.rootsMax) return null
    const root = makeRoot(prefix, [])
    roots.set(prefix, root)
    baselineOf(root)
    return root
  }

  /** The host's files, against what is known of an earlier life where there is such knowledge. */
  async function takeBaseline(signal: AbortSignal): Promise<void> {
    const earlier = store?.load() ?? null
    for (const [path, state] of earlier ?? []) host.keep(path, state)
    const cause: Cause = { timestampMs: clock(), pid: null }
    let files = 0
    const take = (file: WatchedFile) => {
      const seen = host.look(file)
      if (earlier === null) host.keep(file.path, seen.after)
      else tell(host.apply(file, seen), cause)
      if (earlier === null || !isSameState(seen.before, seen.after)) noteChanged({ root: host, file })
      files += 1
    }
    take({ path: '/etc/passwd', topic: { kind: 'accounts', file: 'passwd' } })
    host.refreshPlaces()
    for (const file of host.files()) {
      take(file)
      if (files % SLICE_FILES === 0) await new Promise(setImmediate)
      if (signal.aborted) return
    }
    for (const file of host.takeDiscovered()) take(file)
    save()
    store?.complete()
  }

  function observePath(path: ExactPath, record: FileRecord): void {
    const isOfHost = path.startsWith(hostPrefix)
    const inside = isOfHost ? path.slice(hostPrefix.length) : path
    if (isOfHost && observeInside(host, inside, record)) return
    const located = locate?.(path) ?? null
    if (located === null) return
    const isNew = !roots.has(located.root)
    // A root that is first heard of by a change of passwd has no earlier one to compare it with.
    const root = addRoot(located.root)
    if (root !== null && !isNew) observeInside(root, located.inside, record)
  }

  function observeInside(root: ConfigurationRoot, inside: ExactPath, record: FileRecord): boolean {
    if (!root.mayMatter(inside)) return false
    const topic = root.topicOf(inside)
    const isLater = record.action === 'creation' && !record.contentComplete
    if (topic !== null) {
      enqueue(root, { path: inside, topic }, record, isLater ? limits.intervalMs : 0)
      return true
    }
    // A folder that moves takes its files along, and a link in its place brings others.
    const canBeFolder =
      record.action === 'rename' || (record.action === 'creation' && !record.contentComplete)
    if (!canBeFolder || !root.concerns(inside)) return false
    for (const file of root.filesBelow(inside)) enqueue(root, file, record, 0)
    return true
  }

  return {
    name: 'configuration',
    observe(record) {
      observePath(toExact(record.path), record)
      if (record.previousPath !== null) observePath(toExact(record.previousPath), record)
    },
    rescan() {
      isRescanDue = true
      schedule()
    },
    addRoot: (prefix) => void addRoot(prefix),
    removeRoot(prefix) {
      roots.get(prefix)?.release()
      roots.delete(prefix)
    },
    counts: () => ({ ...room.counts(), coalesced, overflowed }),
    async run(into, signal, attached) {
      sink = into
      store = options.baselinePath ? openBaselineStore(options.baselinePath, warn) : null
      try {
        await takeBaseline(signal)
        isKnown = true
        if (!signal.aborted) attached()
        schedule()
        await new Promise<void>((resolve) => {
          if (signal.aborted) resolve()
          else signal.addEventListener('abort', () => resolve(), { once: true })
        })
        for (const { key, look } of pending.take(Number.POSITIVE_INFINITY)) lookAt(key, look, true)
        save()
      } finally {
        clearTimeout(timer)
        timer = undefined
        sink = null
        store?.close()
        store = null
      }
    },
  }
}

/** passwd says where homes are, sshd's configuration where keys are. */
function decidesPlaces({ topic, path }: WatchedFile): boolean {
  return (topic.kind === 'accounts' && topic.file === 'passwd') || path.startsWith('/etc/ssh/sshd_config')
}

function isEmpty(state: FileState): boolean {
  switch (state.kind) {
    case 'text':
      return state.digest === 'empty'
    case 'accounts':
      return state.entries.size === 0
    case 'keys':
      return state.keys.size === 0
  }
}

function isSameState(one: FileState | null, other: FileState | null): boolean {
  return one?.kind === 'text' && other?.kind === 'text' && one.digest === other.digest
}

function createRoom(limits: Limits): Room & {
  counts(): Pick<ConfigurationCounts, 'files' | 'characters' | 'unwatched'>
} {
  let files = 0
  let characters = 0
  let unwatched = 0
  return {
    take(moreFiles, moreCharacters) {
      if (files + moreFiles > limits.filesMax || characters + moreCharacters > limits.charactersMax) {
        unwatched += 1
        return false
      }
      files += moreFiles
      characters += moreCharacters
      return true
    },
    give(fewerFiles, fewerCharacters) {
      files -= fewerFiles
      characters -= fewerCharacters
    },
    counts: () => ({ files, characters, unwatched }),
  }
}
