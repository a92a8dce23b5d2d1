/**
 * A network of its own for tests of isolation: the host to be cut off, the world outside with two links to it, and
 * containers on the host. Everything is in namespaces with random names, which are removed with it.
 */
import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { waitUntil } from '../../../../scripts/setup/wait-until.ts'

export const WAIT = { timeout: 20_000, interval: 50 }

/** Addresses of the host's direct link, and of the link whose end on the host is a port of a bridge. */
export const OUTSIDE = { four: '10.213.1.1', six: 'fd00:c0:1::1', bridged: '10.213.2.1' }
export const HOST = { four: '10.213.1.2', six: 'fd00:c0:1::2', bridged: '10.213.2.2' }
const CONTAINER = '10.213.2.5'

export interface Talk {
  readonly lines: readonly string[]
  say(line: string): void
  /** Resolves once a line is there that fits. */
  heard(line: RegExp | string): Promise<void>
  readonly exited: Promise<void>
}

export interface Network extends Disposable {
  readonly host: string
  readonly outside: string
  readonly container: string
  readonly macvlan: string
  /** What runs a program in a namespace. */
  within(namespace: string): readonly string[]
  run(namespace: string, program: string, ...args: readonly string[]): string
  /** Puts rules in force in the host, as somebody else. */
  nft(rules: string): void
  ruleset(): string
  /** Runs the probe to its end. */
  probe(namespace: string, ...args: readonly string[]): string
  /** Starts the probe. */
  start(namespace: string, ...args: readonly string[]): Talk
  /** Starts the probe, and waits until it is ready. */
  talk(namespace: string, ...args: readonly string[]): Promise<Talk>
  devices(): readonly string[]
}

export function compileProbe(folder: string): string {
  const output = join(folder, 'packet-probe')
  execFileSync('gcc', ['-O1', '-o', output, join(import.meta.dirname, 'packet-probe.c')])
  return output
}

/** One namespace with nothing but its loopback. */
export function createNamespace(): { readonly name: string } & Disposable {
  const name = `cordon-${randomBytes(4).toString('hex')}`
  execFileSync('ip', ['netns', 'add', name])
  execFileSync('ip', ['-n', name, 'link', 'set', 'lo', 'up'])
  return { name, [Symbol.dispose]: () => execFileSync('ip', ['netns', 'del', name]) }
}

export function createNetwork(probeProgram: string): Network {
  const made = ['host', 'outside', 'container', 'macvlan'].map(() => createNamespace())
  const [host = '', outside = '', container = '', macvlan = ''] = made.map(({ name }) => name)
  const children = new Set<ChildProcessWithoutNullStreams>()
  const within = (namespace: string) => ['ip', 'netns', 'exec', namespace]
  const run = (namespace: string, program: string, ...args: readonly string[]) => {
    const [command = 'ip', ...rest] = within(namespace)
    return execFileSync(command, [...rest, program, ...args], { encoding: 'utf8', timeout: 20_000 })
  }
  const ip = (namespace: string, line: string) => run(namespace, 'ip', ...line.split(' '))
  const veth = (from: string, fromName: string, to: string, toName: string) =>
    ip(from, `link add ${fromName} type veth peer name ${toName} netns ${to}`)
  const up = (namespace: string, device: string, ...addresses: readonly string[]) => {
    for (const address of addresses) {
      ip(namespace, `addr add ${address} dev ${device}${address.includes(':') ? ' nodad' : ''}`)
    }
    ip(namespace, `link set ${device} up`)
  }

  veth(host, 'up0', outside, 'up0')
  veth(host, 'up1', outside, 'up1')
  veth(host, 'guest0', container, 'eth0')
  up(host, 'up0', `${HOST.four}/24`, `${HOST.six}/64`)
  up(outside, 'up0', `${OUTSIDE.four}/24`, `${OUTSIDE.six}/64`)
  up(outside, 'up1', `${OUTSIDE.bridged}/24`)
  ip(host, 'link add bridge0 type bridge')
  for (const port of ['up1', 'guest0']) {
    ip(host, `link set ${port} master bridge0`)
    up(host, port)
  }
  up(host, 'bridge0', `${HOST.bridged}/24`)
  up(container, 'eth0', `${CONTAINER}/24`)
  ip(container, `route add default via ${HOST.bridged}`)
  ip(outside, `route add ${CONTAINER}/32 via ${HOST.four}`)
  ip(host, `link add mv0 link up0 type macvlan mode bridge`)
  ip(host, `link set mv0 netns ${macvlan}`)
  up(macvlan, 'mv0', '10.213.1.9/24')
  run(host, 'sh', '-c', 'echo 1 > /proc/sys/net/ipv4/ip_forward')

  const start = (namespace: string, ...args: readonly string[]) => {
    const [command = 'ip', ...rest] = within(namespace)
    const child = spawn(command, [...rest, probeProgram, ...args])
    children.add(child)
    return talkOf(child)
  }

  return {
    host,
    outside,
    container,
    macvlan,
    within,
    run,
    nft(rules) {
      const [command = 'ip', ...rest] = within(host)
      execFileSync(command, [...rest, 'nft', '-f', '-'], { input: rules })
    },
    ruleset: () => run(host, 'nft', 'list', 'ruleset'),
    probe: (namespace, ...args) => run(namespace, probeProgram, ...args),
    start,
    async talk(namespace, ...args) {
      const talk = start(namespace, ...args)
      await talk.heard('ready')
      return talk
    },
    devices: () => namesOf(run(host, 'cat', '/proc/self/net/dev')),
    [Symbol.dispose]() {
      for (const child of children) child.kill('SIGKILL')
      for (const namespace of made) namespace[Symbol.dispose]()
    },
  }
}

function talkOf(child: ChildProcessWithoutNullStreams): Talk {
  const lines: string[] = []
  createInterface({ input: child.stdout }).on('line', (line) => lines.push(line))
  createInterface({ input: child.stderr }).on('line', (line) => lines.push(`error: ${line}`))
  child.stdin.on('error', () => undefined)
  return {
    lines,
    say: (line) => child.stdin.write(`${line}\n`),
    heard: (wanted) =>
      waitUntil(() => {
        const found = lines.some((line) => (typeof wanted === 'string' ? line === wanted : wanted.test(line)))
        if (!found) throw new Error(`${wanted} was not heard, but ${lines.join(' | ')}`)
      }, WAIT),
    exited: new Promise((resolve) => child.once('close', () => resolve())),
  }
}

function namesOf(text: string): readonly string[] {
  return text
    .split('\n')
    .slice(2)
    .flatMap((line) => /^\s*([^:]+):/.exec(line)?.[1] ?? [])
}
