/**
 * Turns sensor records into ECS-shaped events joined to their process. A process that was never told is told
 * (`process-info`) before the first event that refers to it, so every reference can be resolved.
 */
import type { ProcessContext } from '../../shared/events/detection.ts'
import type { CordonEvent, EventOf } from '../../shared/events/event.ts'
import { constantsOf, inSchemaOrder } from '../../shared/events/schema-order.ts'
import { TEXT_CHARACTERS_MAX } from '../../shared/protocol/limits.ts'
import { createLru } from '../detect/lru.ts'
import type { Content, Observation } from '../detect/observation.ts'
import { describeActivity } from './activity-events.ts'
import { type Actor, actorOf, baseName, imageOf, sessionLeader } from './actors.ts'
import { createFidelity, type Fidelity, fidelityFields, lossy, text } from './kernel-text.ts'
import { fileEventOf, isoTime, leftOutEvent, lossEvent, tamperEvent } from './plain-events.ts'
import { ancestorsOf, type ProcessTable, type TrackedProcess } from './process-table.ts'
import type {
  ActivityRecord,
  ConnectRecord,
  ExecRecord,
  ExitRecord,
  FileIdentity,
  FileRecord,
  LibraryRecord,
  ProcessReference,
  SensorRecord,
  SuppressedRecord,
} from './records.ts'
import { createRepeatedLoads } from './repeated-loads.ts'

export interface EventBuilderOptions {
  readonly table: ProcessTable
  /** SHA-256 of an executable when its content was read before; must be cheap. */
  readonly knownHash: (file: FileIdentity) => string | undefined
  readonly userName: (userId: number) => string | undefined
  /** The agent's own processes: what they do is left out. */
  readonly ownPids: ReadonlySet<number>
  /** The agent's own folders: who else touches files below them is told. */
  readonly ownFolders: readonly string[]
  /** Folders that the agent has made for itself among others' files: what happens there is left out. */
  readonly isOwnPlace: (path: string) => boolean
  /** Milliseconds since 1970. */
  readonly clock: () => number
  /** The beginning of a setting of the kernel, below /proc/sys; null when it cannot be read. */
  readonly readSetting: (path: string) => string | null
}

export interface EventBuilder {
  /** Events in order. Never throws, whatever the records hold. */
  build(records: readonly SensorRecord[]): Observation[]
  /** The process of an entity id as detections tell it; without ancestors when it is not known. */
  context(entityId: string): ProcessContext
}

const SCRIPTS_REMEMBERED_MAX = 4_096
const SCRIPT_TOLD_MS = 3_600_000

