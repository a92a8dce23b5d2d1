/**
 * Which processes there are, kept from what the sensors tell: every event is joined to its process here. A
 * process is its pid and start time; entries outlive their exit for a while, because file events arrive late.
 */
import type { ProcessSnapshot } from '../platform/linux/proc.ts'
import { type Container, createContainerFinder } from './container-of-cgroup.ts'
import { createElapsed } from './elapsed.ts'
import type {
  ExecCircumstances,
  ExecRecord,
  ExitRecord,
  FileIdentity,
  ForkRecord,
  KernelText,
  ProcessKey,
} from './records.ts'

export interface TrackedProcess {
  readonly key: ProcessKey
  readonly entityId: string
  readonly startedMs: number
  /** Cut off past twice ANCESTORS_MAX, so that an endless chain of successors does not hold memory. */
  parent: TrackedProcess | null
  depth: number
  readonly parentPid: number
  executable: KernelText | null
  arguments: readonly KernelText[]
  argumentsTruncated: boolean
  workingDirectory: KernelText | null
  userId: number
  groupId: number
  sessionId: number
  file: FileIdentity | null
  container: Container | null
  /** Of the program that runs; null when the layer does not tell, or the program ran before. */
  circumstances: ExecCircumstances | null
  /** True once an event about it was made: others may refer to it. */
  announced: boolean
  /** By the table's own time; null as long as it runs. */
  exitedMs: number | null
}

export interface ProcessTableOptions {
  readonly agentId: string
  readonly bootId: string
  readonly bootTimeMs: number
  readonly clock: () => number
  readonly readProcess: (pid: number) => ProcessSnapshot | null
  /** Exited processes are kept this long. */
  readonly keepExitedMs?: number
  readonly entriesMax?: number
}

export interface ProcessTable {
  /** Takes what runs already, without announcing it. */
  load(pids: readonly number[]): void
  fork(record: ForkRecord): void
  exec(record: ExecRecord): TrackedProcess
  exit(record: ExitRecord): TrackedProcess | null
  /** By pid alone, for sources that have no start time; looks into /proc when unknown. */
  find(pid: number): TrackedProcess | null
  findExact(key: ProcessKey): TrackedProcess | null
  findEntity(entityId: string): TrackedProcess | null
  /** Names a process for good, known or not. */
  entityId(key: ProcessKey): string
  /**
   * Running processes that descend from `root`, in no order, at most DESCENDANTS_MAX: also those that /proc no
   * longer shows below it, because a parent between exited. Ancestry is followed as far as it is kept.
   */
  descendantsOf(root: ProcessKey): ProcessKey[]
  /** Forgets what exited long ago. */
  sweep(): void
  size(): number
}

/** What is told late, such as what a changed file means, still finds who did it. */
const KEEP_EXITED_MS = 5_000
const ENTRIES_MAX = 65_536
/** Depth of ancestry that is followed: a chain of parents is longer only when something is wrong. */
const ANCESTORS_MAX = 32
const DESCENDANTS_MAX = 4_096

