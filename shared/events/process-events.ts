/** Processes: what they run, how they end, and what they do to each other and to memory. */
import Type from 'typebox'
import { SCRIPT_CHARACTERS_MAX } from '../protocol/limits.ts'
import { oneOf } from '../protocol/one-of.ts'
import {
  byActor,
  Count,
  closed,
  common,
  EntityId,
  ecs,
  Hexadecimal64,
  outcome,
  Path,
  Sha256,
  Text,
} from './fields.ts'

/** How a program ran that no path leads to. */
export const FILELESS = ['memory-file', 'deleted-file', 'descriptor'] as const

const processImage = {
  'process.working_directory': Type.Optional(Path),
  'process.args_count': Type.Optional(Count),
  'process.session_leader.entity_id': Type.Optional(EntityId),
  'process.session_leader.pid': Type.Optional(Count),
  'process.group.id': Type.Optional(Text(32)),
  /** Only where it differs from `user.id`. */
  'user.effective.id': Type.Optional(Text(32)),
  /** Only where it differs from `process.group.id`. */
  'cordon.process.effective_group_id': Type.Optional(Text(32)),
  /** The user who logged on, whatever the process became since (the kernel's loginuid). */
  'cordon.process.login_user_id': Type.Optional(Text(32)),
  'process.tty.char_device.major': Type.Optional(Count),
  'process.tty.char_device.minor': Type.Optional(Count),
  /** Variables of the environment that change what a program loads, as NAME=value. */
  'process.env_vars': Type.Optional(Type.Array(Text(512), { maxItems: 16 })),
  /** Inodes of the namespaces that are not those of the host's first process. */
  'cordon.process.namespaces': Type.Optional(
    Type.Record(Type.String({ pattern: '^(?:mnt|pid|net|uts|ipc|cgroup|user|time)$' }), Count, {
      maxProperties: 8,
    }),
  ),
  'cordon.process.fileless': Type.Optional(oneOf(FILELESS)),
  'process.hash.sha256': Type.Optional(Sha256),
}

export const Exec = byActor('process', 'start', 'exec', processImage)
/**
 * A process told because something refers to it: it forked without exec, or ran before the agent did. Told
 * once, before the first event that refers to it; `@timestamp` is when it started.
 */
export const ProcessInfo = byActor('process', 'info', 'process-info', processImage)
export const Exit = Type.Object(
  {
    ...common,
    ...ecs('event', 'process', 'end', 'exit'),
    'process.entity_id': EntityId,
    'process.pid': Count,
    'process.exit_code': Type.Optional(Type.Integer({ minimum: 0, maximum: 255 })),
    'cordon.process.signal': Type.Optional(Type.Integer({ minimum: 1, maximum: 64 })),
  },
  closed,
)

/** What an interpreter was given to run. */
export const Script = byActor('process', 'info', 'script', {
  /** `argument`: after -c or its like; `file`: a file it read; `input`: a pipe, a socket or a terminal. */
  'cordon.script.origin': oneOf(['argument', 'file', 'input']),
  /** Told once an hour for each text; `cordon.script.hash.sha256` says which one it is in between. */
  'cordon.script.content': Type.Optional(Text(SCRIPT_CHARACTERS_MAX)),
  /** Bytes that were seen, of which `content` is the beginning. */
  'cordon.script.bytes': Count,
  /** Of the bytes that were seen. */
  'cordon.script.hash.sha256': Sha256,
  'file.path': Type.Optional(Path),
})

export const MemoryFileCreated = byActor('process', 'creation', 'memory-file-created', {
  /** As given to memfd_create(2). */
  'file.name': Type.Optional(Text(256)),
  'cordon.memory.flags': Count,
})

/** Memory that can be written, or could, became executable. */
export const MemoryExecutable = byActor('process', 'change', 'memory-executable', {
  'cordon.operation': oneOf(['mmap', 'mprotect']),
  'cordon.memory.address': Hexadecimal64,
  'cordon.memory.bytes': Count,
  'cordon.memory.writable': Type.Boolean(),
  'file.path': Type.Optional(Path),
})

const target = {
  'cordon.target.entity_id': Type.Optional(EntityId),
  'cordon.target.pid': Count,
  'cordon.target.executable': Type.Optional(Path),
}

/** A process looked into another one. */
export const ProcessAccess = byActor('process', 'access', 'process-access', {
  'cordon.operation': oneOf(['ptrace-attach', 'ptrace-seize', 'ptrace-read', 'process_vm_readv', 'mem-read']),
  ...outcome,
  ...target,
})
/** A process changed another one. */
export const ProcessTampering = byActor('process', 'change', 'process-tampering', {
  'cordon.operation': oneOf(['ptrace-write', 'process_vm_writev', 'mem-write']),
  ...outcome,
  ...target,
})

export const CredentialsChanged = byActor('process', 'change', 'credentials-changed', {
  'cordon.operation': Text(32),
  /** Real, effective and saved user (or group), as asked for; -1 leaves one as it is. */
  'cordon.credentials.requested': Type.Optional(
    Type.Array(Type.Integer({ minimum: -1, maximum: 4_294_967_295 }), { maxItems: 3 }),
  ),
  'cordon.credentials.effective_user_id': Count,
  'cordon.credentials.effective_capabilities': Hexadecimal64,
})

export const NamespaceChanged = byActor('process', 'change', 'namespace-changed', {
  'cordon.operation': oneOf(['unshare', 'setns', 'clone']),
  'cordon.namespace.types': Type.Array(Text(8), { maxItems: 8 }),
})
