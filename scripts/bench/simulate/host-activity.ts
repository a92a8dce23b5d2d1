/**
 * What a made-up host does: processes that start and end, files they write, connections they open, in the
 * proportions and sizes of a busy server (about 470 bytes an event). Each host differs from the others; the
 * same number always makes the same host.
 */
import type { CordonEvent, EventOf } from '../../../shared/events/event.ts'

export interface HostActivity {
  /** Events of class 2: exec and exit. */
  nextProcess(): CordonEvent
  /** Events of class 3: files and connections. */
  nextActivity(): CordonEvent
}

interface Actor {
  readonly entityId: string
  readonly pid: number
  readonly name: string
  readonly executable: string
  readonly commandLine: string
  readonly parent: { readonly entityId: string; readonly pid: number; readonly executable: string }
  readonly userId: string
  readonly userName: string
}

const TOOLS = [
  ['bash', '/usr/bin/bash', '-c'],
  ['python3', '/usr/bin/python3', '/opt/app/worker.py --queue'],
  ['curl', '/usr/bin/curl', '-sS https://api.internal/v2/'],
  ['node', '/usr/bin/node', '/srv/web/server.js --id'],
  ['git', '/usr/bin/git', 'fetch --prune origin'],
  ['sed', '/usr/bin/sed', '-i s/80/8080/ /etc/app/site'],
  ['cat', '/usr/bin/cat', '/proc/sys/kernel/random'],
] as const
const FOLDERS = ['/var/log/app', '/srv/www/assets', '/tmp/cache', '/home/deploy'] as const
const LIVING_MAX = 32

/** `fromMs` is the time of the first event; each further one is `stepMs` later. */
export function createHostActivity(
  agentId: string,
  number: number,
  fromMs: number,
  stepMs = 7,
): HostActivity {
  const random = createRandom(number + 1)
  const host = `${agentId.slice(0, 8)}.${hex(random, 8)}`
  const first: Actor['parent'] = { entityId: `${host}.1.12`, pid: 1, executable: '/usr/lib/systemd/systemd' }
  const living: Actor[] = []
  let timeMs = fromMs
  let pid = 1_000 + below(random, 20_000)
  let turn = 0

  const timestamp = () => {
    timeMs += stepMs
    return new Date(timeMs).toISOString()
  }
  const pick = (): Actor => {
    if (living.length === 0) start()
    return living[below(random, living.length)] as Actor
  }
  const start = (): Actor => {
    const [name, executable, args] = TOOLS[below(random, TOOLS.length)] ?? TOOLS[0]
    const parent = living.length > 2 && random() < 0.6 ? living[below(random, living.length)] : undefined
    pid += 1 + below(random, 3)
    const actor: Actor = {
      entityId: `${host}.${pid}.${100_000 + pid * 7}`,
      pid,
      name,
      executable,
      commandLine: `${executable} ${args} ${hex(random, 12)}`,
      parent: parent ?? first,
      userId: String(1_000 + (pid % 5)),
      userName: `svc-${pid % 5}`,
    }
    living.push(actor)
    if (living.length > LIVING_MAX) living.shift()
    return actor
  }

  const exec = (): EventOf<'exec'> => {
    const actor = start()
    return {
      '@timestamp': timestamp(),
      'event.kind': 'event',
      'event.category': 'process',
      'event.type': 'start',
      'event.action': 'exec',
      ...actorFields(actor),
      'process.working_directory': FOLDERS[pid % FOLDERS.length] ?? '/',
      'process.args_count': actor.commandLine.split(' ').length,
      'process.hash.sha256': hex(createRandom(pid % 200), 64),
    }
  }
  const exit = (): EventOf<'exit'> => {
    const actor = pick()
    return {
      '@timestamp': timestamp(),
      'event.kind': 'event',
      'event.category': 'process',
      'event.type': 'end',
      'event.action': 'exit',
      'process.entity_id': actor.entityId,
      'process.pid': actor.pid,
      'process.exit_code': random() < 0.9 ? 0 : 1,
    }
  }
  const file = (): CordonEvent => {
    const name = `${hex(random, 12)}.${random() < 0.5 ? 'log' : 'tmp'}`
    const created = random() < 0.5
    return {
      '@timestamp': timestamp(),
      'event.kind': 'event',
      'event.category': 'file',
      ...(created
        ? { 'event.type': 'creation', 'event.action': 'file-created' }
        : { 'event.type': 'change', 'event.action': 'file-modified' }),
      'file.path': `${FOLDERS[below(random, FOLDERS.length)]}/${name}`,
      'file.name': name,
      'file.extension': name.slice(13),
      'file.size': below(random, 100_000),
      'file.inode': String(1_000_000 + below(random, 1_000_000)),
      'file.device': '254:0',
      ...actorFields(pick()),
    } as CordonEvent
  }
  const connection = (): EventOf<'connection'> => ({
    '@timestamp': timestamp(),
    'event.kind': 'event',
    'event.category': 'network',
    'event.type': 'start',
    'event.action': 'connection',
    'event.outcome': 'success',
    'network.transport': 'tcp',
    'network.type': 'ipv4',
    'network.direction': 'egress',
    'source.ip': `10.${(number >> 8) & 255}.${number & 255}.7`,
    'source.port': 32_768 + below(random, 28_000),
    'destination.ip': `10.9.${below(random, 8)}.${below(random, 250)}`,
    'destination.port': [443, 5_432, 8_080][below(random, 3)] ?? 443,
    ...actorFields(pick()),
  })

  return {
    nextProcess() {
      // Twice as many end as begin a program: shells fork without exec.
      turn += 1
      return turn % 3 === 0 ? exec() : exit()
    },
    nextActivity: () => (random() < 0.6 ? file() : connection()),
  }
}

function actorFields(actor: Actor) {
  return {
    'process.entity_id': actor.entityId,
    'process.pid': actor.pid,
    'process.name': actor.name,
    'process.executable': actor.executable,
    'process.command_line': actor.commandLine,
    'process.parent.entity_id': actor.parent.entityId,
    'process.parent.pid': actor.parent.pid,
    'process.parent.executable': actor.parent.executable,
    'user.id': actor.userId,
    'user.name': actor.userName,
  }
}

type Random = () => number

/** Mulberry32: small, and the same on each machine. Uniform in [0, 1). */
function createRandom(seed: number): Random {
  let state = Math.imul(seed, 0x9e37_79b9)
  return () => {
    state = (state + 0x6d2b_79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

function below(random: Random, limit: number): number {
  return Math.floor(random() * limit)
}

function hex(random: Random, digits: number): string {
  let text = ''
  while (text.length < digits)
    text += Math.floor(random() * 2 ** 32)
      .toString(16)
      .padStart(8, '0')
  return text.slice(0, digits)
}