export function createEventBuilder(options: EventBuilderOptions): EventBuilder {
  const { table } = options
  const scriptsTold = createLru<number>(SCRIPTS_REMEMBERED_MAX)
  let loadsForgotten = 0
  const loads = createRepeatedLoads(options.clock, (untold) => {
    loadsForgotten += untold
  })

  function announce(entry: TrackedProcess, into: Observation[]): void {
    if (entry.announced) return
    entry.announced = true
    for (const ancestor of ancestorsOf(entry)) {
      if (ancestor.announced) break
      ancestor.announced = true
      into.push({ event: processInfo(ancestor), content: null })
    }
    into.push({ event: processInfo(entry), content: null })
  }

  function processInfo(entry: TrackedProcess): EventOf<'process-info'> {
    const fidelity = createFidelity()
    return {
      '@timestamp': isoTime(entry.startedMs),
      'event.kind': 'event',
      'event.category': 'process',
      'event.type': 'info',
      'event.action': 'process-info',
      ...actorOf(entry, options.userName, fidelity),
      ...imageOf(entry, options.knownHash, fidelity),
      ...fidelityFields(fidelity),
    }
  }

  function execEvent(record: ExecRecord, into: Observation[]): void {
    const entry = table.exec(record)
    if (entry.parent) announce(entry.parent, into)
    const leader = sessionLeader(entry)
    if (leader && leader !== entry) announce(leader, into)
    entry.announced = true
    const fidelity = createFidelity()
    const event: EventOf<'exec'> = {
      '@timestamp': isoTime(record.timestampMs),
      'event.kind': 'event',
      'event.category': 'process',
      'event.type': 'start',
      'event.action': 'exec',
      ...actorOf(entry, options.userName, fidelity),
      ...imageOf(entry, options.knownHash, fidelity),
      ...fidelityFields(fidelity),
    }
    into.push({ event, content: { path: record.executable, identity: record.file, why: 'executed' } })
  }

  function exitEvent(record: ExitRecord, into: Observation[]): void {
    const entry = table.exit(record)
    // An exit tells of a process that was told; one that never mattered leaves no trace.
    if (!entry?.announced) return
    const event: EventOf<'exit'> = {
      '@timestamp': isoTime(record.timestampMs),
      'event.kind': 'event',
      'event.category': 'process',
      'event.type': 'end',
      'event.action': 'exit',
      'process.entity_id': entry.entityId,
      'process.pid': entry.key.pid,
      ...(record.exitCode === null ? {} : { 'process.exit_code': record.exitCode }),
      ...(record.signal === null ? {} : { 'cordon.process.signal': record.signal }),
    }
    into.push({ event, content: null })
  }

  function connectEvent(record: ConnectRecord, into: Observation[]): void {
    const fidelity = createFidelity()
    const entry = table.findExact(record.process)
    if (entry) announce(entry, into)
    const event: EventOf<'connection'> = {
      '@timestamp': isoTime(record.timestampMs),
      'event.kind': 'event',
      'event.category': 'network',
      'event.type': 'start',
      'event.action': 'connection',
      'event.outcome': record.outcome,
      'network.transport': 'tcp',
      'network.type': record.destinationAddress.includes(':') ? 'ipv6' : 'ipv4',
      'network.direction': 'egress',
      ...(record.sourceAddress === '' ? {} : { 'source.ip': record.sourceAddress }),
      ...(record.sourcePort === 0 ? {} : { 'source.port': record.sourcePort }),
      'destination.ip': record.destinationAddress,
      'destination.port': record.destinationPort,
      ...(entry ? actorOf(entry, options.userName, fidelity) : unknownActor(record.process)),
      ...fidelityFields(fidelity),
    }
    into.push({ event, content: null })
  }

  function fileEvent(record: FileRecord, into: Observation[]): void {
    const fidelity = createFidelity()
    const path = text('file.path', record.path, fidelity)
    if (path === '' || (record.pid === null && options.isOwnPlace(path))) return
    if (options.ownFolders.some((folder) => isBelow(path, folder))) {
      ownFileEvent(record, path, into)
      return
    }
    const entry = record.pid === null ? null : table.find(record.pid)
    if (entry) announce(entry, into)
    const name = baseName(path)
    const dot = name.lastIndexOf('.')
    const facts = {
      'file.path': path,
      ...(name === '' ? {} : { 'file.name': name }),
      ...(dot > 0 && dot < name.length - 1 ? { 'file.extension': name.slice(dot + 1, dot + 65) } : {}),
      ...(record.containerPath === undefined
        ? {}
        : {
            'cordon.file.container_path': text('cordon.file.container_path', record.containerPath, fidelity),
          }),
    }
    const shared = {
      '@timestamp': isoTime(record.timestampMs),
      'event.kind': 'event',
      'event.category': 'file',
    } as const
    const actor =
      entry !== null
        ? actorOf(entry, options.userName, fidelity)
        : record.pid === null
          ? {}
          : { 'process.pid': record.pid }
    const attribution = record.attribution ? { 'cordon.attribution': record.attribution } : {}
    const event = fileEventOf(record, shared, { ...facts, ...actor, ...attribution }, fidelity)
    const content: Content | null = record.contentComplete
      ? { path: record.path, identity: null, why: 'written' }
      : null
    into.push({ event, content })
  }

  /** Of a process that was never seen: its name is good all the same. */
  function unknownActor(process: ProcessReference): Actor {
    const { pid, startTicks } = process
    return {
      ...(startTicks === null ? {} : { 'process.entity_id': table.entityId({ pid, startTicks }) }),
      'process.pid': pid,
    }
  }

  /** Who acted, as far as it is known. */
  function actorFor(
    process: ProcessReference | null,
    entry: TrackedProcess | null,
    fidelity: Fidelity,
  ): Actor {
    if (entry !== null) return actorOf(entry, options.userName, fidelity)
    return process === null ? {} : unknownActor(process)
  }

  function findReferenced({ pid, startTicks }: ProcessReference): TrackedProcess | null {
    return startTicks === null ? table.find(pid) : table.findExact({ pid, startTicks })
  }

  function targetFields(reference: ProcessReference) {
    const entry = findReferenced(reference)
    return {
      'cordon.target.pid': reference.pid,
      ...(entry === null ? {} : { 'cordon.target.entity_id': entry.entityId }),
      ...(entry?.executable == null ? {} : { 'cordon.target.executable': lossy(entry.executable) }),
    }
  }

  function tellScript(sha256: string): boolean {
    const last = scriptsTold.get(sha256)
    // A clock that was set back must not hide a script for as long as it was ahead.
    if (last !== undefined && Math.abs(options.clock() - last) < SCRIPT_TOLD_MS) return false
    scriptsTold.set(sha256, options.clock())
    return true
  }

  /** Null: not told now. A program without a path is told each time. */
  function repeatedLoad(record: LibraryRecord, entry: TrackedProcess | null): number | null {
    if (entry?.executable == null) return 0
    return loads.tell(lossy(entry.executable), `${record.device}:${record.inode}`)
  }

  function activityEvent(record: ActivityRecord, into: Observation[]): void {
    if (record.process !== null && options.ownPids.has(record.process.pid)) return
    const fidelity = createFidelity()
    const described = describeActivity(record, {
      fidelity,
      target: targetFields,
      tellScript,
      readSetting: options.readSetting,
    })
    if (described === null) return
    const entry = record.process === null ? null : findReferenced(record.process)
    const repeated = record.kind === 'library' ? repeatedLoad(record, entry) : 0
    if (repeated === null) return
    if (entry) announce(entry, into)
    const actor = actorFor(record.process, entry, fidelity)
    const event = inSchemaOrder(described.action, {
      '@timestamp': isoTime(record.timestampMs),
      ...constantsOf(described.action),
      ...described.fields,
      ...(repeated > 0 ? { 'cordon.repeated': repeated } : {}),
      ...actor,
      ...(record.attribution ? { 'cordon.attribution': record.attribution } : {}),
      ...fidelityFields(fidelity),
    }) as CordonEvent
    into.push({ event, content: null })
    if (record.kind === 'process-access' && options.ownPids.has(record.target.pid)) {
      const reason = `the agent's process ${record.target.pid} was reached into: ${record.operation}`
      into.push({ event: tamperEvent(record.timestampMs, reason, actor), content: null })
    }
  }

  /** What was left out on purpose, and whose it was. */
  function suppressedEvent(record: SuppressedRecord, into: Observation[]): void {
    const entry = record.process === null ? null : findReferenced(record.process)
    if (entry) announce(entry, into)
    const fidelity = createFidelity()
    const actor = actorFor(record.process, entry, fidelity)
    into.push({ event: leftOutEvent(record, actor), content: null })
  }

  /** Files of the agent that somebody else changed. The agent's own changes are left out. */
  function ownFileEvent(record: FileRecord, path: string, into: Observation[]): void {
    if (record.pid === null || options.ownPids.has(record.pid)) return
    // Whoever reads a database of SQLite's opens these for writing as well, and closes them.
    if (record.action === 'modification' && /\.db-(?:shm|wal)$/.test(path)) return
    const entry = table.find(record.pid)
    if (entry) announce(entry, into)
    const fidelity = createFidelity()
    const actor = entry ? actorOf(entry, options.userName, fidelity) : { 'process.pid': record.pid }
    const reason = `a file of the agent's was touched (${record.action}): ${path}`
    into.push({
      event: tamperEvent(record.timestampMs, reason.slice(0, TEXT_CHARACTERS_MAX), actor),
      content: null,
    })
  }

  function one(record: SensorRecord, into: Observation[]): void {
    switch (record.kind) {
      case 'fork':
        if (!options.ownPids.has(record.process.pid)) table.fork(record)
        return
      case 'exec':
        if (!options.ownPids.has(record.process.pid)) execEvent(record, into)
        return
      case 'exit':
        exitEvent(record, into)
        return
      case 'connect':
        if (!options.ownPids.has(record.process.pid)) connectEvent(record, into)
        return
      case 'file':
        if (record.pid === null || !options.ownPids.has(record.pid)) fileEvent(record, into)
        return
      case 'loss':
        into.push({ event: lossEvent(record), content: null })
        return
      case 'suppressed':
        suppressedEvent(record, into)
        return
      default:
        activityEvent(record, into)
    }
  }

  return {
    build(records) {
      const observations: Observation[] = []
      for (const record of records) one(record, observations)
      if (loadsForgotten > 0) {
        const actions = { 'library-loaded': loadsForgotten }
        one(
          { kind: 'loss', timestampMs: options.clock(), source: 'repeats', count: loadsForgotten, actions },
          observations,
        )
        loadsForgotten = 0
      }
      table.sweep()
      return observations
    },
    context(entityId) {
      const entry = table.findEntity(entityId)
      const ancestors = entry ? ancestorsOf(entry) : []
      const outside = ancestors.findIndex((ancestor) => ancestor.sessionId !== entry?.sessionId)
      return {
        ancestors: ancestors.map((ancestor) => ancestor.entityId),
        sessionAncestors: outside === -1 ? ancestors.length : outside,
        sessionLeaderEntityId: entry ? sessionLeader(entry)?.entityId : undefined,
        workingDirectory: entry?.workingDirectory == null ? undefined : lossy(entry.workingDirectory),
        sha256: entry?.file == null ? undefined : options.knownHash(entry.file),
      }
    },
  }
}

function isBelow(path: string, folder: string): boolean {
  return path.startsWith(folder) && (path.length === folder.length || path[folder.length] === '/')
}
