/**
 * Turns sensor records into ECS-shaped events joined to their process. A process that was never told is told
 * (`process-info`) before the first event that refers to it, so every reference can be resolved.
 */
import type { ProcessContext } from '../../shared/events/detection.ts'
import type { CordonEvent, EventOf } from '../../shared/events/event.ts'
import type { Content, Observation } from '../detect/observation.ts'
import { commandLine, createFidelity, type Fidelity, fidelityFields, lossy, text } from './kernel-text.ts'
import { ancestorsOf, type ProcessTable, type TrackedProcess } from './process-table.ts'
import type {
  ConnectRecord,
  ExecRecord,
  ExitRecord,
  FileIdentity,
  FileRecord,
  LossRecord,
  SensorRecord,
} from './records.ts'

export interface EventBuilderOptions {
  readonly table: ProcessTable
  /** SHA-256 of an executable when its content was read before; must be cheap. */
  readonly knownHash: (file: FileIdentity) => string | undefined
  readonly userName: (userId: number) => string | undefined
  /** The agent's own processes: what they do is left out. */
  readonly ownPids: ReadonlySet<number>
  /** The agent's own folders: files below them are left out. */
  readonly ownFolders: readonly string[]
}

export interface EventBuilder {
  /** Events in order. Never throws, whatever the records hold. */
  build(records: readonly SensorRecord[]): Observation[]
  /** The process of an entity id as detections tell it; without ancestors when it is not known. */
  context(entityId: string): ProcessContext
}

type Actor = Partial<
  Pick<
    EventOf<'exec'>,
    | 'process.entity_id'
    | 'process.pid'
    | 'process.name'
    | 'process.executable'
    | 'process.command_line'
    | 'process.parent.entity_id'
    | 'process.parent.pid'
    | 'process.parent.executable'
    | 'user.id'
    | 'user.name'
  >
>

