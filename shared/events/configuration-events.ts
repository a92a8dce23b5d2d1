/** What makes a program run again: scheduled tasks, services, and the files that others read at their start. */
import Type from 'typebox'
import { oneOf } from '../protocol/one-of.ts'
import { actor, beforeAndAfter, byActor, closed, common, fidelity, Path, Text } from './fields.ts'

/** What happened to the file or unit. */
const CHANGES = ['creation', 'change', 'deletion'] as const

/** A configuration that can come, change or go under one action. */
const changed = <Action extends string, Fields extends Type.TProperties>(action: Action, fields: Fields) =>
  Type.Object(
    {
      ...common,
      'event.kind': Type.Literal('event'),
      'event.category': Type.Literal('configuration'),
      'event.type': oneOf(CHANGES),
      'event.action': Type.Literal(action),
      ...fields,
      ...beforeAndAfter,
      ...actor,
      ...fidelity,
    },
    closed,
  )

export const ScheduledTaskChanged = changed('scheduled-task-changed', {
  'cordon.persistence.kind': oneOf(['cron', 'at', 'timer']),
  'file.path': Path,
})

const service = { 'service.name': Text(256), 'file.path': Path, ...beforeAndAfter }
export const ServiceCreated = byActor('configuration', 'creation', 'service-created', service)
export const ServiceModified = byActor('configuration', 'change', 'service-modified', service)
export const ServiceDeleted = byActor('configuration', 'deletion', 'service-deleted', service)
/** Enabled, disabled, started, stopped: by links in the file system or by a call to systemd. */
export const ServiceStateChanged = byActor('configuration', 'change', 'service-state-changed', {
  'service.name': Text(256),
  'cordon.operation': oneOf(['enabled', 'disabled', 'masked', 'started', 'stopped', 'restarted', 'reloaded']),
  'file.path': Type.Optional(Path),
})

export const PERSISTENCE_KINDS = [
  'shell-profile',
  'preload',
  'pam',
  'udev',
  'module-configuration',
  'init-script',
  'sysctl-configuration',
  'ssh-configuration',
  'sudoers',
  'desktop-autostart',
] as const
export const PersistenceChanged = changed('persistence-changed', {
  'cordon.persistence.kind': oneOf(PERSISTENCE_KINDS),
  'file.path': Path,
})

/** A setting of the running kernel was opened for writing. */
export const SysctlWritten = byActor('configuration', 'change', 'sysctl-written', {
  'file.path': Path,
  /** What stands there a moment later. */
  'cordon.change.after': Type.Optional(Text(256)),
})
