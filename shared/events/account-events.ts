/** Who logs on, and which accounts, groups and keys there are. The account is `user.target`; `user` is who acted. */
import Type from 'typebox'
import { oneOf } from '../protocol/one-of.ts'
import { Address, beforeAndAfter, byActor, Path, Text } from './fields.ts'

/** Where a logon was learnt from. */
const LOGON_SOURCES = ['pam', 'btmp', 'wtmp', 'audit', 'journal'] as const

const session = {
  'user.target.name': Text(256),
  /** The service of PAM, such as sshd, login, su. */
  'cordon.logon.service': Type.Optional(Text(64)),
  'cordon.logon.terminal': Type.Optional(Text(64)),
  'cordon.logon.source': oneOf(LOGON_SOURCES),
  /** The peer as the service named it; `source.ip` too when it is an address. */
  'source.address': Type.Optional(Text(256)),
  'source.ip': Type.Optional(Address),
}
export const Logon = byActor('authentication', 'start', 'logon', session)
export const Logoff = byActor('authentication', 'end', 'logoff', session)
export const LogonFailed = byActor('authentication', 'denied', 'logon-failed', session)
/** sudo, su and their like: somebody who is logged on acts as somebody else. */
export const PrivilegeElevated = byActor('authentication', 'user', 'privilege-elevated', session)

const user = {
  'user.target.name': Text(256),
  'user.target.id': Type.Optional(Text(32)),
  /** Names of what changed, such as `shell`, `password`, `groups`. Secrets are never told, only that they changed. */
  'cordon.change.fields': Type.Optional(Type.Array(Text(32), { maxItems: 16 })),
  ...beforeAndAfter,
  'file.path': Path,
}
export const UserCreated = byActor('iam', 'creation', 'user-created', user)
export const UserModified = byActor('iam', 'change', 'user-modified', user)
export const UserDeleted = byActor('iam', 'deletion', 'user-deleted', user)

const group = {
  'group.name': Text(256),
  'group.id': Type.Optional(Text(32)),
  ...beforeAndAfter,
  'file.path': Path,
}
export const GroupCreated = byActor('iam', 'creation', 'group-created', group)
export const GroupModified = byActor('iam', 'change', 'group-modified', group)
export const GroupDeleted = byActor('iam', 'deletion', 'group-deleted', group)

const key = {
  'user.target.name': Type.Optional(Text(256)),
  'file.path': Path,
  /** As `ssh-keygen -l` writes it. */
  'cordon.ssh_key.fingerprint': Text(64),
  'cordon.ssh_key.type': Text(64),
  'cordon.ssh_key.comment': Type.Optional(Text(256)),
  'cordon.ssh_key.options': Type.Optional(Text()),
}
export const SshKeyAdded = byActor('iam', 'creation', 'ssh-key-added', key)
export const SshKeyRemoved = byActor('iam', 'deletion', 'ssh-key-removed', key)