export function createProcessTable(options: ProcessTableOptions): ProcessTable {
  const elapsed = createElapsed(options.clock)
  const keepExitedMs = options.keepExitedMs ?? KEEP_EXITED_MS
  const entriesMax = options.entriesMax ?? ENTRIES_MAX
  const prefix = `${options.agentId.slice(0, 8)}.${options.bootId.replaceAll('-', '').slice(0, 8)}.`
  const byPid = new Map<number, TrackedProcess>()
  /** Exited entries in the order of their exit. */
  const exited: TrackedProcess[] = []
  let exitedHead = 0

  const containerOf = createContainerFinder()
  const entityId = (key: ProcessKey) => `${prefix}${key.pid}.${key.startTicks}`

  function put(entry: TrackedProcess): TrackedProcess {
    byPid.set(entry.key.pid, entry)
    // A storm of processes that never report an exit must not grow the table: the oldest entry goes.
    if (byPid.size > entriesMax) {
      const oldest = byPid.keys().next()
      if (!oldest.done) byPid.delete(oldest.value)
    }
    return entry
  }

  function fromSnapshot(snapshot: ProcessSnapshot, depth: number): TrackedProcess {
    const known = byPid.get(snapshot.process.pid)
    if (known && known.key.startTicks === snapshot.process.startTicks) return known
    const parent =
      depth < ANCESTORS_MAX && snapshot.parentPid > 0 ? find(snapshot.parentPid, depth + 1) : null
    return put({
      key: snapshot.process,
      entityId: entityId(snapshot.process),
      startedMs: options.bootTimeMs + snapshot.process.startTicks * 10,
      parent,
      depth: depthUnder(parent),
      parentPid: snapshot.parentPid,
      executable: snapshot.executable,
      arguments: snapshot.arguments,
      argumentsTruncated: snapshot.argumentsTruncated,
      workingDirectory: snapshot.workingDirectory,
      userId: snapshot.userId,
      groupId: snapshot.groupId,
      sessionId: snapshot.sessionId,
      file: snapshot.file,
      container: containerOf(snapshot.cgroup),
      circumstances: null,
      announced: false,
      exitedMs: null,
    })
  }

  function find(pid: number, depth = 0): TrackedProcess | null {
    const known = byPid.get(pid)
    if (known) return known
    const snapshot = options.readProcess(pid)
    return snapshot === null ? null : fromSnapshot(snapshot, depth)
  }

  function findExact(key: ProcessKey): TrackedProcess | null {
    const known = byPid.get(key.pid)
    if (known) return known.key.startTicks === key.startTicks ? known : null
    const snapshot = options.readProcess(key.pid)
    if (snapshot === null || snapshot.process.startTicks !== key.startTicks) return null
    return fromSnapshot(snapshot, 0)
  }

  /** An entry for a process of which only its key and parent are known; it inherits its parent's image. */
  function inherited(key: ProcessKey, parent: TrackedProcess | null, parentPid: number): TrackedProcess {
    return {
      key,
      entityId: entityId(key),
      startedMs: options.bootTimeMs + key.startTicks * 10,
      parent,
      depth: depthUnder(parent),
      parentPid,
      executable: parent?.executable ?? null,
      arguments: parent?.arguments ?? [],
      argumentsTruncated: parent?.argumentsTruncated ?? false,
      workingDirectory: parent?.workingDirectory ?? null,
      userId: parent?.userId ?? 0,
      groupId: parent?.groupId ?? 0,
      sessionId: parent?.sessionId ?? 0,
      file: parent?.file ?? null,
      container: parent?.container ?? null,
      circumstances: parent?.circumstances ?? null,
      announced: false,
      exitedMs: null,
    }
  }

  return {
    load(pids) {
      for (const pid of pids) find(pid)
    },
    fork(record) {
      const parent = findExact(record.parent)
      put(inherited(record.process, parent, record.parent.pid))
    },
    exec(record) {
      const known = byPid.get(record.process.pid)
      const entry =
        known && known.key.startTicks === record.process.startTicks
          ? known
          : put(inherited(record.process, findExact(record.parent), record.parent.pid))
      entry.executable = record.executable
      entry.arguments = record.arguments
      entry.argumentsTruncated = record.argumentsTruncated
      entry.workingDirectory = record.workingDirectory
      entry.userId = record.userId
      entry.groupId = record.groupId
      entry.sessionId = record.sessionId
      entry.file = record.file
      entry.circumstances = record.circumstances ?? null
      if (record.circumstances) entry.container = containerOf(record.circumstances.cgroup)
      return entry
    },
    exit(record) {
      const entry = byPid.get(record.process.pid)
      if (!entry || entry.key.startTicks !== record.process.startTicks) return null
      entry.exitedMs = elapsed()
      exited.push(entry)
      return entry
    },
    find: (pid) => find(pid),
    findExact,
    entityId,
    findEntity(entity) {
      if (!entity.startsWith(prefix)) return null
      const [pid, startTicks] = entity.slice(prefix.length).split('.').map(Number)
      return pid === undefined || startTicks === undefined ? null : findExact({ pid, startTicks })
    },
    descendantsOf(root) {
      const verdicts = new Map<TrackedProcess, boolean>()
      const found: ProcessKey[] = []
      for (const entry of byPid.values()) {
        if (found.length === DESCENDANTS_MAX) break
        if (entry.exitedMs === null && descends(entry, root, verdicts)) found.push(entry.key)
      }
      return found
    },
    sweep() {
      const before = elapsed() - keepExitedMs
      for (; exitedHead < exited.length; exitedHead += 1) {
        const entry = exited[exitedHead]
        if (!entry || (entry.exitedMs ?? 0) > before) break
        if (byPid.get(entry.key.pid) === entry) byPid.delete(entry.key.pid)
      }
      if (exitedHead > 1_024) {
        exited.splice(0, exitedHead)
        exitedHead = 0
      }
    },
    size: () => byPid.size,
  }
}

/** The depth of a child of `parent`; cuts the chain above when it grows without end. */
function depthUnder(parent: TrackedProcess | null): number {
  if (parent === null) return 0
  if (parent.depth < 2 * ANCESTORS_MAX) return parent.depth + 1
  let last: TrackedProcess = parent
  for (let kept = 1; kept < ANCESTORS_MAX && last.parent; kept += 1) last = last.parent
  last.parent = null
  parent.depth = ANCESTORS_MAX - 1
  return ANCESTORS_MAX
}

/**
 * Whether `root` is in the chain of parents. By key, not by object: the chain may hold an entry of the root that
 * the table has replaced. What was found is kept in `verdicts`, so that a look at all entries walks each once.
 */
function descends(entry: TrackedProcess, root: ProcessKey, verdicts: Map<TrackedProcess, boolean>): boolean {
  const walked: TrackedProcess[] = []
  let verdict = false
  for (let at: TrackedProcess | null = entry; at !== null; at = at.parent) {
    const known = verdicts.get(at)
    if (known !== undefined) {
      verdict = known
      break
    }
    walked.push(at)
    const { parent }: TrackedProcess = at
    if (parent?.key.pid === root.pid && parent.key.startTicks === root.startTicks) {
      verdict = true
      break
    }
  }
  for (const each of walked) verdicts.set(each, verdict)
  return verdict
}

/** The chain of parents, nearest first, at most ANCESTORS_MAX. */
export function ancestorsOf(entry: TrackedProcess): TrackedProcess[] {
  const chain: TrackedProcess[] = []
  for (let parent = entry.parent; parent && chain.length < ANCESTORS_MAX; parent = parent.parent) {
    chain.push(parent)
  }
  return chain
}
