/** What event schemas are built from: bounded texts and numbers, and the groups of fields that many events share. */
import Type from 'typebox'
import { COMMAND_LINE_CHARACTERS_MAX, PATH_CHARACTERS_MAX, TEXT_CHARACTERS_MAX } from '../protocol/limits.ts'
import { oneOf } from '../protocol/one-of.ts'

export const Text = (charactersMax = TEXT_CHARACTERS_MAX) => Type.String({ maxLength: charactersMax })
export const Path = Type.String({ minLength: 1, maxLength: PATH_CHARACTERS_MAX })
export const Count = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
export const Port = Type.Integer({ minimum: 0, maximum: 65_535 })
export const Address = Type.String({ minLength: 2, maxLength: 45, pattern: '^[0-9a-fA-F:.]+$' })
export const Sha256 = Type.String({ pattern: '^[0-9a-f]{64}$' })
/** 64 bits in hexadecimal, as /proc/PID/status writes capabilities. */
export const Hexadecimal64 = Type.String({ pattern: '^[0-9a-f]{1,16}$' })

/** `<agent 8 hex>.<boot 8 hex>.<pid>.<start ticks>`: readable, and never reused. */
export const EntityId = Type.String({ pattern: '^[0-9a-f]{8}\\.[0-9a-f]{8}\\.[0-9]{1,10}\\.[0-9]{1,15}$' })

/** RFC 3339 in UTC with milliseconds. */
export const Timestamp = Type.String({
  pattern: '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z$',
})

export const closed = { additionalProperties: false } as const

export const common = {
  '@timestamp': Timestamp,
}

export const ecs = <
  Kind extends string,
  Category extends string,
  Kinds extends string,
  Action extends string,
>(
  kind: Kind,
  category: Category,
  type: Kinds,
  action: Action,
) => ({
  'event.kind': Type.Literal(kind),
  'event.category': Type.Literal(category),
  'event.type': Type.Literal(type),
  'event.action': Type.Literal(action),
})

/** Set when a text field was not UTF-8 (exact bytes in base64, by field) or was cut (names of the fields). */
export const fidelity = {
  'cordon.bytes': Type.Optional(
    Type.Record(Type.String({ pattern: '^[a-z._]{1,64}$' }), Type.String({ maxLength: 24_000 }), {
      maxProperties: 8,
    }),
  ),
  'cordon.truncated': Type.Optional(Type.Array(Type.String({ maxLength: 64 }), { maxItems: 8 })),
}

/**
 * How a process was found when the kernel did not tell it with the observation. `last-writer`: the last of several
 * that changed the file before it was looked at.
 */
export const ATTRIBUTIONS = ['open-descriptor', 'socket-owner', 'poll', 'last-writer'] as const

export const CONTAINER_RUNTIMES = [
  'docker',
  'containerd',
  'podman',
  'crio',
  'lxc',
  'nspawn',
  'other',
] as const

/** The acting process, as far as it is known. */
export const actor = {
  'process.entity_id': Type.Optional(EntityId),
  'process.pid': Type.Optional(Count),
  'process.name': Type.Optional(Text(256)),
  'process.executable': Type.Optional(Path),
  'process.command_line': Type.Optional(Text(COMMAND_LINE_CHARACTERS_MAX)),
  'process.parent.entity_id': Type.Optional(EntityId),
  'process.parent.pid': Type.Optional(Count),
  'process.parent.executable': Type.Optional(Path),
  'user.id': Type.Optional(Text(32)),
  'user.name': Type.Optional(Text(256)),
  /** From the process's cgroup; a container without one that says so has the name of its cgroup. */
  'container.id': Type.Optional(Text(128)),
  'container.runtime': Type.Optional(oneOf(CONTAINER_RUNTIMES)),
  'cordon.attribution': Type.Optional(oneOf(ATTRIBUTIONS)),
}

/** `failure`: the kernel refused, with the name of its error in `error.code`. */
export const outcome = {
  'event.outcome': oneOf(['success', 'failure', 'unknown']),
  'error.code': Type.Optional(Text(32)),
}

/** What was there before and after a change, each cut to a bound; absent when there was nothing. */
export const beforeAndAfter = {
  'cordon.change.before': Type.Optional(Text(4_096)),
  'cordon.change.after': Type.Optional(Text(4_096)),
}

export const fileFacts = {
  'file.path': Path,
  'file.name': Type.Optional(Text(256)),
  'file.extension': Type.Optional(Text(64)),
  'file.size': Type.Optional(Count),
  'file.inode': Type.Optional(Text(24)),
  'file.device': Type.Optional(Text(24)),
  'file.hash.sha256': Type.Optional(Sha256),
  'file.hash.sha1': Type.Optional(Type.String({ pattern: '^[0-9a-f]{40}$' })),
  'file.hash.md5': Type.Optional(Type.String({ pattern: '^[0-9a-f]{32}$' })),
  /** Trend Micro's locality sensitive hash, version 1: absent for contents too short or too uniform for one. */
  'file.hash.tlsh': Type.Optional(Type.String({ pattern: '^T1[0-9A-F]{70}$' })),
  'file.mime_type': Type.Optional(Text(64)),
  /** Shannon's entropy of the bytes, 0 to 8 bits per byte. */
  'cordon.file.entropy': Type.Optional(Type.Number({ minimum: 0, maximum: 8 })),
  /** The first bytes in hexadecimal. */
  'cordon.file.header': Type.Optional(Type.String({ pattern: '^(?:[0-9a-f]{2}){0,32}$' })),
  /** Inside the container of the acting process, where that sees the file under another path. */
  'cordon.file.container_path': Type.Optional(Path),
}

/** An event that somebody's process caused. */
export const byActor = <
  Category extends string,
  Kinds extends string,
  Action extends string,
  Fields extends Type.TProperties,
>(
  category: Category,
  type: Kinds,
  action: Action,
  fields: Fields,
) =>
  Type.Object(
    { ...common, ...ecs('event', category, type, action), ...fields, ...actor, ...fidelity },
    closed,
  )
