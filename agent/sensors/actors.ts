/** Processes as events tell them: who acted, and what a process is. */
import type { EventOf } from '../../shared/events/event.ts'
import { commandLine, type Fidelity, lossy, text } from './kernel-text.ts'
import { ancestorsOf, type TrackedProcess } from './process-table.ts'
import type { FileIdentity } from './records.ts'

export type Actor = Partial<
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
    | 'container.id'
    | 'container.runtime'
  >
>

export type UserNames = (userId: number) => string | undefined
const VARIABLE_CHARACTERS_MAX = 512

export function actorOf(entry: TrackedProcess, userName: UserNames, fidelity: Fidelity): Actor {
  const executable =
    entry.executable === null ? undefined : text('process.executable', entry.executable, fidelity)
  const name = userName(entry.userId)
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
    ...(name === undefined ? {} : { 'user.name': name }),
    ...(entry.container === null
      ? {}
      : { 'container.id': entry.container.id, 'container.runtime': entry.container.runtime }),
  }
}

/** What a process runs, and as whom. */
export function imageOf(
  entry: TrackedProcess,
  knownHash: (file: FileIdentity) => string | undefined,
  fidelity: Fidelity,
) {
  const leader = sessionLeader(entry)
  const sha256 = entry.file === null ? undefined : knownHash(entry.file)
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
    ...circumstancesOf(entry),
    ...(sha256 === undefined ? {} : { 'process.hash.sha256': sha256 }),
  }
}

function circumstancesOf(entry: TrackedProcess) {
  const { circumstances } = entry
  if (circumstances === null) return undefined
  const { effectiveUserId, effectiveGroupId, loginUserId, terminal, environment, namespaces, fileless } =
    circumstances
  return {
    ...(effectiveUserId === entry.userId ? {} : { 'user.effective.id': String(effectiveUserId) }),
    ...(effectiveGroupId === entry.groupId
      ? {}
      : { 'cordon.process.effective_group_id': String(effectiveGroupId) }),
    ...(loginUserId === null ? {} : { 'cordon.process.login_user_id': String(loginUserId) }),
    ...(terminal === null
      ? {}
      : {
          'process.tty.char_device.major': terminal.major,
          'process.tty.char_device.minor': terminal.minor,
        }),
    ...(environment.length === 0
      ? {}
      : { 'process.env_vars': environment.map((one) => lossy(one).slice(0, VARIABLE_CHARACTERS_MAX)) }),
    ...(Object.keys(namespaces).length === 0 ? {} : { 'cordon.process.namespaces': { ...namespaces } }),
    ...(fileless === null ? {} : { 'cordon.process.fileless': fileless }),
  }
}

export function sessionLeader(entry: TrackedProcess): TrackedProcess | null {
  if (entry.key.pid === entry.sessionId) return entry
  return ancestorsOf(entry).find((ancestor) => ancestor.key.pid === entry.sessionId) ?? null
}

export function baseName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1).slice(0, 256)
}