export function createEventBuilder(options: EventBuilderOptions): EventBuilder {
  const { table } = options

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

  function actorOf(entry: TrackedProcess, fidelity: Fidelity): Actor {
    const executable =
      entry.executable === null ? undefined : text('process.executable', entry.executable, fidelity)
    const userName = options.userName(entry.userId)
    const parentExecutable = entry.parent?.executable
    return {
      'process.entity_id': entry.entityId,
      'process.pid': entry.key.pid,
      ...(executable === undefined
        ? {}
        : { 'process.name': baseName(executable), 'process.executable': executable }),
      ...(entry.arguments.length === 0
        ? {}
        : { 'process.command_line': commandLine(entry.arguments, entry.argumentsTruncated, fidelity) }),
      ...(entry.parent ? { 'process.parent.entity_id': entry.parent.entityId } : {}),
      'process.parent.pid': entry.parentPid,
      ...(parentExecutable == null ? {} : { 'process.parent.executable': lossy(parentExecutable) }),
      'user.id': String(entry.userId),
      ...(userName === undefined ? {} : { 'user.name': userName }),
    }
  }

  function image(entry: TrackedProcess, fidelity: Fidelity) {
    const leader = sessionLeader(entry)
    const sha256 = entry.file === null ? undefined : options.knownHash(entry.file)
    return {
      ...(entry.workingDirectory === null
        ? {}
        : {
            'process.working_directory': text('process.working_directory', entry.workingDirectory, fidelity),
          }),
      'process.args_count': entry.arguments.length,
      ...(leader ? { 'process.session_leader.entity_id': leader.entityId } : {}),
      ...(entry.sessionId > 0 ? { 'process.session_leader.pid': entry.sessionId } : {}),
      'process.group.id': String(entry.groupId),
      ...(sha256 === undefined ? {} : { 'process.hash.sha256': sha256 }),
    }
  }

  function processInfo(entry: TrackedProcess): EventOf<'process-info'> {
    const fidelity = createFidelity()
    return {
      '@timestamp': isoTime(entry.startedMs),
      'event.kind': 'event',
      'event.category': 'process',
      'event.type': 'info',
      'event.action': 'process-info',
      ...actorOf(entry, fidelity),
      ...image(entry, fidelity),
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
      ...actorOf(entry, fidelity),
      ...image(entry, fidelity),
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
      ...(entry ? actorOf(entry, fidelity) : { 'process.pid': record.process.pid }),
      ...fidelityFields(fidelity),
    }
    into.push({ event, content: null })
  }

  function fileEvent(record: FileRecord, into: Observation[]): void {
    const fidelity = createFidelity()
    const path = text('file.path', record.path, fidelity)
    if (path === '' || options.ownFolders.some((folder) => isBelow(path, folder))) return
    const entry = record.pid === null ? null : table.find(record.pid)
    if (entry) announce(entry, into)
    const name = baseName(path)
    const dot = name.lastIndexOf('.')
    const facts = {
      'file.path': path,
      ...(name === '' ? {} : { 'file.name': name }),
      ...(dot > 0 && dot < name.length - 1 ? { 'file.extension': name.slice(dot + 1, dot + 65) } : {}),
    }
    const shared = {
      '@timestamp': isoTime(record.timestampMs),
      'event.kind': 'event',
      'event.category': 'file',
    } as const
    const actor =
      entry !== null ? actorOf(entry, fidelity) : record.pid === null ? {} : { 'process.pid': record.pid }
    const attribution = record.attribution ? { 'cordon.attribution': record.attribution } : {}
    const event = fileEventOf(record, shared, { ...facts, ...actor, ...attribution }, fidelity)
    const content: Content | null = record.contentComplete
      ? { path: record.path, identity: null, why: 'written' }
      : null
    into.push({ event, content })
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
        // Temporary folders that went before their events were read; `status` counts them as lost.
        if (record.source === 'fanotify:folder-gone') return
        into.push({ event: lossEvent(record), content: null })
    }
  }

  return {
    build(records) {
      const observations: Observation[] = []
      for (const record of records) one(record, observations)
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

function fileEventOf(
  record: FileRecord,
  shared: Pick<EventOf<'file-created'>, '@timestamp' | 'event.kind' | 'event.category'>,
  rest: Omit<EventOf<'file-created'>, keyof typeof shared | 'event.type' | 'event.action'>,
  fidelity: Fidelity,
): CordonEvent {
  switch (record.action) {
    case 'creation':
      return {
        ...shared,
        'event.type': 'creation',
        'event.action': 'file-created',
        ...rest,
        ...fidelityFields(fidelity),
      }
    case 'modification':
      return {
        ...shared,
        'event.type': 'change',
        'event.action': 'file-modified',
        ...rest,
        ...fidelityFields(fidelity),
      }
    case 'deletion':
      return {
        ...shared,
        'event.type': 'deletion',
        'event.action': 'file-deleted',
        ...rest,
        ...fidelityFields(fidelity),
      }
    case 'rename': {
      const previous =
        record.previousPath === null
          ? {}
          : { 'cordon.file.previous_path': text('cordon.file.previous_path', record.previousPath, fidelity) }
      return {
        ...shared,
        'event.type': 'change',
        'event.action': 'file-renamed',
        ...rest,
        ...previous,
        ...fidelityFields(fidelity),
      }
    }
  }
}

/** What a sensor lost before it could become events: counted, never silent. */
function lossEvent(record: LossRecord): EventOf<'gap'> {
  const time = isoTime(record.timestampMs)
  return {
    '@timestamp': time,
    'event.kind': 'event',
    'event.category': 'host',
    'event.type': 'info',
    'event.action': 'gap',
    'cordon.gap.class': record.source.startsWith('file') || record.source.startsWith('fanotify') ? 3 : 2,
    'cordon.gap.count': record.count,
    'cordon.gap.bytes': null,
    'cordon.gap.started': time,
    'cordon.gap.ended': time,
    'event.reason': `${record.source} lost observations`,
  }
}

function sessionLeader(entry: TrackedProcess): TrackedProcess | null {
  if (entry.key.pid === entry.sessionId) return entry
  return ancestorsOf(entry).find((ancestor) => ancestor.key.pid === entry.sessionId) ?? null
}

function baseName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1).slice(0, 256)
}

function isBelow(path: string, folder: string): boolean {
  return path.startsWith(folder) && (path.length === folder.length || path[folder.length] === '/')
}

function isoTime(timestampMs: number): string {
  return new Date(timestampMs).toISOString()
}
