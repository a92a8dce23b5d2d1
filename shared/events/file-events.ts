/** Files that come, change and go, and what their contents are. */
import Type from 'typebox'
import { oneOf } from '../protocol/one-of.ts'
import { byActor, Count, fileFacts, Path, Text } from './fields.ts'

/** `cordon.file.repeated`: how many more times the same process did the same to the same file in this storm. */
const repeated = { 'cordon.file.repeated': Type.Optional(Count) }

export const FileCreated = byActor('file', 'creation', 'file-created', { ...fileFacts, ...repeated })
export const FileModified = byActor('file', 'change', 'file-modified', { ...fileFacts, ...repeated })
export const FileDeleted = byActor('file', 'deletion', 'file-deleted', { ...fileFacts, ...repeated })
export const FileRenamed = byActor('file', 'change', 'file-renamed', {
  ...fileFacts,
  'cordon.file.previous_path': Type.Optional(Path),
})
/** A second name for a file, or a symbolic link. */
export const FileLinked = byActor('file', 'creation', 'file-linked', {
  ...fileFacts,
  'file.type': oneOf(['file', 'symlink']),
  /** What a symbolic link says, as it says it. */
  'file.target_path': Type.Optional(Path),
  /** How many names the file has now. */
  'cordon.file.links': Type.Optional(Count),
})
/** Mode, owner or extended attributes. */
export const FileAttributesChanged = byActor('file', 'change', 'file-attributes-changed', {
  'cordon.operation': oneOf(['mode', 'owner', 'set-attribute', 'remove-attribute']),
  ...fileFacts,
  /** Octal, as chmod(1) takes it. */
  'file.mode': Type.Optional(Text(8)),
  'file.uid': Type.Optional(Text(16)),
  'file.gid': Type.Optional(Text(16)),
  'cordon.file.attribute': Type.Optional(Text(256)),
})
/** The content of a file was read: its hashes, size, kind and entropy. Told once per content. */
export const FileExamined = byActor('file', 'info', 'file-examined', fileFacts)

/** A block device was opened: below all file systems. */
export const DeviceRead = byActor('file', 'access', 'device-read', {
  'file.path': Path,
  /** Major and minor number. */
  'cordon.device.number': Text(24),
  'cordon.device.writable': Type.Boolean(),
})
