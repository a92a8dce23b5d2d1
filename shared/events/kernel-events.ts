/** Code that is loaded, into processes and into the kernel, and what is mounted. */
import Type from 'typebox'
import { oneOf } from '../protocol/one-of.ts'
import { byActor, Count, fileFacts, outcome, Path, Text } from './fields.ts'

/** Told once an hour for each program and library. */
export const LibraryLoaded = byActor('library', 'start', 'library-loaded', {
  'file.path': fileFacts['file.path'],
  'file.name': fileFacts['file.name'],
  'file.inode': fileFacts['file.inode'],
  'file.device': fileFacts['file.device'],
  /** How often processes of the same program loaded it since it was told last. */
  'cordon.repeated': Type.Optional(Count),
})

const module = {
  ...outcome,
  /** Absent where the kernel tells of an attempt without a name. */
  'cordon.module.name': Type.Optional(Text(64)),
  'file.path': Type.Optional(Path),
}
export const ModuleLoaded = byActor('driver', 'start', 'module-loaded', module)
export const ModuleUnloaded = byActor('driver', 'end', 'module-unloaded', module)

/** Another program's use of eBPF. */
export const BpfUsed = byActor('driver', 'start', 'bpf-used', {
  'cordon.operation': oneOf(['program-load', 'attach', 'link', 'raw-tracepoint']),
  ...outcome,
  'cordon.bpf.program_name': Type.Optional(Text(16)),
  'cordon.bpf.program_type': Type.Optional(Text(32)),
})

export const MountChanged = byActor('host', 'change', 'mount-changed', {
  'cordon.operation': oneOf(['mount', 'unmount', 'move', 'pivot-root']),
  ...outcome,
  'cordon.mount.source': Type.Optional(Text()),
  'cordon.mount.type': Type.Optional(Text(32)),
  'file.path': Type.Optional(Path),
})
