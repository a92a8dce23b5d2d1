/** What a process did, in a line of the timeline. */
import type { CordonEvent, EventAction } from '../../shared/events/event.ts'

export interface ActivityWords {
  readonly kind: 'process' | 'file' | 'network'
  readonly summary: string
}

type Words = {
  readonly [Action in EventAction]?: (
    event: Extract<CordonEvent, { 'event.action': Action }>,
    who: string,
  ) => ActivityWords
}

const process = (summary: string): ActivityWords => ({ kind: 'process', summary })
const file = (summary: string): ActivityWords => ({ kind: 'file', summary })
const network = (summary: string): ActivityWords => ({ kind: 'network', summary })

const SCRIPT_CHARACTERS_SHOWN = 200

const ranProgram = (event: Extract<CordonEvent, { 'event.action': 'exec' | 'process-info' }>) => {
  const what = event['process.command_line'] ?? event['process.executable'] ?? 'a process'
  const fileless = event['cordon.process.fileless']
  return process(
    `pid ${event['process.pid'] ?? '?'} ran ${what}${fileless === undefined ? '' : ` (from a ${fileless})`}`,
  )
}
const onTarget = (event: Extract<CordonEvent, { 'event.action': 'process-access' | 'process-tampering' }>) =>
  `process ${event['cordon.target.pid']} (${event['cordon.target.executable'] ?? 'unknown'}) by ${event['cordon.operation']}`
const peer = (event: { 'destination.ip': string; 'destination.port': number }) =>
  `${event['destination.ip']} port ${event['destination.port']}`
const changed = { creation: 'added', change: 'changed', deletion: 'removed' } as const

/** In this order they are asked for; libraries and credentials would drown the rest. */
const WORDS: Words = {
  exec: ranProgram,
  'process-info': ranProgram,
  exit: (event) => {
    const signal = event['cordon.process.signal']
    const how = signal === undefined ? `code ${event['process.exit_code'] ?? '?'}` : `signal ${signal}`
    return process(`pid ${event['process.pid']} ended with ${how}`)
  },
  script: (event, who) => {
    const shown = event['cordon.script.content']?.slice(0, SCRIPT_CHARACTERS_SHOWN)
    const text = shown ?? `the script ${event['cordon.script.hash.sha256']}`
    return process(`${who} was given to run (${event['cordon.script.origin']}): ${text}`)
  },
  'memory-file-created': (event, who) => process(`${who} made a file in memory: ${event['file.name'] ?? ''}`),
  'memory-executable': (event, who) =>
    process(`${who} made ${event['cordon.memory.bytes']} bytes of memory executable`),
  'process-access': (event, who) => process(`${who} looked into ${onTarget(event)}`),
  'process-tampering': (event, who) => process(`${who} changed ${onTarget(event)}`),
  'namespace-changed': (event, who) =>
    process(`${who} ${event['cordon.operation']}: ${event['cordon.namespace.types'].join(', ')}`),
  'module-loaded': (event, who) =>
    process(
      `${who} loaded the kernel module ${event['cordon.module.name'] ?? '?'} (${event['event.outcome']})`,
    ),
  'module-unloaded': (event, who) =>
    process(
      `${who} unloaded the kernel module ${event['cordon.module.name'] ?? '?'} (${event['event.outcome']})`,
    ),
  'bpf-used': (event, who) =>
    process(
      `${who} used eBPF: ${event['cordon.operation']} of ${event['cordon.bpf.program_type'] ?? 'a program'}`,
    ),
  'mount-changed': (event, who) =>
    process(`${who} ${event['cordon.operation']}: ${event['file.path'] ?? '?'} (${event['event.outcome']})`),
  logon: (event) =>
    process(`${event['user.target.name']} logged on by ${event['cordon.logon.service'] ?? '?'}`),
  'logon-failed': (event) =>
    process(`${event['user.target.name']} failed to log on by ${event['cordon.logon.service'] ?? '?'}`),
  'privilege-elevated': (event) =>
    process(`somebody became ${event['user.target.name']} by ${event['cordon.logon.service'] ?? '?'}`),
  'user-created': (event, who) => process(`${who} created the user ${event['user.target.name']}`),
  'user-modified': (event, who) =>
    process(
      `${who} changed the user ${event['user.target.name']}: ${event['cordon.change.fields']?.join(', ') ?? ''}`,
    ),
  'user-deleted': (event, who) => process(`${who} deleted the user ${event['user.target.name']}`),
  'ssh-key-added': (event, who) =>
    process(`${who} added an SSH key (${event['cordon.ssh_key.fingerprint']}) in ${event['file.path']}`),
  'scheduled-task-changed': (event, who) =>
    process(`${who} ${changed[event['event.type']]} a scheduled task: ${event['file.path']}`),
  'service-created': (event, who) => process(`${who} created the service ${event['service.name']}`),
  'service-modified': (event, who) => process(`${who} changed the service ${event['service.name']}`),
  'service-deleted': (event, who) => process(`${who} deleted the service ${event['service.name']}`),
  'service-state-changed': (event, who) =>
    process(`${who}: service ${event['service.name']} ${event['cordon.operation']}`),
  'persistence-changed': (event, who) =>
    process(
      `${who} ${changed[event['event.type']]} ${event['cordon.persistence.kind']}: ${event['file.path']}`,
    ),
  'sysctl-written': (event, who) => process(`${who} wrote the kernel's setting ${event['file.path']}`),
  connection: (event, who) => network(`${who} connected to ${peer(event)} (${event['event.outcome']})`),
  'connection-accepted': (event, who) =>
    network(
      `${who} accepted a connection from ${event['source.ip'] ?? '?'} port ${event['source.port'] ?? '?'}`,
    ),
  'connection-closed': (event, who) =>
    network(
      `${who}: connection to ${peer(event)} ended after ${event['source.bytes']} bytes out, ${event['destination.bytes']} in`,
    ),
  'datagram-flow': (event, who) => network(`${who} exchanged datagrams with ${peer(event)}`),
  'socket-listen': (event, who) =>
    network(`${who} listens on ${event['server.ip']} port ${event['server.port']}`),
  'raw-socket': (event, who) => network(`${who} opened a raw socket (${event['cordon.socket.family']})`),
  'dns-query': (event, who) => network(`${who} asked for ${event['dns.question.name']}`),
  'file-created': (event, who) => file(`${who} created ${event['file.path']}`),
  'file-modified': (event, who) => file(`${who} wrote ${event['file.path']}`),
  'file-deleted': (event, who) => file(`${who} deleted ${event['file.path']}`),
  'file-renamed': (event, who) => file(`${who} renamed to ${event['file.path']}`),
  'file-linked': (event, who) =>
    file(`${who} linked ${event['file.path']} to ${event['file.target_path'] ?? 'another file'}`),
  'file-attributes-changed': (event, who) =>
    file(`${who} changed the ${event['cordon.operation']} of ${event['file.path']}`),
  'file-examined': (event, who) => file(`${who} touched ${event['file.path']}`),
  'device-read': (event, who) => file(`${who} opened the device ${event['file.path']}`),
}

/** Actions that the timeline tells of, when a suspect did them. */
export const TOLD_ACTIONS = Object.keys(WORDS) as readonly EventAction[]

export function activityInWords(event: CordonEvent): ActivityWords | undefined {
  const words = WORDS[event['event.action']] as
    | ((event: CordonEvent, who: string) => ActivityWords)
    | undefined
  const who = 'process.name' in event ? event['process.name'] : undefined
  return words?.(event, who ?? 'a process')
}
