/**
 * The event schema: ECS 8 field names, flat and dotted, one closed object per action. What a sensor saw, what
 * a detection found and what the agent did all take this one form from the agent's buffer to the console.
 * Bodies are canonical: `JSON.stringify` of an object built in the schema's order.
 */
import type { Static, TSchema } from 'typebox'
import * as account from './account-events.ts'
import * as agent from './agent-events.ts'
import { Detection } from './alert-events.ts'
import * as configuration from './configuration-events.ts'
import * as file from './file-events.ts'
import * as kernel from './kernel-events.ts'
import * as network from './network-events.ts'
import * as process from './process-events.ts'

/** One schema per action: the only source of types, validators and docs/events.md. */
export const EVENT_SCHEMAS = {
  exec: process.Exec,
  'process-info': process.ProcessInfo,
  exit: process.Exit,
  script: process.Script,
  'memory-file-created': process.MemoryFileCreated,
  'memory-executable': process.MemoryExecutable,
  'process-access': process.ProcessAccess,
  'process-tampering': process.ProcessTampering,
  'credentials-changed': process.CredentialsChanged,
  'namespace-changed': process.NamespaceChanged,
  'library-loaded': kernel.LibraryLoaded,
  'module-loaded': kernel.ModuleLoaded,
  'module-unloaded': kernel.ModuleUnloaded,
  'bpf-used': kernel.BpfUsed,
  'mount-changed': kernel.MountChanged,
  connection: network.Connection,
  'connection-accepted': network.ConnectionAccepted,
  'connection-closed': network.ConnectionClosed,
  'datagram-flow': network.DatagramFlow,
  'socket-listen': network.SocketListen,
  'raw-socket': network.RawSocket,
  'dns-query': network.DnsQuery,
  'dns-answer': network.DnsAnswer,
  'file-created': file.FileCreated,
  'file-modified': file.FileModified,
  'file-deleted': file.FileDeleted,
  'file-renamed': file.FileRenamed,
  'file-linked': file.FileLinked,
  'file-attributes-changed': file.FileAttributesChanged,
  'file-examined': file.FileExamined,
  'device-read': file.DeviceRead,
  logon: account.Logon,
  logoff: account.Logoff,
  'logon-failed': account.LogonFailed,
  'privilege-elevated': account.PrivilegeElevated,
  'user-created': account.UserCreated,
  'user-modified': account.UserModified,
  'user-deleted': account.UserDeleted,
  'group-created': account.GroupCreated,
  'group-modified': account.GroupModified,
  'group-deleted': account.GroupDeleted,
  'ssh-key-added': account.SshKeyAdded,
  'ssh-key-removed': account.SshKeyRemoved,
  'scheduled-task-changed': configuration.ScheduledTaskChanged,
  'service-created': configuration.ServiceCreated,
  'service-modified': configuration.ServiceModified,
  'service-deleted': configuration.ServiceDeleted,
  'service-state-changed': configuration.ServiceStateChanged,
  'persistence-changed': configuration.PersistenceChanged,
  'sysctl-written': configuration.SysctlWritten,
  detection: Detection,
  'agent-started': agent.AgentStarted,
  'agent-stopped': agent.AgentStopped,
  'sensor-changed': agent.SensorChanged,
  gap: agent.Gap,
  tamper: agent.Tamper,
  'action-state': agent.ActionState,
} as const satisfies Record<string, TSchema>

export type EventAction = keyof typeof EVENT_SCHEMAS
export type EventOf<Action extends EventAction> = Static<(typeof EVENT_SCHEMAS)[Action]>
export type CordonEvent = { [Action in EventAction]: EventOf<Action> }[EventAction]
export type DetectionEvent = EventOf<'detection'>
